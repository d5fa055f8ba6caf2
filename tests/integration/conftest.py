"""A real server for the tests of clients: one for all of them, each test with a database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Runs for the whole session: tests that stop, freeze or starve a server start their own."""
    base = tmp_path_factory.mktemp("server")
    with ServerProcess(base / "data", "--unix", str(base / "s.sock")) as server:
        yield server


@pytest.fixture
def database(shared_server: ServerProcess, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a database that no other test uses; detached at the end, since an instance has room for six."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**9}.edb"
    yield name
    with shared_server.connect() as lines:
        instance = lines.call("Hello")["instances"][0]["instance"]
        sesid = lines.call("BeginSession", instance=instance)["sesid"]
        lines.ask("DetachDatabase", sesid=sesid, database=name)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data") as server:
        yield server
