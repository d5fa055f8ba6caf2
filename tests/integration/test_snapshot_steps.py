"""The steps of a snapshot as one-shot processes with a token, nothing shared between them but the snapId; and the exit code of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner, Result

from jetwire.cli.app import app
from tests.integration.test_freeze import JETWIRE
from tests.support.server_process import ServerProcess


class Steps(NamedTuple):
    url: str
    token: str

    def __call__(self, *words: object, code: int = 0) -> Any:
        """One step in this process, over a connection of its own; what it printed, or its error."""
        done: Result = CliRunner().invoke(app, ["--json", "--url", self.url, "--token", self.token, "snapshot", *map(str, words)])
        assert done.exit_code == code, (words, done.output)
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout if done.stdout else done.stderr)

    @property
    def state(self) -> str:
        return str(self("status")["state"])


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steps]:
    data = tmp_path_factory.mktemp("steps") / "data"
    add = [sys.executable, "-m", "jetwire_server", "token", "add", "hooks", "--role", "snapshotter", "--data", str(data)]
    token = subprocess.run(add, capture_output=True, text=True, check=True).stdout.strip()
    with ServerProcess(data, "--require-token") as server:
        yield Steps(server.addresses["tcp"], token)


@pytest.fixture(autouse=True)
def the_gate_is_open_afterwards(steps: Steps) -> Iterator[None]:
    yield
    status = steps("status")
    if status["state"] != "none":
        steps("abort", status["snapId"])
    assert steps.state == "none"


def test_a_snapshot_in_eight_processes(steps: Steps, tmp_path: Path) -> None:
    environment = {**os.environ, "JETWIRE_URL": steps.url, "JETWIRE_TOKEN": steps.token}

    def step(*words: object) -> Any:
        line = [*JETWIRE, "--json", "snapshot", *map(str, words)]
        return json.loads(subprocess.run(line, env=environment, capture_output=True, check=True, timeout=60).stdout)

    snap = step("prepare", "--instance", "default")["snapId"]
    frozen = step("freeze", snap, "--lease-ms", "60000", "--manifest", tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text()) == [frozen["manifest"]]
    step("renew", snap, 90_000)
    status = step("status")
    assert (status["state"], status["snapId"], status["remainingMs"] > 60_000) == ("frozen", snap, True)
    assert step("thaw", snap)["held"]
    step("truncate", snap)
    step("end", snap)
    assert step("status")["state"] == "none"


def test_who_has_no_token_gets_nowhere(steps: Steps) -> None:
    for token in ("", "wrong"):
        for words in (("prepare",), ("freeze", 1), ("renew", 1, 1), ("thaw", 1), ("abort", 1), ("truncate", 1), ("end", 1), ("status",)):
            Steps(steps.url, token)(*words, code=8)
    Steps("tcp://127.0.0.1:1", "")("prepare", code=7)


def test_what_a_server_refuses_is_4_and_leaves_what_is_there(steps: Steps) -> None:
    assert "nobody" in steps("prepare", "--instance", "nobody", code=4)["error"]["message"]
    assert steps.state == "none"
    snap = steps("prepare")["snapId"]
    assert steps("prepare", code=4)["error"]["name"] == "JET_errOSSnapshotInvalidSequence"
    assert steps("freeze", 4711, code=4)["error"]["name"] == "JET_errOSSnapshotInvalidSnapId"
    assert steps("status")["snapId"] == snap


@pytest.mark.parametrize("lease", [-1, -(2**63), 600_001, 2**63, 10**30])
def test_leases_that_make_no_sense(steps: Steps, lease: int) -> None:
    beyond_any_integer = lease == 10**30
    snap = steps("prepare")["snapId"]
    assert steps("freeze", snap, f"--lease-ms={lease}", code=2 if beyond_any_integer else 4)["error"]["message"]
    assert steps.state == "prepared"
    steps("freeze", snap)
    steps("renew", "--", snap, lease, code=1 if lease < 0 else 2 if beyond_any_integer else 0)
    assert 0 < steps("status")["remainingMs"] <= 600_000
    assert steps("thaw", snap)["held"]


def test_a_manifest_that_cannot_be_written_undoes_the_freeze(steps: Steps, tmp_path: Path) -> None:
    snap = steps("prepare")["snapId"]
    assert "manifest" in steps("freeze", snap, "--manifest", tmp_path / "nowhere" / "m.json", code=4)["error"]["message"]
    assert steps.state == "none"


def test_a_freeze_that_ran_out_is_3_once(steps: Steps) -> None:
    for last in ("thaw", "end"):
        snap = steps("prepare")["snapId"]
        steps("freeze", snap, "--lease-ms", 300)
        time.sleep(0.4)
        assert steps("renew", snap, 1000, code=1)["error"]["name"] == "JET_errOSSnapshotInvalidSequence"
        assert steps(last, snap, code=3)["error"]["name"] == "JET_errOSSnapshotTimeOut"
        assert steps(last, snap, code=1)["error"]["name"] == "JET_errOSSnapshotInvalidSnapId"
        assert steps.state == "none"


UNKNOWN = [("renew", 4711, 5), ("thaw", 4711), ("abort", 4711), ("truncate", 4711), ("end", 4711)]


@pytest.mark.parametrize("words", UNKNOWN, ids=lambda words: words[0])
def test_a_session_that_is_none(steps: Steps, words: tuple[object, ...]) -> None:
    assert steps(*words, code=1)["error"]["name"] == "JET_errOSSnapshotInvalidSnapId"


def test_steps_in_the_wrong_order_change_nothing(steps: Steps) -> None:
    wrong: dict[str, list[tuple[Any, ...]]] = {
        "prepared": [("thaw",), ("renew", 5), ("truncate",)],
        "frozen": [("freeze",), ("truncate",), ("end",)],
        "thawed": [("freeze",), ("thaw",), ("renew", 5)],
    }
    snap = steps("prepare")["snapId"]
    for state, forward in (("prepared", "freeze"), ("frozen", "thaw"), ("thawed", "end")):
        for name, *more in wrong[state]:
            error = steps(name, snap, *more, code=4 if name == "freeze" else 1)["error"]
            assert error["name"] == "JET_errOSSnapshotInvalidSequence", (state, name)
            assert steps.state == state
        steps(forward, snap)


@pytest.mark.parametrize("words", [("prepare", "--kind", "small"), ("freeze",), ("freeze", "one"), ("renew", 1)])
def test_words_that_make_no_sense(steps: Steps, words: tuple[object, ...]) -> None:
    done = CliRunner().invoke(app, ["--url", steps.url, "--token", steps.token, "snapshot", *map(str, words)])
    assert (done.exit_code, bool(done.stderr)) == (2, True)
