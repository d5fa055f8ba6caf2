"""Snapshots of a real server under load, by plain copy; each is verified and served again in processes of its own.

Each writer puts two records a commit: what commit `n` says in slot `n % SLOTS`, and `n` in a counter. So what a table
holds after `n` commits is a function of `n`. While frozen, once every writer waits for the thaw, what they have had
answered is exactly what must be in the copy: not a commit less, not one more.

Two judges look at each copy: `jetwired verify` (files, sizes, log and marker against the manifest, every page read,
recovery, counts and digests), and the model, with what a server on the copy answers.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.crash.forks import Forked, Nursery
from tests.support.server_process import Lines, ServerProcess

WRITERS = 3
SLOTS = 60
COUNTER = 1_000
DATABASE = "count.edb"
CONTINUE_AFTER_THAW = 4
PATIENCE_SECONDS = 60.0
COLUMNS = [{"name": "id", "coltyp": "Long"}, {"name": "text", "coltyp": "LongText", "cp": 1200}]
INDEXES = [{"name": "primary", "key": ["+id"], "grbit": ["IndexPrimary", "IndexUnique"]}, {"name": "text", "key": ["-text"]}]
Table = dict[int, str]
JUDGES = ("verify", "model")


@dataclass
class Result:
    snapshots: int = 0
    commits: int = 0  # in the copies, as the model counts them
    waited: int = 0  # commits that waited for a thaw
    records: int = 0  # compared
    table: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def text_of(name: str, n: int) -> str:
    return f"{name} {n} " + "x" * Random(f"{name}/{n}").choice((0, 30, 300, 3_000))


def model(name: str, n: int) -> Table:
    """What a table holds after `n` commits."""
    slots = {k % SLOTS: text_of(name, k) for k in range(max(1, n - SLOTS + 1), n + 1)}
    return slots | {COUNTER: str(n)} if n else {}


class Writer:
    """Commits as fast as it can; `answered` is the last commit that was."""

    def __init__(self, server: ServerProcess, name: str) -> None:
        self.name = name
        self.answered = 0
        self.pause_seconds = 0.0
        self._stop = threading.Event()
        self._lines = server.connect()
        self._sesid, dbid = open_database(self._lines)
        create = {"name": name, "columns": COLUMNS, "indexes": INDEXES}
        self._tableid = self._lines.call("CreateTableColumnIndex", sesid=self._sesid, dbid=dbid, tablecreate=create)["tableid"]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            n = self.answered + 1
            records = [{"id": n % SLOTS, "text": text_of(self.name, n)}, {"id": COUNTER, "text": str(n)}]
            self._lines.call("PutRecords", sesid=self._sesid, tableid=self._tableid, records=records, mode="upsert")
            self.answered = n
            time.sleep(self.pause_seconds)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "a commit was never answered"
        self._lines.close()


def open_database(lines: Lines) -> tuple[int, int]:
    sesid = lines.call("BeginSession", instance=lines.call("Hello")["instances"][0]["instance"])["sesid"]
    lines.ask("AttachDatabase", sesid=sesid, database=DATABASE)
    return sesid, lines.call("OpenDatabase", sesid=sesid, database=DATABASE)["dbid"]


def run(seed: int, snapshots: int, *, gate_is_open: bool = False, judges: tuple[str, ...] = JUDGES) -> Result:
    """Control: the copy is made after the thaw, while everything writes; each judge by itself must notice."""
    result = Result()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jetwire-snapshots-")))
        nursery = stack.enter_context(Nursery())
        server = stack.enter_context(ServerProcess(scratch / "data"))
        lines = stack.enter_context(server.connect())
        sesid = lines.call("BeginSession", instance=lines.call("Hello")["instances"][0]["instance"])["sesid"]
        lines.call("CreateDatabase", sesid=sesid, database=DATABASE)
        writers = [Writer(server, f"w{n}") for n in range(WRITERS)]
        dice = Random(seed)
        try:
            for number in range(snapshots):
                _hurry(writers, pause_seconds=0)
                time.sleep(dice.random() * 0.3)
                copy = scratch / f"copy{number}"
                try:
                    expected = _copied(lines, server, writers, copy, result, gate_is_open=gate_is_open)
                    _hurry(writers, pause_seconds=0.05)  # the judges want the processor too
                    _judge(nursery, copy, expected, result, judges)
                except AssertionError as wrong:
                    result.failures.append(f"seed {seed}, snapshot {number}: {str(wrong)[:1_000]}")
                result.snapshots += 1
                shutil.rmtree(copy, ignore_errors=True)
        finally:
            for writer in writers:
                with suppress(AssertionError):
                    writer.stop()
    return result


def _hurry(writers: list[Writer], *, pause_seconds: float) -> None:
    for writer in writers:
        writer.pause_seconds = pause_seconds


# -- a snapshot ---------------------------------------------------------------------------------------------------------
def _copied(
    lines: Lines, server: ServerProcess, writers: list[Writer], copy: Path, result: Result, *, gate_is_open: bool
) -> dict[str, int]:
    """How many commits of each writer the copy must hold; its manifest lies beside it."""
    snap = lines.call("OSSnapshotPrepare", grbit=CONTINUE_AFTER_THAW)["snapId"]
    lines.call("OSSnapshotFreeze", snapId=snap, maxDrainMs=int(PATIENCE_SECONDS * 1_000))
    _until(lambda: lines.call("SnapshotStatus")["waitingCommits"] == len(writers), "not every writer came to wait")
    expected = {writer.name: writer.answered for writer in writers}
    if not gate_is_open:
        _copy(server, copy)
    verdict = lines.call("OSSnapshotThaw", snapId=snap)
    if gate_is_open:
        _until(lambda: all(writer.answered > expected[writer.name] + 1 for writer in writers), "no commit after the thaw")
        _copy(server, copy)
    assert verdict["held"], verdict
    assert verdict["bytesWrittenWhileFrozen"] == 0, verdict
    result.waited += verdict["commitsWaited"]
    copy.with_suffix(".json").write_text(json.dumps([_manifest(lines)]))
    lines.call("OSSnapshotEnd", snapId=snap)
    return expected


def _copy(server: ServerProcess, copy: Path) -> None:
    shutil.copytree(server.data, copy, ignore=shutil.ignore_patterns("jetwire.lock", "*-lock", "scratch"))


def _manifest(lines: Lines) -> Any:
    manifest: Any = None

    def whole() -> bool:
        nonlocal manifest
        manifest = lines.call("SnapshotStatus")["manifest"]
        return all("digest" in database for instance in manifest["instances"] for database in instance["databases"])

    _until(whole, "the manifest has no digests")
    return manifest


def _until(true: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


# -- judging it ---------------------------------------------------------------------------------------------------------
def _judge(nursery: Nursery, copy: Path, expected: dict[str, int], result: Result, judges: tuple[str, ...]) -> None:
    if "verify" in judges:
        code, said = nursery.run("verify", "--json", copy, "--manifest", copy.with_suffix(".json"))
        assert code == 0, f"jetwired verify: {code} {said}"
        result.table["verified: as the manifest says"] += 1
    if "model" in judges:
        with nursery.serve(copy) as restored:
            found = tables(restored, list(expected))
        for name, n in expected.items():
            wanted = model(name, n)
            assert found[name] == wanted, f"{name} holds {found[name].get(COUNTER)} commits, frozen were {n}: {_odd(found[name], wanted)}"
            result.records += len(wanted)
            result.commits += n
        result.table["served: exactly the commits acknowledged"] += 1


def _odd(found: Table, wanted: Table) -> str:
    return f"slots that differ: {sorted(slot for slot in found.keys() | wanted.keys() if found.get(slot) != wanted.get(slot))}"


def tables(server: Forked, names: list[str]) -> dict[str, Table]:
    """What each table holds, read to its end by its primary index, and as many by the other."""
    with server.connect() as lines:
        sesid, dbid = open_database(lines)
        found = {}
        for name in names:
            tableid = lines.call("OpenTable", sesid=sesid, dbid=dbid, tablename=name)["tableid"]
            found[name] = {record["id"]: record["text"] for record in _records(lines, sesid, tableid)}
            lines.call("SetCurrentIndex", sesid=sesid, tableid=tableid, indexname="text")
            lines.ask("Move", sesid=sesid, tableid=tableid, numRows="MoveFirst")
            assert {r["id"]: r["text"] for r in _records(lines, sesid, tableid)} == found[name], f"{name}: its indexes disagree"
    return found


def _records(lines: Lines, sesid: int, tableid: int) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    more = True
    while more:
        answer = lines.call("GetRecords", sesid=sesid, tableid=tableid, limit=1_000)
        more = answer["more"]
        records += answer["records"]
    return records
