"""The two servers that `ycsb.py` compares, each with its own client: Jetwire over TCP, PostgreSQL with asyncpg over TCP.

Both run in a temporary directory with durable commits, and both answer the same five calls (see `Client`).
"""

from __future__ import annotations

import asyncio
import glob
import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).parents[1]))
from jetwire import Connection, Server
from jetwire.errors import EngineError
from jetwire_protocol.errors import Err
from tests.support.server_process import ServerProcess

FIELDS = [f"f{n}" for n in range(10)]
FIELD_BYTES = 100
CONFLICT_PAUSE_SECONDS = 0.001  # about as long as a commit takes
TICKS = os.sysconf("SC_CLK_TCK")
Record = dict[str, str]


class Client(Protocol):
    """One connection."""

    async def read(self, key: str) -> Any: ...
    async def update(self, key: str, field: str, value: str) -> None: ...
    async def insert(self, record: Record) -> None: ...
    async def scan(self, key: str, count: int) -> Any: ...
    async def load(self, records: Sequence[Record]) -> None: ...
    async def close(self) -> None: ...


def cpu_seconds(pid: int, *, reaped: bool = False) -> float:
    """What a process has used, with the children it has outlived if asked."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if reaped else 13])) / TICKS


def pin(pid: int, cores: set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


# -- Jetwire ----------------------------------------------------------------------------------------------------------
class Jetwire:
    """A server process of this checkout."""

    name = "Jetwire"

    def __init__(self, directory: Path) -> None:
        self.server = ServerProcess(directory / "jetwire")
        self._made = False

    def cpu(self) -> float:
        return cpu_seconds(self.server.process.pid)

    def processes(self) -> list[int]:
        return [self.server.process.pid]

    def stop(self) -> None:
        self.server.stop()

    async def connect(self) -> JetwireClient:
        server = Server(f"tcp://127.0.0.1:{self.server.tcp_port}")
        await server.connection.open()
        session = await server.begin_session()
        database = await session.open("bench.edb", create=True)
        if self._made:
            table = await database.table("usertable")
        else:
            self._made = True
            text = {"coltyp": "Text", "cp": 1252, "max": 255}
            table = await database.create_table("usertable", dict.fromkeys(("k", *FIELDS), text), primary="k")
        return JetwireClient(server.connection, session.id, table.id)


class JetwireClient:
    conflicts = 0  # of all connections: the first writer wins, the second is told at once and tries again

    def __init__(self, connection: Connection, sesid: int, tableid: int) -> None:
        self._connection, self._sesid, self._tableid = connection, sesid, tableid

    async def read(self, key: str) -> Any:
        try:
            return (await self._connection.GetRecord(self._sesid, self._tableid, [key]))["record"]
        except EngineError as error:
            if error.code == Err.RecordNotFound:
                return None
            raise

    async def update(self, key: str, field: str, value: str) -> None:
        record = {"k": key, field: value}
        for attempt in itertools.count(1):
            try:
                await self._connection.PutRecords(self._sesid, self._tableid, [record], mode="replace")
                return
            except EngineError as error:
                if error.code != Err.WriteConflict:
                    raise
                JetwireClient.conflicts += 1
                await asyncio.sleep(CONFLICT_PAUSE_SECONDS * attempt * random.random())

    async def insert(self, record: Record) -> None:
        await self._connection.PutRecords(self._sesid, self._tableid, [record])

    async def scan(self, key: str, count: int) -> Any:
        cursor = {"sesid": self._sesid, "tableid": self._tableid}
        calls = [
            {"method": "MakeKey", "params": {**cursor, "data": key, "grbit": ["NewKey"]}},
            {"method": "Seek", "params": {**cursor, "grbit": ["SeekGE"]}},
            {"method": "GetRecords", "params": {**cursor, "limit": count}},
        ]
        return (await self._connection.Batch(calls))["results"][-1]["records"]

    async def load(self, records: Sequence[Record]) -> None:
        await self._connection.PutRecords(self._sesid, self._tableid, records)

    async def close(self) -> None:
        await self._connection.close()


# -- PostgreSQL -------------------------------------------------------------------------------------------------------
def why_no_postgresql() -> str | None:
    if not _binaries():
        return "PostgreSQL is not installed (apt-get install postgresql)"
    try:
        import asyncpg  # noqa: F401
    except ImportError:
        return "asyncpg is not installed (pip install asyncpg)"
    return None


def _binaries() -> Path | None:
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    return Path(found[-1]).parent if found else None


class PostgreSQL:
    """A cluster of its own, with Debian's binaries and defaults but for the address; commits are durable."""

    name = "PostgreSQL"

    def __init__(self, directory: Path) -> None:
        binaries = _binaries()
        assert binaries is not None
        self._as: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        home = directory / "postgresql"
        home.mkdir()
        if self._as:
            os.chmod(directory, 0o755)
            shutil.chown(home, "postgres", "postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        data = home / "data"
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": home, **self._as}
        subprocess.run([binaries / "initdb", "-D", data, "-A", "trust", "-U", "bench", "-E", "UTF8", "--locale=C"], check=True, **quiet)
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": home,
            "synchronous_commit": "on",
            "fsync": "on",
            "shared_buffers": "256MB",
            "max_connections": 64,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen([binaries / "postgres", "-D", data, *options], **quiet)
        for _ in range(200):
            if subprocess.run([binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], **quiet).returncode == 0:
                break
            time.sleep(0.05)
        self._made = False

    def processes(self) -> list[int]:
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def cpu(self) -> float:
        postmaster, *children = self.processes()
        return cpu_seconds(postmaster, reaped=True) + sum(map(cpu_seconds, children))

    def stop(self) -> None:
        self._process.send_signal(2)  # SIGINT: fast shutdown
        self._process.wait(30)

    async def connect(self) -> PostgreSQLClient:
        import asyncpg

        connection = await asyncpg.connect(host="127.0.0.1", port=self.port, user="bench", database="postgres")
        if not self._made:
            self._made = True
            columns = ", ".join(f"{name} varchar(255)" for name in FIELDS)
            await connection.execute(f"CREATE TABLE usertable (k varchar(255) PRIMARY KEY, {columns})")
        client = PostgreSQLClient(connection)
        await client.prepare()
        return client


class PostgreSQLClient:
    """Every statement is prepared once."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def prepare(self) -> None:
        prepare = self._connection.prepare
        self._read = (await prepare("SELECT * FROM usertable WHERE k = $1")).fetchrow
        self._scan = (await prepare("SELECT * FROM usertable WHERE k >= $1 ORDER BY k LIMIT $2")).fetch
        self._updates = {name: (await prepare(f"UPDATE usertable SET {name} = $2 WHERE k = $1")).fetch for name in FIELDS}
        places = ", ".join(f"${n}" for n in range(1, 2 + len(FIELDS)))
        self._insert = (await prepare(f"INSERT INTO usertable VALUES ({places})")).fetch

    async def read(self, key: str) -> Any:
        return await self._read(key)

    async def update(self, key: str, field: str, value: str) -> None:
        await self._updates[field](key, value)

    async def insert(self, record: Record) -> None:
        await self._insert(*record.values())

    async def scan(self, key: str, count: int) -> Any:
        return await self._scan(key, count)

    async def load(self, records: Sequence[Record]) -> None:
        await self._connection.copy_records_to_table("usertable", records=[tuple(record.values()) for record in records])

    async def close(self) -> None:
        await self._connection.close()
