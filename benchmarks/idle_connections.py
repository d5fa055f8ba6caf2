"""Idle connections: the server's memory for each, and what they do to a working client.

    python -m benchmarks.idle_connections [--connections 5000] [--seconds 2]

The bounds: 40 KiB of server memory a TCP connection, and a working client's p99 that less than doubles. WebSockets are measured too.
Each idle connection says Ping once. The working client pings, one call after the other, the server that holds them and an empty one
in turn, so that a busy machine is unfair to both.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import resource
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.server_process import ServerProcess

PING = b'{"jsonrpc":"2.0","id":1,"method":"Ping"}'
KIB_BOUND = 40.0
AT_ONCE = 200  # connections being opened
ROUNDS = 8  # of the two servers in turn


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


async def tcp(server: ServerProcess) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.tcp_port)
    writer.write(PING + b"\n")
    await reader.readline()
    return writer


async def websocket(server: ServerProcess) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET /rpc HTTP/1.1\r\nHost: 127.0.0.1:{server.http_port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    writer.write(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in answer, answer
    writer.write(bytes([0x81, 0x80 | len(PING), 0, 0, 0, 0]) + PING)
    await reader.readexactly(2)
    return writer


async def ping(server: ServerProcess, seconds: float) -> list[float]:
    """Milliseconds of each call."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.tcp_port)
    times: list[float] = []
    until = perf_counter() + seconds
    while (began := perf_counter()) < until:
        writer.write(PING + b"\n")
        await reader.readline()
        times.append((perf_counter() - began) * 1000)
    writer.close()
    return times


def p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


async def hold(server: ServerProcess, empty: ServerProcess, kind: str, connections: int, seconds: float) -> bool:
    connect = tcp if kind == "tcp" else websocket
    pid = server.process.pid
    before = resident_kib(pid)
    gate = asyncio.Semaphore(AT_ONCE)

    async def opened() -> asyncio.StreamWriter:
        async with gate:
            return await connect(server)

    held = await asyncio.gather(*(opened() for _ in range(connections)))
    each = (resident_kib(pid) - before) / connections
    alone: list[float] = []
    meanwhile: list[float] = []
    for _ in range(ROUNDS):
        alone += await ping(empty, seconds / ROUNDS)
        meanwhile += await ping(server, seconds / ROUNDS)
    for writer in held:
        writer.transport.abort()
    ratio = p99(meanwhile) / p99(alone)
    print(f"{kind:4}{connections:8}{each:12.1f}{p99(alone):12.2f}{p99(meanwhile):12.2f}{ratio:8.2f}", flush=True)
    return kind != "tcp" or (each <= KIB_BOUND and ratio < 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=2)
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the server inherits it
    print(f"{'':4}{'held':>8}{'KiB each':>12}{'p99 ms':>12}{'meanwhile':>12}{'ratio':>8}")
    good = True
    for kind in ("tcp", "ws"):
        with (
            tempfile.TemporaryDirectory(prefix="idle") as directory,
            ServerProcess(Path(directory) / "data") as server,
            ServerProcess(Path(directory) / "empty") as empty,
        ):
            good &= uvloop.run(hold(server, empty, kind, given.connections, given.seconds))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
