"""Logs for tests: small files in memory, and records that name themselves."""

from __future__ import annotations

from jetwire_server.clock import SystemClock
from jetwire_server.files.gate import Gate
from jetwire_server.files.interface import Files
from jetwire_server.files.memory import MemoryFiles
from jetwire_server.redo.log import Log
from jetwire_server.redo.names import LogNames
from jetwire_server.redo.records import Kind

SIGNATURE = b"signature-of-one"
NAMES = LogNames()


def make_log(files: Files, *, gate: Gate | None = None) -> Log:
    clock = SystemClock()
    return Log(files, gate or Gate(clock), clock, file_kb=64)


def started(files: Files, *, gate: Gate | None = None, incarnation: int | None = None) -> Log:
    """Opened or created, and begun: call it on a loop."""
    log = make_log(files, gate=gate)
    if not log.open():
        log.create(SIGNATURE, incarnation=1)
    log.begin(incarnation=incarnation)
    return log


def payloads(files: Files) -> list[bytes]:
    log = make_log(files)
    return [record.payload for record in log.records()] if log.open() else []


async def write_all(files: Files, records: list[bytes], *, durable: bool = True) -> None:
    log = started(files)
    for payload in records:
        await log.write(Kind.COMMIT, payload, durable=durable)
    await log.close()


def snapshot(files: MemoryFiles) -> dict[str, bytes]:
    """All files as programs see them."""
    return {name: read(files, name) for name in files.list()}


def read(files: Files, path: str) -> bytes:
    file = files.open(path, read_only=True)
    try:
        return file.read(0, file.size())
    finally:
        file.close()
