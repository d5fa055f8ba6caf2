"""A server of this machine is found without its address: servers start, end, are killed and compete.

Real processes where their death or the command line is the point, else servers of this process, which start faster.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import jetwire
import jetwire.sync
from jetwire.cli.app import app
from jetwire.local import default_url
from jetwire_protocol.jsonrpc import NOT_AUTHENTICATED
from jetwire_server.config import load
from jetwire_server.server import Server
from tests.support.server_process import ServerProcess


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


def process(home: Path) -> ServerProcess:
    return ServerProcess(home.parents[1] / "data", JETWIRE_RUNTIME=str(home))


class Serving(Server):
    """A server of this process, with what it said."""

    def __init__(self, home: Path, data: str, **settings: Any) -> None:
        self.said: list[str] = []
        given = {"http": "127.0.0.1:0", "tcp": "127.0.0.1:0", "runtime": str(home), **settings}
        super().__init__(load(data=home.parents[1] / data, **given), say=self.said.append)


@asynccontextmanager
async def serve(home: Path, data: str = "data", **settings: Any) -> AsyncIterator[Serving]:
    server = Serving(home, data, **settings)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def jetwire_says(*words: str) -> Any:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


async def role(url: str | None = None, token: str | None = None) -> str:
    """Who one is to a server: "" if nobody."""
    try:
        async with jetwire.Connection(url, token=token) as connection:
            return str((await connection.Hello())["role"])
    except jetwire.RpcError as error:
        if error.code != NOT_AUTHENTICATED:
            raise
        return ""


def there(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir() if path.name != "jetwire.lock")


def test_found_without_an_address(home: Path) -> None:
    with process(home) as server:
        assert server.addresses["unix"] == f"unix://{home}/jetwire.sock"
        modes = [oct(path.stat().st_mode & 0o777) for path in (home, home / "jetwire.sock", home / "server.json")]
        assert modes == ["0o700", "0o600", "0o600"]
        assert jetwire_says("ping")["url"] == server.addresses["unix"]
        assert jetwire_says("call", "Hello")["role"] == "admin"
        seen = jetwire_says("top", "--once", "-i", "0.1")
        assert seen["metrics"]["jetwire_rpc_connections"] >= 1, "the card also says where the metrics are"
        with jetwire.sync.connect() as blocking:
            assert blocking.instances() == {"default": 1}
        assert server.stop() == 0
        assert there(home) == []


def test_what_a_killed_server_left_is_replaced(home: Path) -> None:
    process(home).kill()
    assert there(home) == ["jetwire.sock", "server.json"]
    with process(home) as after:
        assert jetwire_says("ping")["url"] == after.addresses["unix"]
        assert json.loads((home / "server.json").read_text())["pid"] == after.process.pid


async def test_two_servers_do_not_steal_each_others(home: Path) -> None:
    async with serve(home, "first") as first:
        async with serve(home, "second") as second:
            assert "unix" not in second.addresses
            assert f"not to be found without its address: {home}: in use by process {os.getpid()}" in " ".join(second.said)
            assert default_url() == first.addresses["unix"]
        assert there(home) == ["jetwire.sock", "server.json"], "the second took nothing away when it went"
        async with jetwire.connect() as client:
            assert await client.instances() == {"default": 1}
    assert there(home) == []
    async with serve(home, "second") as alone:
        assert default_url() == alone.addresses["unix"]


async def test_the_socket_may_lie_elsewhere(home: Path) -> None:
    elsewhere = home.parents[1] / "s.sock"
    async with serve(home, unix=elsewhere):
        assert default_url() == f"unix://{elsewhere}"
        assert await role() == "admin"
    assert not elsewhere.exists()


async def test_a_token_where_tokens_are_required(home: Path) -> None:
    async with (
        serve(home, require_token=True) as server,
        serve(home.with_name("other"), "other", require_token=True) as other,
    ):
        assert await role(server.addresses["tcp"]) == "admin"
        assert await role(server.addresses["ws"]) == "admin"
        server.reload()
        assert await role(server.addresses["http"]) == "admin"
        assert await role(other.addresses["tcp"]) == "", "control: it is another server's"
        card = json.loads((home / "server.json").read_text())
    async with serve(home, require_token=True) as again:
        assert await role(again.addresses["tcp"], card["token"]) == ""
        assert await role() == "admin"


@pytest.mark.parametrize("runtime", ["{home}/a file/jetwire", "{home}/" + "long" * 30])
async def test_a_server_can_do_without(home: Path, runtime: str) -> None:
    home.mkdir()
    (home / "a file").touch()
    place = runtime.format(home=home)
    async with serve(home, runtime=place) as server:
        assert "unix" not in server.addresses
        assert any(line.startswith(f"not to be found without its address: {place}: ") for line in server.said)
        assert await role(server.addresses["tcp"]) == "admin"
