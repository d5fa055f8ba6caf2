"""`jetwire snapshot run` as a process: several servers at once, plans with a journal, dry runs, signals."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jetwire.snapshots.plans import PlanError, build
from jetwire.snapshots.run import Kind
from tests.integration.test_freeze import JETWIRE, checksums, create_database, is_open, prepare
from tests.support.server_process import ServerProcess

Finished = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("first") / "data") as server:
        create_database(server)
        yield server


@pytest.fixture
def second(tmp_path: Path) -> Iterator[ServerProcess]:
    """For a test to kill or to stop."""
    with ServerProcess(tmp_path / "second") as server:
        create_database(server)
        yield server


def command(*arguments: str | Path) -> list[str]:
    return [*JETWIRE, "--json", "snapshot", "run", *map(str, arguments)]


def run(*arguments: str | Path, cwd: Path | None = None) -> Finished:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


def of(*servers: ServerProcess) -> list[str]:
    return [word for server in servers for word in ("--server", server.addresses["tcp"])]


def until(true: Callable[[], object], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# -- several servers ----------------------------------------------------------------------------------------------
def test_the_provider_runs_once_while_all_are_frozen(first: ServerProcess, second: ServerProcess, tmp_path: Path) -> None:
    asked = [f"{' '.join(JETWIRE)} --url {server.addresses['tcp']} snapshot status" for server in (first, second)]
    script = f'echo "$JETWIRE_SNAPSHOT_IDS" >> ids; {asked[0]} > one; {asked[1]} > two'
    done = run(*of(first, second), "--manifest", tmp_path / "m.json", "--exec", "sh", "-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [one["verdict"]["held"] for one in report["servers"]] == [True, True]
    assert [json.loads((tmp_path / name).read_text())["state"] for name in ("one", "two")] == ["frozen", "frozen"]
    assert (tmp_path / "ids").read_text() == ",".join(str(one["snapId"]) for one in report["servers"]) + "\n"
    manifests = json.loads((tmp_path / "m.json").read_text())
    assert [one["url"] for one in manifests] == [first.addresses["tcp"], second.addresses["tcp"]]
    assert all("digest" in db for one in manifests for instance in one["instances"] for db in instance["databases"])
    assert is_open(first)
    assert is_open(second)


def test_when_one_server_refuses_nothing_is_copied_and_the_others_are_free(
    first: ServerProcess, second: ServerProcess, tmp_path: Path
) -> None:
    with second.connect() as lines:
        theirs = prepare(lines)
        done = run(*of(first, second), "--exec", "touch", tmp_path / "copied")
        assert done.returncode == 4
        assert second.addresses["tcp"] in json.loads(done.stdout)["message"]
        assert lines.call("SnapshotStatus")["snapId"] == theirs, "a session of somebody else was ended"
    done = run(*of(first), "--server", "tcp://127.0.0.1:1", "--exec", "touch", tmp_path / "copied")
    assert done.returncode == 4
    assert not (tmp_path / "copied").exists()
    assert is_open(first)


def test_when_one_server_dies_the_provider_is_stopped_and_the_others_are_free(
    first: ServerProcess, second: ServerProcess, tmp_path: Path
) -> None:
    script = f"echo $$ > {tmp_path}/provider; kill -KILL {second.process.pid}; sleep 600"
    begun = time.monotonic()
    done = run(*of(first, second), "--lease-ms", "60000", "--exec", "sh", "-c", script)
    assert time.monotonic() - begun < 30, "it waited for the lease"
    assert (done.returncode, second.addresses["tcp"] in json.loads(done.stdout)["message"]) == (3, True)
    assert gone(int((tmp_path / "provider").read_text()))
    assert is_open(first)


@pytest.mark.parametrize("renew", [[], ["--renew"]], ids=["", "renewed"])
def test_when_one_server_stops_the_run_ends_all_the_same(
    first: ServerProcess, second: ServerProcess, tmp_path: Path, renew: list[str]
) -> None:
    script = f"kill -STOP {second.process.pid}; sleep 600"
    done = run(*of(first, second), *renew, "--lease-ms", "1500", "--exec", "sh", "-c", script)
    assert done.returncode == 3, done.stderr
    assert is_open(first)
    second.process.send_signal(signal.SIGCONT)
    until(lambda: is_open(second), "the other stays frozen")


@pytest.mark.torture
def test_a_server_that_never_answers_is_given_up(first: ServerProcess, second: ServerProcess) -> None:
    second.process.send_signal(signal.SIGSTOP)
    done = run(*of(first, second), "--exec", "true")
    assert (done.returncode, "no answer in 15 s" in json.loads(done.stdout)["message"]) == (4, True)
    assert is_open(first)


# -- plans, journals ----------------------------------------------------------------------------------------------
def write_plan(path: Path, server: ServerProcess, **more: Any) -> Path:
    plan = {"servers": [server.addresses["tcp"]], "exec": ["sh", "-c", f"echo >> {path.parent}/runs"], **more}
    path.write_text(json.dumps(plan))
    return path


def killed_at(hold: Path, *arguments: str | Path) -> None:
    """A run that is killed when the file `hold` is there, which one of its commands makes before it waits for ever."""
    process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    until(hold.exists, "it never came there")
    process.kill()
    process.wait()
    os.killpg(int(hold.read_text()), signal.SIGKILL)  # what it left behind


def holding(hold: Path) -> list[str]:
    """A command that waits for ever the first time."""
    return ["sh", "-c", f"[ -e {hold} ] || {{ echo $$ > {hold}.new; mv {hold}.new {hold}; exec sleep 600; }}"]


@pytest.mark.parametrize("kind", ["tcp", "http"])
@pytest.mark.parametrize("step", ["exec", "verify"])
def test_a_run_that_was_killed_is_taken_up(first: ServerProcess, tmp_path: Path, step: str, kind: str) -> None:
    """Over HTTP there is no connection whose end would tell the server: the journal knows the session that is left."""
    journal, hold = tmp_path / "journal", tmp_path / "hold"
    provider = {"name": "copy", "source": str(first.data), "target": f"{tmp_path}/copy-{{time}}"}
    plan = write_plan(tmp_path / "plan.json", first, servers=[first.addresses[kind]], **{step: holding(hold)})
    if step == "verify":
        plan = write_plan(tmp_path / "plan.json", first, servers=[first.addresses[kind]], provider=provider, verify=holding(hold))
        whole = json.loads(plan.read_text())
        del whole["exec"]
        plan.write_text(json.dumps(whole))
    killed_at(hold, "--plan", plan, "--journal", journal)
    steps = [json.loads(line)["step"] for line in journal.read_text().splitlines()]
    assert steps == ["begun", "prepared", "frozen"] + (["provided", "thawed"] if step == "verify" else [])
    if kind == "http":
        again = run("--plan", plan)
        assert again.returncode == 4, "the control: what is left behind is in the way"
    else:
        until(lambda: is_open(first), "the session outlived its connection")
    done = run("--plan", plan, "--journal", journal, "--resume")
    assert done.returncode == 0, done.stderr
    assert json.loads(journal.read_text().splitlines()[-1])["step"] == "over"
    assert len(list(tmp_path.glob("copy-*"))) == (2 if step == "verify" else 0), "a copy that proves nothing beside the good one"
    assert is_open(first)


def test_a_finished_plan_is_not_carried_out_again(first: ServerProcess, tmp_path: Path) -> None:
    plan, journal = write_plan(tmp_path / "plan.json", first), tmp_path / "journal"
    done = run("--plan", plan, "--journal", journal, "--resume")
    assert done.returncode == 0
    before = journal.read_bytes()
    again = run("--plan", plan, "--journal", journal, "--resume")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert (tmp_path / "runs").read_text() == "\n"
    assert journal.read_bytes() == before
    assert run("--plan", plan, "--journal", journal).returncode == 0, "without --resume it is"
    assert (tmp_path / "runs").read_text() == "\n\n"


def test_a_run_that_failed_is_carried_out_again(first: ServerProcess, tmp_path: Path) -> None:
    plan, journal = write_plan(tmp_path / "plan.json", first, exec=["sh", "-c", f"[ -e {tmp_path}/now ]"]), tmp_path / "journal"
    assert run("--plan", plan, "--journal", journal).returncode == 5
    assert run("--plan", plan, "--journal", journal, "--resume").returncode == 5
    (tmp_path / "now").touch()
    assert run("--plan", plan, "--journal", journal, "--resume").returncode == 0


def test_a_journal_whose_last_line_was_cut_off_is_good(first: ServerProcess, tmp_path: Path) -> None:
    plan, journal = write_plan(tmp_path / "plan.json", first), tmp_path / "journal"
    assert run("--plan", plan, "--journal", journal).returncode == 0
    journal.write_bytes(journal.read_bytes()[:-20])
    assert run("--plan", plan, "--journal", journal, "--resume").returncode == 0
    assert (tmp_path / "runs").read_text() == "\n\n", "whether that run was good is not known"
    assert [json.loads(line)["step"] for line in journal.read_text().splitlines()].count("over") == 1


@pytest.mark.parametrize("damage", ["rubbish", "another plan's", "a directory", "no journal named"])
def test_a_journal_that_cannot_be_trusted_is_refused(first: ServerProcess, tmp_path: Path, damage: str) -> None:
    plan, journal = write_plan(tmp_path / "plan.json", first), tmp_path / "journal"
    if damage == "a directory":
        journal.mkdir()
    else:
        assert run("--plan", plan, "--journal", journal).returncode == 0
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join([*lines[:2], b"\0\0rubbish\n", *lines[3:]]) if damage == "rubbish" else b"".join(lines))
        if damage == "another plan's":
            write_plan(plan, first, truncate=True)
        (tmp_path / "runs").unlink()
    done = run("--plan", plan, *(() if damage == "no journal named" else ("--journal", journal)), "--resume")
    assert done.returncode == 2
    assert "journal" in json.loads(done.stderr)["error"]["message"]
    assert not (tmp_path / "runs").exists()
    assert is_open(first)


def test_a_journal_that_cannot_be_written_refuses_before_anything_is_done(first: ServerProcess, tmp_path: Path) -> None:
    done = run(*of(first), "--journal", tmp_path / "nowhere" / "journal", "--exec", "touch", tmp_path / "copied")
    assert (done.returncode, "journal" in json.loads(done.stdout)["message"]) == (4, True)
    assert not (tmp_path / "copied").exists()
    assert is_open(first)


# -- dry runs -----------------------------------------------------------------------------------------------------
def test_a_dry_run_touches_nothing(first: ServerProcess, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    before, events = checksums(first.data), _events(first)
    arguments = [
        "--truncate",
        "--copy",
        "c-{time}",
        "--verify",
        "look c-{time}",
        "--journal",
        "journal",
        "--manifest",
        "m.json",
        "--dry-run",
    ]
    done = run(*of(first), *arguments, "--exec", "cp", "-a", "d", "c-{time}", cwd=here)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["steps"] == [
        "prepare",
        "freeze",
        "run cp -a d 'c-{time}'",
        "thaw",
        "look for the copy in c-{time}",
        "verify with look 'c-{time}'",
        "truncate logs",
        "end",
    ]
    assert "token" not in facts["plan"]
    assert list(here.iterdir()) == []
    assert _events(first) == events
    assert checksums(first.data) == before
    assert is_open(first)
    assert run("--server", "tcp://127.0.0.1:1", "--dry-run", "--exec", "true").returncode == 0, "it asks no server"
    assert run(*of(first), "--exec", "true").returncode == 0
    assert checksums(first.data) != before, "the control: a run that is none does change files"


def _events(server: ServerProcess) -> list[Any]:
    with server.connect() as lines:
        return list(lines.call("GetEvents")["events"])


# -- signals ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_aborts(first: ServerProcess, tmp_path: Path, number: signal.Signals) -> None:
    """What the provider started goes with it, also when it does not listen; a second signal does not spoil the abort."""
    child = "trap '' TERM INT HUP; while :; do sleep 1; done"
    script = f"sh -c {shlex.quote(child)} & echo $! > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/child; wait"
    arguments: list[str | Path] = [*of(first), "--journal", tmp_path / "journal", "--exec", "sh", "-c", script]
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until((tmp_path / "child").exists, "the provider never ran")
    process.send_signal(number)
    time.sleep(0.1)
    process.send_signal(number)
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 5, errors
    assert (json.loads(out)["message"], "Traceback" in errors) == ("interrupted", False)
    until(lambda: gone(int((tmp_path / "child").read_text())), "the provider's child goes on")
    assert is_open(first)
    assert json.loads((tmp_path / "journal").read_text().splitlines()[-1])["facts"]["exitCode"] == 5


# -- plans that make no sense -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("plan", "word"),
    [
        ("{", "plan.json"),
        ("[]", "JSON object"),
        ('{"exec": ["true"], "colour": "red"}', "colour"),
        ('{"exec": "true"}', "$.exec"),
        ('{"exec": []}', "no provider"),
        ('{"exec": ["true"], "servers": "tcp://a"}', "$.servers"),
        ('{"exec": ["true"], "servers": []}', "no server"),
        ('{"exec": ["true"], "servers": ["carrier-pigeon://a"]}', "carrier-pigeon"),
        ('{"exec": ["true"], "lease_ms": "long"}', "$.lease_ms"),
        ('{"exec": ["true"], "kind": "small"}', "small"),
        ('{"provider": {"name": "tape", "source": "a", "target": "b"}}', "tape"),
        ('{"provider": {"name": "copy", "source": "a"}}', "target"),
        ('{"provider": "copy"}', "object"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_with_what_is_wrong(tmp_path: Path, plan: str, word: str) -> None:
    (tmp_path / "plan.json").write_text(plan)
    with pytest.raises(PlanError) as caught:
        build(tmp_path / "plan.json", {}, default_server="tcp://127.0.0.1:1", token=None)
    assert word in str(caught.value)


def test_what_is_on_the_line_wins(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"exec": ["true"], "lease_ms": 5, "kind": "copy", "servers": ["tcp://a"]}')
    plan = build(tmp_path / "plan.json", {"exec": ("false",), "lease_ms": 7}, default_server="tcp://b", token="t")
    assert (plan.exec, plan.lease_ms, plan.kind, plan.servers, plan.token) == (("false",), 7, Kind.COPY, ("tcp://a",), "t")
