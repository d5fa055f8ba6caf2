"""The protocol's own cost: Ping through the whole server beside a bare server that parses and answers the same JSON.

    python benchmarks/wire_bench.py [--seconds 1] [--rounds 3]

Rounds are interleaved, and the ratio of the medians is what the project promises (the bound is printed beside it). "us" is each
server's CPU a call over all rounds: on a busy machine the better guide.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import aiohttp
import msgspec
import uvloop
from aiohttp import WSMsgType, web

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.ycsb_peers import cpu_seconds
from tests.support.server_process import ServerProcess

SETTLE_SECONDS = 0.2  # before a measurement begins
PING = b'{"jsonrpc":"2.0","id":1,"method":"Ping"}'
# transport, connections, calls in flight on each, the least ratio
CASES = [("tcp", 1, 1, 0.6), ("tcp", 1, 16, 0.6), ("tcp", 32, 1, 0.6), ("tcp", 32, 16, 0.35), ("ws", 1, 1, 0.6), ("ws", 32, 1, 0.6)]


# -- the bare servers -------------------------------------------------------------------------------------------------
class BareLines(asyncio.Protocol):
    """What any server of this make must do for a call: find the lines, parse, answer."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        out = [msgspec.json.encode({"jsonrpc": "2.0", "id": msgspec.json.decode(line)["id"], "result": {}}) for line in lines]
        self.transport.write(b"\n".join([*out, b""]))


async def bare_websocket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    async for message in socket:
        call = msgspec.json.decode(message.data)
        await socket.send_frame(msgspec.json.encode({"jsonrpc": "2.0", "id": call["id"], "result": {}}), WSMsgType.TEXT)
    return socket


def run_bare(ports: Any) -> None:
    async def main() -> None:
        lines = await asyncio.get_running_loop().create_server(BareLines, "127.0.0.1", 0)
        app = web.Application()
        app.router.add_get("/rpc", bare_websocket)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.put((lines.sockets[0].getsockname()[1], runner.addresses[0][1]))
        await asyncio.Event().wait()

    uvloop.run(main())


# -- the client -------------------------------------------------------------------------------------------------------
class Caller(asyncio.Protocol):
    """Keeps `depth` calls in flight."""

    answers = 0

    def __init__(self, depth: int) -> None:
        self.depth = depth

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write((PING + b"\n") * self.depth)

    def data_received(self, data: bytes) -> None:
        count = data.count(b"\n")
        Caller.answers += count
        self.transport.write((PING + b"\n") * count)


async def over_tcp(port: int, connections: int, depth: int, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(lambda: Caller(depth), "127.0.0.1", port) for _ in range(connections)]
    await asyncio.sleep(SETTLE_SECONDS)
    before, began = Caller.answers, perf_counter()
    await asyncio.sleep(seconds)
    rate = (Caller.answers - before) / (perf_counter() - began)
    for transport, _ in opened:
        transport.abort()
    return rate


async def over_websocket(port: int, connections: int, depth: int, seconds: float) -> float:
    answers = 0

    async def caller(session: aiohttp.ClientSession) -> None:
        nonlocal answers
        async with session.ws_connect(f"ws://127.0.0.1:{port}/rpc", compress=0) as socket:
            while True:
                await socket.send_frame(PING, WSMsgType.TEXT)
                await socket.receive()
                answers += 1

    async with aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(caller(session)) for _ in range(connections)]
        await asyncio.sleep(SETTLE_SECONDS)
        before, began = answers, perf_counter()
        await asyncio.sleep(seconds)
        rate = (answers - before) / (perf_counter() - began)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return rate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    ports: Any = multiprocessing.Queue()
    bare = multiprocessing.Process(target=run_bare, args=(ports,), daemon=True)
    bare.start()
    bare_ports = dict(zip(("tcp", "ws"), ports.get(), strict=True))
    run: dict[str, Callable[..., Any]] = {"tcp": over_tcp, "ws": over_websocket}
    missed = 0
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder) / "data") as server:
        pids = {"bare": bare.pid or 0, "own": server.process.pid}
        own_ports = {"tcp": server.tcp_port, "ws": server.http_port}
        print(f"{'':22}{'bare/s':>12}{'jetwire/s':>12}{'ratio':>8}{'bound':>8}{'us':>16}")
        for kind, connections, depth, bound in CASES:
            rates: dict[str, list[float]] = {"bare": [], "own": []}
            spent = {"bare": 0.0, "own": 0.0}
            for _ in range(given.rounds):
                for name, found in (("bare", bare_ports), ("own", own_ports)):
                    used = cpu_seconds(pids[name])
                    rates[name].append(uvloop.run(run[kind](found[kind], connections, depth, given.seconds)))
                    spent[name] += cpu_seconds(pids[name]) - used
            # What was called before and after the measured time is in the CPU too: about 0.2 s a round at the same rate.
            calls = {name: sum(found) * (given.seconds + SETTLE_SECONDS) for name, found in rates.items()}
            cpu = " / ".join(f"{spent[name] / calls[name] * 1e6:.1f}" for name in calls)
            one, other = median(rates["bare"]), median(rates["own"])
            missed += other / one < bound
            print(f"{kind:4}{connections:3} conn {depth:3} flying{one:12,.0f}{other:12,.0f}{other / one:8.2f}{bound:8.2f}{cpu:>16}")
    bare.terminate()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
