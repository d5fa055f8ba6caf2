"""One contract for all providers, on real file systems: what the run says of a provider that does its work, and of one that hangs,
prints nonsense, does nothing, fails, is killed or stops half-way. Whatever it is, nothing stays frozen."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jetwire.snapshots import plans
from jetwire.snapshots.outcome import Outcome
from jetwire.snapshots.run import Report, run
from tests.integration.test_freeze import create_database, is_open
from tests.support.server_process import ServerProcess
from tests.support.volumes import mounted

# What the tool does in place of its work, or around it; `work` is the real tool with its arguments, `$copy` where its copy goes.
DEEDS: dict[str, tuple[str, Outcome, str]] = {
    "works": ("work", Outcome.CONSISTENT, "every gate"),
    "prints nonsense": (
        "work; head -c 5000 /dev/urandom; head -c 5000 /dev/urandom >&2; echo '{\"exitCode\": 9}'",
        Outcome.CONSISTENT,
        "every gate",
    ),
    "hangs": ("work & sleep 600; wait", Outcome.FREEZE_LOST, "still running"),
    "hangs and does not listen": ("trap '' TERM; sleep 600 & wait; sleep 600", Outcome.FREEZE_LOST, "still running"),
    "exits 0 having done nothing": ("exit 0", Outcome.PROVIDER_FAILED, "is missing"),
    "makes an empty directory": ('mkdir "$copy"', Outcome.PROVIDER_FAILED, "is missing"),
    "fails": ("work; exit 9", Outcome.PROVIDER_FAILED, "exit status 9"),
    "is killed": ("kill -KILL $$", Outcome.PROVIDER_FAILED, "signal SIGKILL"),
    "copies a part": (
        '/bin/cp -a "$source" "$copy"; rm "$copy/default/edb.log"; exit 0',
        Outcome.PROVIDER_FAILED,
        "edb.log is missing",
    ),
    "cuts a file short": (
        '/bin/cp -a "$source" "$copy"; truncate -s 4096 "$copy/default/load.edb"; exit 0',
        Outcome.PROVIDER_FAILED,
        "load.edb has 4096 bytes",
    ),
}
SHIM = """#!/bin/sh
for copy; do source=$before; before=$copy; done
echo $$ >"$SHIM_LOG"
{deed}
"""


@dataclass
class Bench:
    """A server whose data lies where the provider can copy it, and the plan that names the provider."""

    server: ServerProcess
    home: Path
    tool: str  # which program does the work
    plan: dict[str, Any]
    copies: int = 0

    def new_copy(self) -> Path:
        self.copies += 1
        return self.home / f"copy{self.copies}"


PROVIDERS = {
    "copy": ("cp", ""),
    "reflink": ("cp", "xfs"),
    "btrfs": ("btrfs", "btrfs"),
    "command": ("cp", ""),
}


@pytest.fixture(scope="module", params=PROVIDERS)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    tool, kind = PROVIDERS[request.param]
    base = tmp_path_factory.mktemp("providers")
    with ExitStack() as stack:
        home = stack.enter_context(mounted(kind, base)) if kind else base
        data = home / "data"
        if request.param == "btrfs":
            subprocess.run(["btrfs", "subvolume", "create", str(data)], check=True, capture_output=True)
        server = stack.enter_context(ServerProcess(data))
        create_database(server)
        plan: dict[str, Any] = {"servers": [server.addresses["tcp"]], "manifest": str(base / "m.json")}
        if request.param != "command":
            plan["provider"] = {"name": request.param, "source": str(data)}
        yield Bench(server, home, tool, plan)


def carry_out(bench: Bench, copy: Path, base: Path, **more: Any) -> Report:
    plan = {**bench.plan, **more}
    if "provider" in plan:
        plan["provider"] = {**plan["provider"], "target": str(copy)}
    else:
        plan |= {"exec": ["cp", "-a", "-T", str(bench.server.data), str(copy)], "copy": str(copy)}
    (base / "plan.json").write_text(json.dumps(plan))
    return asyncio.run(run(plans.build(base / "plan.json", {}, default_server="", token=None)))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("deed", DEEDS)
def test_a_provider(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str) -> None:
    script, outcome, word = DEEDS[deed]
    shim = tmp_path / bench.tool
    shim.write_text(SHIM.format(deed=script.replace("work", f'{shutil.which(bench.tool)} "$@"')))
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SHIM_LOG", str(tmp_path / "pid"))
    copy = bench.new_copy()
    lease = 700 if deed.startswith("hangs") else 30_000
    report = carry_out(bench, copy, tmp_path, lease_ms=lease)
    assert (report.outcome, word in report.message) == (outcome, True), report
    assert is_open(bench.server)
    assert not alive(int((tmp_path / "pid").read_text()))


def test_what_a_provider_copied_passes_its_verification(bench: Bench, tmp_path: Path) -> None:
    copy = bench.new_copy()
    report = carry_out(bench, copy, tmp_path, verify=[sys.executable, "-m", "jetwire", "snapshot", "verify", str(copy)])
    assert report.outcome is Outcome.CONSISTENT, report
    record = json.loads((bench.home / f"{copy.name}.verified.jsonl").read_text())
    assert (record["result"], record["notes"], record["manifest"]) == ("good", [], bench.plan["manifest"])


def test_a_copy_of_an_earlier_snapshot_does_not_pass_as_this_one(bench: Bench, tmp_path: Path) -> None:
    """The control: the verification that lets good copies through does stop others."""
    copy = bench.new_copy()
    assert carry_out(bench, copy, tmp_path).outcome is Outcome.CONSISTENT
    verify = [sys.executable, "-m", "jetwire", "snapshot", "verify", str(copy)]
    report = carry_out(bench, bench.new_copy(), tmp_path, verify=verify)
    assert report.outcome is Outcome.VERIFICATION_FAILED, report
    assert is_open(bench.server)


def test_what_is_there_already_is_not_mixed_with_the_copy(bench: Bench, tmp_path: Path) -> None:
    copy = bench.new_copy()
    copy.mkdir()
    report = carry_out(bench, copy, tmp_path)
    assert (report.outcome, "is there already" in report.message) == (Outcome.REFUSED, True)
    assert list(copy.iterdir()) == []
    assert carry_out(bench, Path(f"{copy}-{{time}}"), tmp_path).outcome is Outcome.CONSISTENT
    assert len(list(bench.home.glob(f"{copy.name}-2*Z"))) == 1


@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="no mkfs.ext4 here")
def test_a_reflink_fails_where_the_file_system_cannot(tmp_path: Path) -> None:
    with mounted("ext4", tmp_path) as home, ServerProcess(home / "data") as server:
        create_database(server)
        bench = Bench(
            server, home, "cp", {"servers": [server.addresses["tcp"]], "provider": {"name": "reflink", "source": str(server.data)}}
        )
        report = carry_out(bench, home / "copy", tmp_path)
        assert report.outcome is Outcome.PROVIDER_FAILED
        assert is_open(server)
