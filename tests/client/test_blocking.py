"""What a blocking connection does when it is closed, forked, or asked again in the middle of a call."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import jetwire
import jetwire.sync
from jetwire.errors import ConnectionLost
from tests.support.fake_server import SILENCE, FakeServer, Peer

LASTING = ["tcp", "ws"]
ALL = ["tcp", "ws", "http"]


async def silent(call: dict[str, Any], peer: Peer) -> Any:
    return SILENCE if call["method"] == "Wait" else call["params"]


def ended(work: Callable[[], Any], seconds: float = 10.0) -> list[Any]:
    """What a function in a thread came to; fails if it does not end."""
    came_to: list[Any] = []

    def note() -> None:
        try:
            came_to.append(work())
        except Exception as error:
            came_to.append(error)

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it waits for ever"
    return came_to


@pytest.mark.parametrize("kind", LASTING)
def test_closing_ends_a_call_of_another_thread(kind: str) -> None:
    with FakeServer(silent) as server:
        c = jetwire.sync.Connection(getattr(server, kind)).open()
        threading.Timer(0.1, c.close).start()
        (error,) = ended(lambda: c.call("Wait"))
        assert isinstance(error, ConnectionLost)


@pytest.mark.parametrize("kind", ALL)
def test_threads_that_call_while_another_closes(kind: str) -> None:
    """At whatever moment: each of them hears that the connection is lost, and nothing else."""
    with FakeServer() as server:

        def call_until_closed() -> None:
            with pytest.raises(ConnectionLost):  # noqa: PT012 - some call of many
                while True:
                    c.call("M")

        for pause in range(15):
            c = jetwire.sync.Connection(getattr(server, kind)).open()
            with ThreadPoolExecutor(3) as threads:
                callers = [threads.submit(call_until_closed) for _ in range(3)]
                time.sleep(pause / 1000)
                c.close()
                for caller in callers:
                    caller.result(10)


@pytest.mark.parametrize("kind", ALL)
def test_threads_get_their_own_answers(kind: str) -> None:
    with FakeServer() as server, jetwire.sync.Connection(getattr(server, kind)) as c:

        def work(base: int) -> list[int]:
            return [n for n in range(base, base + 50) if c.call("M", n=n) != {"n": n}]

        threads = [threading.Thread(target=lambda base=base: wrong.append(ended(lambda: work(base)))) for base in (0, 1000, 2000)]
        wrong: list[Any] = []
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == [[[]]] * 3


@pytest.mark.parametrize("kind", LASTING)
def test_a_listener_that_calls_is_refused(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """It would wait for itself."""

    async def notify(call: dict[str, Any], peer: Peer) -> Any:
        await peer.notify("event", {})
        return {}

    with FakeServer(notify) as server:
        c = jetwire.sync.Connection(getattr(server, kind)).open()
        c.listen(lambda method, params: c.call("Within"))
        assert ended(lambda: c.call("M")) == [{}]
        c.close()
    assert "need one of their own" in caplog.text


@pytest.mark.parametrize("kind", ALL)
def test_a_fork_leaves_its_parents_connection_alone(kind: str) -> None:
    with FakeServer() as server, jetwire.sync.connect(getattr(server, kind)) as owner:
        c = owner.connection
        assert c.call("M", n=1) == {"n": 1}
        child = os.fork()
        if child == 0:
            status = 1
            try:
                assert not c.alive
                try:
                    c.call("M", n=2)
                except ConnectionLost:
                    status = 0
                c.close()
            finally:
                os._exit(status)
        deadline = time.monotonic() + 10
        while not (left := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(child, 9)
            time.sleep(0.01)
        assert os.waitstatus_to_exitcode(left[1]) == 0
        assert c.alive
        assert ended(lambda: c.call("M", n=3)) == [{"n": 3}]
        assert [call["params"]["n"] for call in server.calls] == [1, 3]


def test_over_http_an_idle_connection_that_the_server_ended_is_no_lost_call() -> None:
    with FakeServer() as server, jetwire.sync.Connection(server.http) as c:
        assert c.call("M", n=1) == {"n": 1}
        server.drop_http()
        time.sleep(0.1)
        assert c.call("M", n=2) == {"n": 2}


@pytest.mark.parametrize("kind", ["tcps", "ws", "https"])
def test_a_server_that_takes_connections_and_is_mute(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("_sync.transport", "_async.web"):
        monkeypatch.setattr(f"jetwire.{module}.CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        c = jetwire.sync.Connection(f"{kind}://127.0.0.1:{mute.getsockname()[1]}")
        (error,) = ended(lambda: c.open().call("M"))
        assert isinstance(error, ConnectionLost)


@pytest.mark.parametrize("kind", ["tcps", "ws"])
async def test_a_server_that_is_mute_to_a_loop(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("transport", "web"):
        monkeypatch.setattr(f"jetwire._async.{module}.CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        before = time.monotonic()
        with pytest.raises(ConnectionLost):
            await jetwire.Connection(f"{kind}://127.0.0.1:{mute.getsockname()[1]}").open()
        assert time.monotonic() - before < 5


@pytest.mark.parametrize("kind", LASTING)
async def test_a_machine_that_vanishes_is_noticed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system asks after a silent peer: whoever waits for an answer need not do so for ever."""
    asked: list[Any] = []
    real = socket.socket.setsockopt

    def note(self: socket.socket, level: int, option: int, value: Any) -> None:
        if (level, option) == (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE):
            asked.append(value)
        real(self, level, option, value)

    monkeypatch.setattr(socket.socket, "setsockopt", note)
    with FakeServer() as server:
        async with jetwire.Connection(getattr(server, kind)):
            pass
        assert asked == [60]
        await asyncio.to_thread(jetwire.sync.Connection(getattr(server, kind)).open().close)
        assert asked == [60, 60]
        with jetwire.sync.Connection(server.http) as c:
            await asyncio.to_thread(c.call, "M")
        assert asked == [60, 60, 60]
