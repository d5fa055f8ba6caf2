"""Lines of JSON over TCP and Unix sockets: the fast path, one asyncio protocol object a connection."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import struct
from collections import deque
from pathlib import Path
from typing import cast

from jetwire_protocol import jsonrpc
from jetwire_server import limits
from jetwire_server.rpc.answers import Gathered
from jetwire_server.rpc.peer import Peer
from jetwire_server.rpc.service import REFUSED, SLOW_READERS, Service


class LineConnection(asyncio.Protocol):
    """One connection. Nothing is read while too much is waiting to be written."""

    peer: Peer
    _transport: asyncio.Transport

    def __init__(self, service: Service, *, kind: str = "tcp") -> None:
        self._service = service
        self._kind = kind
        self._parts: list[bytes] = []  # of a line that has not ended
        self._parts_bytes = 0
        self._lines: deque[bytes | Gathered] = deque()  # what came while nothing may be written, or others had their turn
        self._going_on = False  # with them in the loop's next turn
        self._skipping = False  # the rest of a line that was too large
        self._paused_since: float | None = None
        self._heard = False  # since the last sweep
        self._last_heard = 0.0

    # -- asyncio's calls ----------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=limits.WRITE_BUFFER_BYTES)
        full = self._service.full
        gatekeeper = self._service.gatekeeper
        if self._kind == "unix":
            identity = gatekeeper.by_uid(_uid_of(transport.get_extra_info("socket")))
        else:
            identity = gatekeeper.by_address(transport.get_extra_info("peername"), transport.get_extra_info("peercert"))
        self.peer = Peer(self._service, self._send, role=identity.role, principal=identity.principal, kind=self._kind)
        self.peer.in_turns = True
        self._last_heard = self._service.clock.boot()
        if full:
            REFUSED.value += 1
            data = {"limit": "connections", "max": self._service.connections_max}
            self._send(jsonrpc.encode_error(jsonrpc.NULL_ID, jsonrpc.TOO_MANY, jsonrpc.MESSAGES[jsonrpc.TOO_MANY], data))
            self._transport.close()
            return
        self._service.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lines.clear()
        self._service.connections.discard(self)
        self._service.later(self.peer.close())

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._paused_since is None and not self._parts and not self._skipping and not self._lines and data.find(b"\n") == len(data) - 1:
            # One whole line, and nothing before it: nearly always so.
            answer = self.peer.receive(data)
            if type(answer) is bytes:
                if len(answer) < limits.WRITE_COPY_BYTES_MAX:
                    self._transport.write(answer + b"\n")
                else:
                    self._transport.writelines((answer, b"\n"))
            elif type(answer) is Gathered:
                self._lines.append(answer)
                self._give_way()
            return
        *whole, rest = data.split(b"\n")
        if whole:
            if self._skipping:
                self._skipping = False
                whole.pop(0)
            elif self._parts:
                whole[0] = b"".join([*self._parts, whole[0]])
            self._parts, self._parts_bytes = [], 0
            self._lines.extend(whole)
        if rest and not self._skipping:
            self._parts.append(rest)
            self._parts_bytes += len(rest)
            if self._parts_bytes > self._service.wire_limits.message_bytes:
                # The line need not end for its answer to be known; what is left of it is thrown away as it comes.
                self._lines.append(b"".join(self._parts))
                self._parts, self._parts_bytes = [], 0
                self._skipping = True
        self._work()

    def pause_writing(self) -> None:
        self._paused_since = self._service.clock.boot()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused_since = None
        self._go_on()

    def _go_on(self) -> None:
        self._going_on = False
        self._work()
        if self._paused_since is None and not self._going_on and not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """The other side has no more to say, but may still want its answers (`printf ... | nc`)."""
        if self._parts:
            self._lines.append(b"".join(self._parts))
            self._parts = []
            self._work()
        if self.peer.busy() or self._lines:
            self._service.later(self._finish())
            return True
        return False

    # -- within -------------------------------------------------------------------------------------------------
    def _work(self) -> None:
        """Answers the lines that are there, until there are no more, the other side does not keep up, or others must have their turn."""
        if self._going_on:
            return
        lines, receive = self._lines, self.peer.receive
        out: list[bytes] = []
        size = 0
        clock = self._service.clock
        until = clock.boot() + limits.TURN_SECONDS
        while lines and self._paused_since is None:
            line = lines.popleft()
            answer = receive(line) if type(line) is bytes else cast(Gathered, line).go_on()
            if type(answer) is Gathered:
                lines.appendleft(answer)
            elif type(answer) is bytes:
                out.append(answer)
                size += len(answer)
                if size > limits.WRITE_CHUNK_BYTES:
                    self._write(out)
                    out, size = [], 0
            if lines and clock.boot() > until:
                self._give_way()
                break
        if out:
            self._write(out)

    def _give_way(self) -> None:
        self._going_on = True
        if not self._transport.is_closing():
            self._transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._go_on)

    def _write(self, answers: list[bytes]) -> None:
        answers.append(b"")
        self._transport.write(b"\n".join(answers))

    def _send(self, message: bytes) -> None:
        """An answer that comes late, or a notification."""
        if self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > limits.UNREAD_BYTES_MAX:
            SLOW_READERS.value += 1
            self._transport.abort()
            return
        self._transport.write(message + b"\n")

    async def _finish(self) -> None:
        while (self.peer.busy() or self._lines) and not self._transport.is_closing():
            await self.peer.idle()
            await asyncio.sleep(0)
            if self._lines:
                await asyncio.sleep(0.01)
        self._transport.close()

    def sweep(self, now: float) -> None:
        """Drops who does not read, and who has been silent too long."""
        service = self._service
        if self._heard:
            self._heard, self._last_heard = False, now
        if self._transport.is_closing() and self._paused_since is None:
            self._paused_since = now  # however little it is that nobody reads: until then its sessions live
        if self._paused_since is not None and now - self._paused_since > service.slow_reader_seconds:
            SLOW_READERS.value += 1
            self._transport.abort()
        elif service.idle_seconds and now - self._last_heard > service.idle_seconds and not self.peer.busy():
            self._transport.close()

    def close(self, reason: str) -> None:
        """Says why, and closes."""
        if not self._transport.is_closing():
            self._send(jsonrpc.encode_error(jsonrpc.NULL_ID, jsonrpc.SHUTTING_DOWN, "Shutting down", {"description": reason}))
            self._transport.close()


def _uid_of(sock: socket.socket) -> int:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


async def listen_tcp(service: Service, host: str, port: int, tls: ssl.SSLContext | None = None) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: LineConnection(service), host, port, ssl=tls, backlog=service.backlog)


async def listen_unix(service: Service, path: Path) -> asyncio.Server:
    """A socket file of which only its owner's and root's connections are let in; a dead one in its place is removed.

    Who calls this holds a lock on the path, or two servers could each remove what the other has just made.
    """
    loop = asyncio.get_running_loop()
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise OSError(errno.EADDRINUSE, "another program listens there; choose another path", str(path))
        path.unlink()
    server = await loop.create_unix_server(lambda: LineConnection(service, kind="unix"), str(path), backlog=service.backlog)
    os.chmod(path, 0o600)
    return server
