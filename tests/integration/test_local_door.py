"""A server of this machine is found without its address: real processes, which start, end, are killed and compete."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import jetwire
import jetwire.sync
from tests.support.server_process import ServerProcess

JETWIRE = [sys.executable, "-m", "jetwire"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment in which nothing is configured; the directory in which servers are looked for."""
    for name in list(os.environ):
        if name.startswith(("JETWIRE", "XDG")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "jetwire"


def serve(home: Path, *flags: str, data: str = "data") -> ServerProcess:
    return ServerProcess(home.parents[1] / data, *flags, JETWIRE_RUNTIME=str(home))


def jetwire_says(*words: str, code: int = 0) -> Any:
    done = subprocess.run([*JETWIRE, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


def there(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir() if path.name != "jetwire.lock")


async def test_found_without_an_address(home: Path):
    with serve(home) as server:
        assert server.addresses["unix"] == f"unix://{home}/jetwire.sock"
        assert [oct(path.stat().st_mode & 0o777) for path in (home, home / "jetwire.sock", home / "server.json")] == [
            "0o700",
            "0o600",
            "0o600",
        ]
        assert jetwire_says("ping")["url"] == server.addresses["unix"]
        assert jetwire_says("call", "Hello")["role"] == "admin"
        seen = jetwire_says("top", "--once", "-i", "0.1")
        assert seen["metrics"]["jetwire_rpc_connections"] >= 1, "the card also says where the metrics are"
        async with jetwire.connect() as client, client.session() as session:
            assert session.id
        with jetwire.sync.connect() as blocking:
            assert blocking.instances() == {"default": 1}
        assert server.stop() == 0
        assert there(home) == []


def test_what_a_killed_server_left_is_replaced(home: Path):
    server = serve(home)
    server.kill()
    assert there(home) == ["jetwire.sock", "server.json"]
    with serve(home) as after:
        assert jetwire_says("ping")["url"] == after.addresses["unix"]
        assert json.loads((home / "server.json").read_text())["pid"] == after.process.pid


def test_two_servers_do_not_steal_each_others(home: Path):
    with serve(home, data="first") as first, serve(home, data="second") as second:
        assert "unix" not in second.addresses
        assert f"not to be found without its address: {home}: in use by process {first.process.pid}" in " ".join(second.said)
        assert json.loads((home / "server.json").read_text())["pid"] == first.process.pid
        assert second.stop() == 0
        assert jetwire_says("ping")["url"] == first.addresses["unix"]
        assert first.stop() == 0
    with serve(home, data="second") as alone:
        assert jetwire_says("ping")["url"] == alone.addresses["unix"]


def test_the_socket_may_lie_elsewhere(home: Path):
    elsewhere = home.parents[1] / "s.sock"
    with serve(home, "--unix", str(elsewhere)) as server:
        assert jetwire_says("ping")["url"] == f"unix://{elsewhere}"
        assert server.stop() == 0
    assert not elsewhere.exists()


def test_a_token_where_tokens_are_required(home: Path):
    with serve(home, "--require-token") as server, serve(home.with_name("other"), "--require-token", data="other") as other:
        jetwire_says("--url", server.addresses["tcp"], "ping")
        jetwire_says("--url", server.addresses["ws"], "ping")
        server.process.send_signal(signal.SIGHUP)
        jetwire_says("--url", server.addresses["http"], "ping")
        assert "Not authenticated" in jetwire_says("--url", other.addresses["tcp"], "ping", code=8), "control: it is another server's"
        card = json.loads((home / "server.json").read_text())
        assert server.stop() == 0
    with serve(home, "--require-token") as again:
        jetwire_says("--token", card["token"], "--url", again.addresses["tcp"], "ping", code=8)
        jetwire_says("ping")


@pytest.mark.parametrize("runtime", ["{home}/a file/jetwire", "{home}/" + "long" * 30])
def test_a_server_can_do_without(home: Path, runtime: str):
    home.mkdir()
    (home / "a file").touch()
    place = runtime.format(home=home)
    with ServerProcess(home.parents[1] / "data", JETWIRE_RUNTIME=place) as server:
        assert "unix" not in server.addresses
        assert any(line.startswith(f"not to be found without its address: {place}: ") for line in server.said)
        jetwire_says("--url", server.addresses["tcp"], "ping")
        assert server.stop() == 0
