"""The recipes of docs/, run: with stand-ins for the storage tools that fail unless the server is frozen when they are called."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_freeze import create_database
from tests.support.server_process import ServerProcess

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"

STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> "$STAND_IN_LOG"
case "$(basename "$0") $1" in "kubectl apply") cat >> "$STAND_IN_LOG";; esac
jetwire --json snapshot status | grep -q '"state": "frozen"' || { echo "not frozen" >&2; exit 9; }
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[tuple[ServerProcess, dict[str, str], Path]]:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("lvcreate", "zfs", "btrfs", "restic", "kubectl"):
        tool = tools / name
        tool.write_text(STAND_IN)
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    command = tools / "jetwire"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jetwire "$@"\n')
    command.chmod(0o755)
    with ServerProcess(tmp_path / "data") as server:
        create_database(server)
        log = tmp_path / "called"
        environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "JETWIRE_URL": server.addresses["tcp"],
            "STAND_IN_LOG": str(log),
        }
        yield server, environment, log


def state(server: ServerProcess) -> str:
    with server.connect() as lines:
        return str(lines.call("SnapshotStatus")["state"])


@pytest.mark.parametrize(
    ("recipe", "arguments", "called"),
    [
        ("lvm.sh", ["vg0/data", "5G"], "lvcreate --snapshot --size 5G --name jetwire-"),
        ("zfs.sh", ["tank/jetwire"], "zfs snapshot tank/jetwire@jetwire-"),
        ("btrfs.sh", ["/srv/jetwire", "/srv/snapshots"], "btrfs subvolume snapshot -r /srv/jetwire /srv/snapshots/jetwire-"),
        ("restic.sh", ["/srv/jetwire"], "restic backup --tag jetwire"),
        ("csi-snapshot.sh", ["prod", "data", "fast"], "persistentVolumeClaimName: data"),
    ],
)
def test_a_provider_recipe_runs_while_frozen(
    bench: tuple[ServerProcess, dict[str, str], Path], recipe: str, arguments: list[str], called: str
) -> None:
    server, environment, log = bench
    command = ["jetwire", "snapshot", "run", "--exec", str(RECIPES / recipe), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert called in log.read_text()
    assert state(server) == "none"


def test_a_stand_in_called_outside_a_freeze_fails(bench: tuple[ServerProcess, dict[str, str], Path]) -> None:
    """The control: without it the tests above could pass with no freeze at all."""
    _, environment, _ = bench
    assert subprocess.run([RECIPES / "zfs.sh", "tank"], env=environment, capture_output=True, check=False).returncode == 9


def test_the_hooks_freeze_and_thaw_as_separate_processes(bench: tuple[ServerProcess, dict[str, str], Path]) -> None:
    server, environment, _ = bench
    hook = str(RECIPES / "jetwire-hook")
    assert subprocess.run([hook, "freeze", "30000"], env=environment, capture_output=True, check=False).returncode == 0
    assert state(server) == "frozen"
    assert subprocess.run([hook, "thaw"], env=environment, capture_output=True, check=False).returncode == 0
    assert state(server) == "none"
    assert subprocess.run([hook, "thaw"], env=environment, capture_output=True, check=False).returncode == 3


def test_a_hook_that_is_refused_leaves_what_is_there(bench: tuple[ServerProcess, dict[str, str], Path]) -> None:
    server, environment, _ = bench
    hook = str(RECIPES / "jetwire-hook")
    assert subprocess.run([hook, "freeze", "-5"], env=environment, capture_output=True, check=False).returncode == 4
    assert state(server) == "none"
    with server.connect() as lines:
        lines.call("OSSnapshotPrepare")
        done = subprocess.run([hook, "freeze"], env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (4, False)
    assert state(server) == "prepared"


def test_a_hook_that_thaws_too_late_fails(bench: tuple[ServerProcess, dict[str, str], Path]) -> None:
    _, environment, _ = bench
    hook = str(RECIPES / "jetwire-hook")
    assert subprocess.run([hook, "freeze", "800"], env=environment, capture_output=True, check=False).returncode == 0
    time.sleep(0.9)
    assert subprocess.run([hook, "thaw"], env=environment, capture_output=True, check=False).returncode == 3
