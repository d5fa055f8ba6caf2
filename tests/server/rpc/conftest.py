"""One server process for all tests of a module that do not stop or kill it; a peer of a server that has no process."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from jetwire_server.clock import SystemClock
from jetwire_server.events import EventLog
from jetwire_server.rpc import handlers as handlers  # registers them
from jetwire_server.rpc.peer import Peer
from jetwire_server.rpc.security import Gatekeeper
from jetwire_server.rpc.service import Service
from tests.support.hosted import Hosted
from tests.support.server_process import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    # A socket's path may have 108 bytes; pytest's are longer.
    with (
        tempfile.TemporaryDirectory(prefix="jw") as short,
        ServerProcess(tmp_path_factory.mktemp("server") / "data", "--unix", str(Path(short) / "s")) as process,
    ):
        yield process


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[tuple[Peer, asyncio.Queue[bytes], int]]:
    hosted = await Hosted(tmp_path).start()
    await hosted.session.create_database("a.edb")
    service = Service("test", SystemClock(), EventLog(), Gatekeeper(), engine=hosted.hosting.engine)
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    one = Peer(service, answers.put_nowait, role="admin", kind="test")
    one.sessions[hosted.session.id] = hosted.session
    yield one, answers, hosted.session.id
    one.sessions.clear()
    await one.close()
    await hosted.stop()
