"""The transports against a server that says what it is told: order, pieces, ends, and what is nobody's answer."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

import jetwire
import jetwire.sync
from jetwire.errors import ConnectionLost, EngineError, KeyDuplicate, RpcError
from tests.support.fake_server import SILENCE, FakeServer, Peer

LASTING = ["tcp", "ws"]
ALL = ["tcp", "ws", "http"]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


@pytest.mark.parametrize("kind", ALL)
async def test_calls_in_pipeline_get_their_own_answers(server: FakeServer, kind: str) -> None:
    async with jetwire.Connection(getattr(server, kind)) as c:
        answers = await asyncio.gather(*(c.call("M", n=n) for n in range(200)))
    assert [answer["n"] for answer in answers] == list(range(200))


@pytest.mark.parametrize("kind", LASTING)
async def test_answers_may_come_out_of_order(kind: str) -> None:
    held: list[tuple[Any, Peer]] = []

    async def backwards(call: dict[str, Any], peer: Peer) -> Any:
        held.append((call, peer))
        if len(held) == 20:
            for one, to in reversed(held):
                await to.answer(one, one["params"])
        return SILENCE

    with FakeServer(backwards) as server:
        async with jetwire.Connection(getattr(server, kind)) as c:
            answers = await asyncio.gather(*(c.call("M", n=n) for n in range(20)))
    assert [answer["n"] for answer in answers] == list(range(20))


async def drip(call: dict[str, Any], peer: Peer) -> Any:
    """An answer byte by byte, stuck to the front of a notification."""
    text = json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": {"text": "ä\n" * 3}}, ensure_ascii=False).encode()
    async with peer.turn:
        for at in range(len(text)):
            await peer.send(text[at : at + 1])
            if at % 16 == 0:
                await asyncio.sleep(0)
        await peer.send(b'\n{"jsonrpc":"2.0","method":"event","params":{}}\n{"jsonrpc":"2.0","meth')
        await asyncio.sleep(0.01)
        await peer.send(b'od":"event","params":{"last":true}}\n')
    return SILENCE


async def test_lines_come_in_pieces_and_several_at_once() -> None:
    heard: list[Any] = []
    with FakeServer(drip) as server:
        async with jetwire.Connection(server.tcp) as c:
            c.listen(lambda method, params: heard.append(params))
            assert await c.call("M") == {"text": "ä\n" * 3}
            await until(lambda: heard == [{}, {"last": True}])


def test_lines_in_pieces_blocking() -> None:
    heard: list[Any] = []
    with FakeServer(drip) as server, jetwire.sync.Connection(server.tcp) as c:
        c.listen(lambda method, params: heard.append(params))
        for _ in range(3):
            assert c.call("M") == {"text": "ä\n" * 3}
    assert heard[:4] == [{}, {"last": True}] * 2  # read when the next answer is


@pytest.mark.parametrize("kind", ALL)
async def test_big_messages_both_ways(server: FakeServer, kind: str) -> None:
    big = "x" * (7 << 20)
    async with jetwire.Connection(getattr(server, kind)) as c:
        small = asyncio.create_task(c.call("M", n=1))
        assert (await c.call("M", text=big))["text"] == big
        assert await small == {"n": 1}
    with jetwire.sync.Connection(getattr(server, kind)) as blocking:
        assert (await asyncio.to_thread(blocking.call, "M", text=big))["text"] == big


@pytest.mark.parametrize("kind", LASTING)
async def test_a_server_that_closes_ends_every_call_under_way(kind: str) -> None:
    async def leave(call: dict[str, Any], peer: Peer) -> Any:
        if call["method"] == "Leave":
            await peer.close()
        return SILENCE

    with FakeServer(leave) as server:
        async with jetwire.Connection(getattr(server, kind)) as c:
            calls = [asyncio.create_task(c.call("Wait")) for _ in range(5)]
            await until(lambda: len(server.calls) == 5)
            with pytest.raises(ConnectionLost):
                await c.call("Leave")
            for result in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(result, ConnectionLost)
            assert not c.alive
            with pytest.raises(ConnectionLost):
                await c.call("Again")
        blocking = jetwire.sync.Connection(getattr(server, kind)).open()
        with pytest.raises(ConnectionLost):
            await asyncio.to_thread(blocking.call, "Leave")
        assert not blocking.alive
        with pytest.raises(ConnectionLost):
            blocking.call("Again")
        await asyncio.to_thread(blocking.close)


@pytest.mark.parametrize("kind", LASTING)
async def test_tasks_that_connect_anew_at_once_share_one_connection(server: FakeServer, kind: str) -> None:
    async with jetwire.connect(getattr(server, kind)) as lasting:
        old = lasting.connection
        await old.close()
        one, other = await asyncio.gather(lasting.live_connection(), lasting.live_connection())
        assert one is other is lasting.connection is not old
        assert await one.call("M", n=1) == {"n": 1}


async def test_a_reader_that_is_cancelled(server: FakeServer) -> None:
    """As the end of an event loop does it: the connection is lost, and nothing fails at that."""
    connection = await jetwire.Connection(server.ws).open()
    assert await connection.call("M", n=1) == {"n": 1}
    (reader,) = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and "_read" in repr(task.get_coro())]
    reader.cancel()
    await asyncio.wait([reader])
    assert reader.cancelled()
    assert not connection.alive
    await connection.close()


@pytest.mark.parametrize("kind", LASTING)
async def test_closing_ends_ones_own_calls(kind: str) -> None:
    async def silent(call: dict[str, Any], peer: Peer) -> Any:
        return SILENCE

    with FakeServer(silent) as server:
        c = await jetwire.Connection(getattr(server, kind)).open()
        waiting = asyncio.create_task(c.call("Wait"))
        await until(lambda: len(server.calls) == 1)
        await c.close()
        with pytest.raises(ConnectionLost):
            await waiting


async def test_an_error_without_a_call_ends_them_all_and_says_why() -> None:
    async def refuse(call: dict[str, Any], peer: Peer) -> Any:
        refusal = {"code": -32005, "message": "Shutting down", "data": {"description": "maintenance"}}
        await peer.send(json.dumps({"jsonrpc": "2.0", "id": None, "error": refusal}))
        return SILENCE

    with FakeServer(refuse) as server:
        async with jetwire.Connection(server.tcp) as c:
            with pytest.raises(ConnectionLost, match="maintenance"):
                await c.call("M")
        with jetwire.sync.Connection(server.tcp) as blocking, pytest.raises(ConnectionLost, match="maintenance"):
            await asyncio.to_thread(blocking.call, "M")


@pytest.mark.parametrize("kind", LASTING)
async def test_a_message_that_is_too_large_fails_its_own_call_only(kind: str) -> None:
    """The server has not read it, so its refusal names no call; the others go on, and so does the connection."""
    held: list[tuple[dict[str, Any], Peer]] = []

    async def limited(call: dict[str, Any], peer: Peer) -> Any:
        if len(call["params"].get("text", "")) > 100_000:
            error = {"code": -32004, "message": "Too large", "data": {"limit": "message", "max": 100_000}}
            await peer.send(json.dumps({"jsonrpc": "2.0", "id": None, "error": error}))
            return SILENCE
        if call["method"] == "Wait":
            held.append((call, peer))
            return SILENCE
        return {}

    with FakeServer(limited) as server:
        async with jetwire.Connection(getattr(server, kind)) as c:
            waiting = [asyncio.create_task(c.call("Wait", text="x" * size)) for size in (1, 90_000)]
            await until(lambda: len(held) == 2)
            with pytest.raises(RpcError) as caught:
                await c.call("M", text="x" * 200_000)
            assert caught.value.code == -32004
            for call, peer in held:
                server.do(peer.answer(call, {"at": "last"}))
            assert await asyncio.gather(*waiting) == [{"at": "last"}] * 2
            assert c.alive
        with jetwire.sync.Connection(getattr(server, kind)) as blocking:
            with pytest.raises(RpcError):
                await asyncio.to_thread(blocking.call, "M", text="x" * 200_000)
            assert await asyncio.to_thread(blocking.call, "M") == {}


@pytest.mark.parametrize("kind", LASTING)
@pytest.mark.parametrize("rubbish", ["{]", '{"id": "x', "[]x", '{"id":1,"result":' + "[" * 100_000], ids=lambda text: text[:10])
async def test_what_is_no_json_rpc_ends_the_connection(kind: str, rubbish: str) -> None:
    async def talk_rubbish(call: dict[str, Any], peer: Peer) -> Any:
        await peer.send(rubbish)
        return SILENCE

    with FakeServer(talk_rubbish) as server:
        async with jetwire.Connection(getattr(server, kind)) as c:
            with pytest.raises(jetwire.JetwireError, match="JSON-RPC"):
                await c.call("M")
            assert not c.alive
        with jetwire.sync.Connection(getattr(server, kind)) as blocking:
            with pytest.raises(jetwire.JetwireError, match="JSON-RPC"):
                await asyncio.to_thread(blocking.call, "M")
            assert not blocking.alive


async def test_an_answer_that_is_no_text(caplog: pytest.LogCaptureFixture) -> None:
    async def talk_rubbish(call: dict[str, Any], peer: Peer) -> Any:
        await peer.send(b'{"jsonrpc":"2.0","id":1,"result":"\xff"}\n')
        return SILENCE

    with FakeServer(talk_rubbish) as server:
        async with jetwire.Connection(server.tcp) as c:
            with pytest.raises(ConnectionLost, match="JSON-RPC"):
                await c.call("M")
        with jetwire.sync.Connection(server.tcp) as blocking, pytest.raises(jetwire.JetwireError, match="JSON-RPC"):
            await asyncio.to_thread(blocking.call, "M")
    assert caplog.text == "", "nothing fails but the call"


async def test_a_body_without_an_answer() -> None:
    async def send_nothing(call: dict[str, Any], peer: Peer) -> Any:
        await peer.send("[]")
        return SILENCE

    with FakeServer(send_nothing) as server:
        async with jetwire.Connection(server.http) as c:
            with pytest.raises(jetwire.JetwireError, match="0 answers"):
                await c.call("M")
        with jetwire.sync.Connection(server.http) as blocking, pytest.raises(jetwire.JetwireError, match="0 answers"):
            await asyncio.to_thread(blocking.call, "M")


@pytest.mark.parametrize("kind", LASTING)
async def test_the_late_answer_of_a_cancelled_call_is_dropped(kind: str) -> None:
    async def slow_first(call: dict[str, Any], peer: Peer) -> Any:
        if call["params"]["n"] == 0:
            await asyncio.sleep(0.1)
        return call["params"]

    with FakeServer(slow_first) as server:
        async with jetwire.Connection(getattr(server, kind)) as c:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.03):
                    await c.call("M", n=0)
            for n in range(1, 5):
                assert await c.call("M", n=n) == {"n": n}
                await asyncio.sleep(0.03)
            assert c.alive


def test_an_interrupted_blocking_call_closes_its_connection() -> None:
    """What the interrupted call has done is unknown, and its answer must not be taken for the next one's."""

    async def slow(call: dict[str, Any], peer: Peer) -> Any:
        await asyncio.sleep(0.5)
        return call["params"]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for kind in LASTING:
            with FakeServer(slow) as server, jetwire.sync.Connection(getattr(server, kind)) as c:
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(KeyboardInterrupt):
                    c.call("M", n=1)
                assert not c.alive
                with pytest.raises(ConnectionLost):
                    c.call("M", n=2)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_threads_may_share_a_blocking_connection(server: FakeServer) -> None:
    wrong: list[Any] = []

    def work(c: jetwire.sync.Connection, base: int) -> None:
        wrong.extend(n for n in range(base, base + 100) if c.call("M", n=n) != {"n": n})

    with jetwire.sync.Connection(server.tcp) as c:
        threads = [threading.Thread(target=work, args=(c, base)) for base in (0, 1000, 2000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("kind", LASTING)
async def test_a_listener_that_fails_hurts_nobody(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def noisy(call: dict[str, Any], peer: Peer) -> Any:
        await peer.notify("event", {"n": 1})
        return {}

    heard: list[str] = []

    def fail(method: str, params: Any) -> None:
        heard.append(method)
        raise ValueError("mine")

    with FakeServer(noisy) as server:
        async with jetwire.Connection(getattr(server, kind)) as c:
            stop = c.listen(fail)
            assert await c.call("M") == {}
            assert heard == ["event"]
            stop()
            assert await c.call("M") == {}
            assert heard == ["event"]
    assert "a listener failed" in caplog.text


@pytest.mark.parametrize(
    ("status", "kind", "code"), [(401, RpcError, -32001), (403, RpcError, -32002), (413, RpcError, -32004), (502, ConnectionLost, 0)]
)
@pytest.mark.parametrize("transport", ["ws", "http"])
async def test_http_refusals(server: FakeServer, status: int, kind: type[Exception], code: int, transport: str) -> None:
    server.http_status = status
    with pytest.raises(kind) as caught:
        async with jetwire.Connection(getattr(server, transport)) as c:
            await c.call("M")
    assert getattr(caught.value, "code", 0) == code

    def blocking() -> None:
        with jetwire.sync.Connection(getattr(server, transport)) as c:
            c.call("M")

    with pytest.raises(kind):
        await asyncio.to_thread(blocking)


@pytest.mark.parametrize("kind", ALL)
async def test_nobody_listens(kind: str) -> None:
    with FakeServer() as server:
        url = getattr(server, kind)
    with pytest.raises(ConnectionLost):
        async with jetwire.Connection(url) as c:
            await c.call("M")
    with pytest.raises(ConnectionLost), jetwire.sync.Connection(url) as blocking:
        await asyncio.to_thread(blocking.call, "M")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ALL)
def test_a_connection_does_not_outlive_its_event_loop(server: FakeServer, kind: str) -> None:
    """In the next one nothing is sent whose answer could not be heard; a server object connects anew."""
    owner = jetwire.connect(getattr(server, kind))

    async def use(n: int) -> Any:
        return await (await owner.live_connection()).call("M", n=n)

    assert asyncio.run(use(1)) == {"n": 1}
    old = owner.connection
    assert not old.alive
    with pytest.raises(ConnectionLost):
        asyncio.run(old.call("M", n=2))
    assert asyncio.run(use(3)) == {"n": 3}
    assert owner.connection is not old
    asyncio.run(owner.connection.close())
    assert [call["params"]["n"] for call in server.calls] == [1, 3]


async def test_a_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConnectionLost, match=r"no\.sock"):
        await jetwire.Connection(f"unix://{tmp_path}/no.sock").open()
    with pytest.raises(ConnectionLost, match=r"no\.sock"):
        jetwire.sync.Connection(f"unix://{tmp_path}/no.sock").open()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("kind", ALL)
async def test_tls(authority: trustme.CA, kind: str) -> None:
    accepting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(accepting)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with FakeServer(tls=accepting) as server:
        url = getattr(server, kind)
        async with jetwire.Connection(url, tls=trusting) as c:
            assert await c.call("M", n=1) == {"n": 1}
        with jetwire.sync.Connection(url, tls=trusting) as blocking:
            assert await asyncio.to_thread(blocking.call, "M", n=2) == {"n": 2}
        # The control: whoever does not know the authority, or meets another name, does not talk.
        for other in (url, url.replace("localhost", "127.0.0.1")):
            with pytest.raises(ConnectionLost):
                async with jetwire.Connection(other, tls=None if other == url else trusting) as c:
                    await c.call("M")
        assert server.methods == ["M", "M"]


@pytest.mark.parametrize("kind", ALL)
async def test_tokens(server: FakeServer, kind: str) -> None:
    async with jetwire.Connection(getattr(server, kind), token="jw_1") as c:
        await c.call("M")
    with jetwire.sync.Connection(getattr(server, kind), token="jw_1") as blocking:
        await asyncio.to_thread(blocking.call, "M")
    if kind == "tcp":
        assert [(call["method"], call["params"]) for call in server.calls] == [("Hello", {"token": "jw_1"}), ("M", {})] * 2
    else:
        assert server.headers["Authorization"] == "Bearer jw_1"


async def test_a_token_that_is_refused_leaves_nothing_open() -> None:
    async def refuse(call: dict[str, Any], peer: Peer) -> Any:
        await peer.error(call, -32001, "Not authenticated")
        return SILENCE

    with FakeServer(refuse) as server:
        with pytest.raises(RpcError):
            await jetwire.Connection(server.tcp, token="x").open()
        with pytest.raises(RpcError):
            jetwire.sync.Connection(server.tcp, token="x").open()
        await until(lambda: all(w.is_closing() for w in server._writers))


async def test_engine_errors_have_their_class_and_say_what_to_do() -> None:
    async def clash(call: dict[str, Any], peer: Peer) -> Any:
        await peer.error(call, -1605, "JET_errKeyDuplicate", description="byName", category="Data", retryable=call["params"]["again"])
        return SILENCE

    with FakeServer(clash) as server:
        async with jetwire.Connection(server.tcp) as c:
            for again in (True, False):
                with pytest.raises(KeyDuplicate, match="byName") as caught:
                    await c.call("M", again=again)
                assert isinstance(caught.value, EngineError)
                assert caught.value.retryable is again
                assert caught.value.name == "JET_errKeyDuplicate"
                assert caught.value.category == "State"


async def test_a_close_does_not_wait_for_a_server_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetwire._async.transport.CLOSE_SECONDS", 0.1)

    async def block_the_loop(call: dict[str, Any], peer: Peer) -> Any:
        time.sleep(1)  # noqa: ASYNC251 - the point is that it blocks
        return SILENCE

    with FakeServer(block_the_loop) as server:
        c = await jetwire.Connection(server.tcp).open()
        calls = [asyncio.create_task(c.call("M", text="x" * (8 << 20))) for _ in range(4)]
        await asyncio.sleep(0.2)
        before = time.monotonic()
        await c.close()
        assert time.monotonic() - before < 0.6
        assert all(isinstance(r, ConnectionLost) for r in await asyncio.gather(*calls, return_exceptions=True))


async def test_a_close_does_not_wait_for_long_for_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over WebSocket both sides say that they close: one that does not is left."""
    monkeypatch.setattr("jetwire._async.web.CLOSE_SECONDS", 0.1)

    async def block_the_loop(call: dict[str, Any], peer: Peer) -> Any:
        time.sleep(3)  # noqa: ASYNC251 - the point is that it blocks
        return SILENCE

    with FakeServer(block_the_loop) as server:
        c = await jetwire.Connection(server.ws).open()
        call = asyncio.create_task(c.call("M"))
        await until(lambda: server.calls)
        before = time.monotonic()
        await c.close()
        assert time.monotonic() - before < 1.5
        with pytest.raises(ConnectionLost):
            await call


async def until(true: Any, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.005)
