"""Damage, enumerated: a store's files are harmed in one place, and everything is read and checked.

Every harm must be named (recovery refuses, a read raises, or `check` reports it) or change nothing that can be read; what
is read is never anything else than what was written. The readers run in forked processes, because damaged page
structure may take LMDB, which is C, down with it: that is counted by itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from jetwire_protocol.errors import JetError
from jetwire_server.files.local import LocalFiles
from jetwire_server.files.memory import MemoryFiles
from jetwire_server.redo.generation import DATA_START, decode_header
from jetwire_server.redo.records import COMMIT_HEADER_BYTES, HEADER_BYTES, Kind, parse
from jetwire_server.store.embedded import check as check_module
from jetwire_server.store.embedded import pages as pages_module
from jetwire_server.store.embedded.layout import CRC_BYTES, NUMBER_BYTES
from jetwire_server.store.embedded.structure import read_metas
from jetwire_server.store.interface import tree_id
from tests.crash.history import History, same
from tests.crash.rig import abandon, dump, fast_directory, faults, settle, started, tree_of

PAGE = 4096
PAGE_HEAD = 24  # of LMDB: number, transaction, flags at 18, bytes of offsets at 20
BLOCKS = (512, 4096)
READ_SECONDS_MAX = 20.0
POLYNOMIAL = 0x1_05EC_76F1  # of CRC32C, the first bit the lowest

HARMLESS = "changed nothing"
REFUSED = "recovery refused"
RAISED = "read raised"
CHECKED = "check reported"
TORN = "taken for a torn end"
DIED = "process died"
DIED_NAMED = "process died, check names it"
HUNG = "process hung"
SILENT = "SILENT"
UNNAMED = "unnamed error"
DETECTED = (REFUSED, RAISED, CHECKED)
BAD = (SILENT, UNNAMED, HUNG, DIED)


@dataclass
class Specimen:
    """A store at rest after a crash: all is synced, the newest part only in the log. `older`: the same files earlier."""

    files: dict[str, bytes]
    older: list[dict[str, bytes]]
    history: History
    log_end: int  # where records end in the current log file
    values: list[tuple[str, int, int]]  # path, offset and length of sealed values in page files


@dataclass
class Result:
    """Outcomes per class of harm."""

    harms: int = 0
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def note(self, kind: str, outcome: str, detail: str) -> None:
        self.harms += 1
        self.outcomes.setdefault(kind, Counter())[outcome] += 1
        if outcome in BAD:
            self.failures.append(f"{kind}: {outcome}: {detail}")


# -- a specimen -----------------------------------------------------------------------------------------------------
async def make_specimen(root: Path, rng: Random) -> Specimen:
    growth, pages_module._GROW_BYTES = pages_module._GROW_BYTES, 1 << 16
    files = LocalFiles(root)
    files.make_directory("")
    history = History()
    older = []
    store = await started(files, root)
    for path in ("a.edb", "b.edb"):
        history.hand_over(history.last.created(path))
        await store.create_database(path)
    for round_number in range(5):
        for _ in range(14):
            writer = await store.begin()
            changes: dict[tuple[str, int, bytes], bytes | None] = {}
            for _ in range(rng.choice((1, 8, 24))):
                place = (rng.choice(("a.edb", "b.edb")), rng.choice((1, 1, 2)), b"key%04d" % rng.randrange(700))
                value = None if rng.random() < 0.1 else rng.randbytes(rng.choice((5, 60, 60, 200, 1_500, 6_000)))
                tree = tree_of(store, place[0], place[1])
                if value is None:
                    writer.delete(tree, place[2])
                else:
                    writer.put(tree, place[2], value)
                changes[place] = value
            history.hand_over(history.last.written(changes))
            await writer.commit()
        if round_number < 4:
            await store.checkpoint()
            older.append(_read_all(root))
    history.acknowledge(len(history.states) - 1)
    await store.journal.close()  # seals the log, as an idle instance does after half a second
    await abandon(store)
    pages_module._GROW_BYTES = growth
    made = _read_all(root)
    return Specimen(made, older, history, len(made["edb.log"].rstrip(b"\0")), _sealed_values(root, made))


def _read_all(root: Path) -> dict[str, bytes]:
    return {path.name: _trimmed(path) for path in sorted(root.iterdir()) if not path.name.endswith("-lock")}


def _trimmed(path: Path) -> bytes:
    """A page file without the room it has for more."""
    data = path.read_bytes()
    if path.suffix != ".edb":
        return data
    newest = read_metas(MemoryFiles({"it": data}).open("it", read_only=True))[0]
    return data[: (newest.last_page + 1) * newest.page_bytes]


def _sealed_values(root: Path, files: dict[str, bytes]) -> list[tuple[str, int, int]]:
    """Where the rows of the pages lie; of values too short to be told from other bytes, none."""
    found = []
    for path in ("a.edb", "b.edb"):
        file = pages_module.PageFile.open(LocalFiles(root), path, read_only=True)
        view = file.view()
        for full, sealed in view.raw(b"", 1 << 20):
            at = files[path].find(full + sealed) + len(full) if len(sealed) < 1_900 else files[path].find(sealed)
            if at >= len(full) and full[0] != 0:
                found.append((path, at, len(sealed)))
        view.close()
        file.close()
    return found


# -- harms ----------------------------------------------------------------------------------------------------------
Harmed = tuple[dict[str, bytes], str]


def _flip(data: bytes, at: int, bits: int) -> bytes:
    harmed = bytearray(data)
    harmed[at] ^= bits
    return bytes(harmed)


def harm_value(specimen: Specimen, rng: Random) -> Harmed:
    path, at, length = rng.choice(specimen.values)
    place = at + rng.randrange(length)
    return {path: _flip(specimen.files[path], place, 1 << rng.randrange(8))}, f"{path}: a bit at {place}, in a value"


def harm_log(specimen: Specimen, rng: Random) -> Harmed:
    path = rng.choice([name for name in specimen.files if name.endswith(".log") and not name.endswith("tmp.log")])
    data = specimen.files[path]
    end = specimen.log_end if path == "edb.log" else len(data)
    place = rng.randrange(end)
    return {path: _flip(data, place, rng.choice((1 << rng.randrange(8), 0xFF)))}, f"{path}: a byte at {place}"


def harm_structure(specimen: Specimen, rng: Random) -> Harmed:
    """Heads, offsets and node heads of LMDB's pages behind the two meta pages."""
    path = rng.choice(("a.edb", "b.edb"))
    data = specimen.files[path]
    used = [n for n in range(2, len(data) // PAGE) if any(data[n * PAGE : n * PAGE + PAGE_HEAD])]
    page = rng.choice(used)
    start = page * PAGE
    flags, lower = (int.from_bytes(data[start + at : start + at + 2], "little") for at in (18, 20))
    where = rng.choice(("head", "offsets", "node"))
    if where == "head" or not flags & 3 or not 0 < lower < PAGE - PAGE_HEAD:  # neither branch nor leaf: no nodes
        where, place = "head", start + rng.randrange(PAGE_HEAD)
    else:
        place = start + PAGE_HEAD + 2 * rng.randrange(lower // 2)
        if where == "node":
            node = PAGE_HEAD + int.from_bytes(data[place : place + 2], "little")
            place = start + min(node + rng.randrange(8), PAGE - 1)
        else:
            place += rng.randrange(2)
    return {path: _flip(data, place, rng.choice((1 << rng.randrange(8), 0xFF)))}, f"{path}: page {page}, {where}, at {place}"


def harm_meta(specimen: Specimen, rng: Random) -> Harmed:
    path = rng.choice(("a.edb", "b.edb"))
    place = rng.randrange(2) * PAGE + rng.randrange(200)
    return {path: _flip(specimen.files[path], place, rng.choice((1 << rng.randrange(8), 0xFF)))}, f"{path}: meta, at {place}"


def harm_checkpoint_file(specimen: Specimen, rng: Random) -> Harmed:
    place = rng.randrange(len(specimen.files["edb.chk"]))
    return {"edb.chk": _flip(specimen.files["edb.chk"], place, 1 << rng.randrange(8))}, f"edb.chk: a bit at {place}"


def harm_cut(specimen: Specimen, rng: Random) -> Harmed:
    path = rng.choice(sorted(specimen.files))
    data = specimen.files[path]
    length = rng.choice((rng.randrange(max(len(data), 1)), len(data) - min(len(data), rng.choice((1, 512, PAGE, 3 * PAGE)))))
    return {path: data[:length]}, f"{path}: cut to {length} of {len(data)}"


def harm_stale(specimen: Specimen, rng: Random) -> Harmed:
    """A block as it was some checkpoints ago: a write that the disk lost, or put elsewhere."""
    while True:
        path = rng.choice(("a.edb", "b.edb", "edb.log", "edb.chk"))
        before, now = rng.choice(specimen.older).get(path, b""), specimen.files[path]
        size = rng.choice(BLOCKS)
        blocks = [at for at in range(0, min(len(before), len(now)), size) if before[at : at + size] != now[at : at + size]]
        if blocks:
            at = rng.choice(blocks)
            return {path: now[:at] + before[at : at + size] + now[at + size :]}, f"{path}: a stale block of {size} at {at}"


def harm_zeroed(specimen: Specimen, rng: Random) -> Harmed:
    while True:
        path = rng.choice(sorted(specimen.files))
        data = specimen.files[path]
        size = rng.choice(BLOCKS)
        at = rng.randrange(max(len(data) // size, 1)) * size
        if any(data[at : at + size]):
            return {path: data[:at] + bytes(len(data[at : at + size])) + data[at + size :]}, f"{path}: zeros of {size} at {at}"


HARMS: dict[str, Callable[[Specimen, Random], Harmed]] = {
    "value": harm_value,
    "log": harm_log,
    "page structure": harm_structure,
    "meta": harm_meta,
    "checkpoint file": harm_checkpoint_file,
    "cut": harm_cut,
    "stale block": harm_stale,
    "zeroed block": harm_zeroed,
}


# -- the controls: damage that no checksum sees; what is read must give it away ---------------------------------------------
def _unseen(data: bytes, at: int, rng: Random) -> bytes:
    """Bits of five bytes changed in the one pattern that leaves every CRC32C as it is: that of its polynomial."""
    changed = int.from_bytes(data[at : at + 5], "little") ^ POLYNOMIAL << rng.randrange(8)
    return data[:at] + changed.to_bytes(5, "little") + data[at + 5 :]


def unseen_in_a_value(specimen: Specimen, rng: Random) -> Harmed:
    path, at, length = rng.choice(specimen.values)
    place = rng.randrange(at + NUMBER_BYTES, at + length - CRC_BYTES - 4)
    return {path: _unseen(specimen.files[path], place, rng)}, f"{path}: bits at {place}, in a value"


def unseen_in_the_log(specimen: Specimen, rng: Random) -> Harmed:
    places = [(path, place) for path in specimen.files if path.endswith(".log") for place in _commits(specimen.files[path], path)]
    path, (start, end) = rng.choice(places)
    place = rng.randrange(start, end - 4)
    return {path: _unseen(specimen.files[path], place, rng)}, f"{path}: bits at {place}, in a commit"


def _commits(data: bytes, path: str) -> list[tuple[int, int]]:
    """Where the changes of commits lie in a log file."""
    if not any(data[:DATA_START]):
        return []  # prepared, and not used yet
    header = decode_header(data[:DATA_START], path)
    found, _, _ = parse(data, header.first_record or len(data), len(data), header.number, header.tag, header.chain)
    starts = [(record.offset + HEADER_BYTES + COMMIT_HEADER_BYTES, record) for record in found if record.kind == Kind.COMMIT]
    return [(start, record.end_offset) for start, record in starts if record.end_offset - start >= 5]


UNSEEN: dict[str, Callable[[Specimen, Random], Harmed]] = {"value, unseen": unseen_in_a_value, "log, unseen": unseen_in_the_log}


# -- reading what was harmed --------------------------------------------------------------------------------------------
class Reader:
    """Recovers a harmed store in a directory of its own and says what came of it."""

    def __init__(self, specimen: Specimen, root: Path) -> None:
        self._specimen = specimen
        self._root = root

    async def read(self, harmed: dict[str, bytes]) -> tuple[str, str]:
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir(parents=True)
        for path, data in {**self._specimen.files, **harmed}.items():
            (self._root / path).write_bytes(data)
        try:
            return await self._read()
        except JetError as error:
            return REFUSED, str(error)
        except Exception as error:
            return UNNAMED, repr(error)

    async def _read(self) -> tuple[str, str]:
        history = self._specimen.history
        files = LocalFiles(self._root)
        store = await started(files, self._root)
        try:
            reported = faults(store)
            wrong, raised = await self._compare(store)
            await settle(store)
            if store.problems():
                return RAISED, store.problems()[0]
            if not wrong and not raised:
                return HARMLESS, ""
            if wrong and reported:
                return CHECKED, reported[0]
            if raised:
                return RAISED, raised
            content = await dump(store, history.trees)
            older = history.candidates(content, 0, history.acknowledged)
            if older:
                return TORN, f"state {older[0]} of {history.acknowledged}"
            return SILENT, wrong
        finally:
            await abandon(store)

    async def _compare(self, store: Any) -> tuple[str, str]:
        """What was read that was never written, or missed without a word; and what raised."""
        wrong, raised = "", ""
        expected = self._specimen.history.last.attached
        if set(store.databases().values()) != set(expected):
            return f"attached: {store.databases()}", ""
        reader = await store.begin(read_only=True)
        try:
            for slot, path in store.databases().items():
                for number in (1, 2):
                    for reverse in (False, True):
                        try:
                            rows = dict(await reader.scan(tree_id(slot, number), reverse=reverse, limit=1_000_000))
                        except JetError as error:
                            raised = str(error)
                            continue
                        if not same({path: {number: expected[path].get(number, {})}}, {path: {number: rows}}):
                            wrong = f"{path}, tree {number}: {len(rows)} rows of {len(expected[path].get(number, {}))}"
        finally:
            await reader.rollback()
        return wrong, raised


def run(seed: int, *, harms: int, kinds: tuple[str, ...] = tuple(HARMS), seconds: float = 1e9) -> Result:
    """Harm number i is of kind i modulo their number, and follows from the seed. The caller has one thread only."""
    result = Result()
    until = time.monotonic() + seconds
    with fast_directory("jetwire-harm-") as directory:
        specimen = asyncio.run(make_specimen(Path(directory, "specimen"), Random(f"{seed}/specimen")))
        number = 0
        while number < harms and time.monotonic() < until:
            number = _batch(specimen, Path(directory, "harmed"), seed, number, min(harms, number + 500), kinds, result)
    return result


def _batch(specimen: Specimen, root: Path, seed: int, first: int, end: int, kinds: tuple[str, ...], result: Result) -> int:
    """Forks a process that reads harms `first` to `end`; answers where to go on when it has ended, or died."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)  # LMDB speaks before it dies
            asyncio.run(_read_all_harms(specimen, root, seed, range(first, end), kinds, writing))
        finally:
            os._exit(0)
    os.close(writing)
    data, alive = b"", True
    while alive:
        if select.select([reading], [], [], READ_SECONDS_MAX)[0]:
            part = os.read(reading, 1 << 16)
            data += part
            alive = bool(part)
        else:
            os.kill(child, signal.SIGKILL)
            alive = False
    os.close(reading)
    _, status = os.waitpid(child, 0)
    lines = data.decode().splitlines()
    for offset, line in enumerate(lines):
        outcome, detail = json.loads(line)
        result.note(kinds[(first + offset) % len(kinds)], outcome, f"seed {seed}, harm {first + offset}: {detail}")
    after = first + len(lines)
    if after < end:
        how = HUNG if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else DIED
        if how == DIED and _check_names(root):
            how = DIED_NAMED
        result.note(kinds[after % len(kinds)], how, f"seed {seed}, harm {after}: {_harm(specimen, seed, after, kinds)[1]}")
        after += 1
    return after


def _check_names(root: Path) -> bool:
    """Whether an offline check, in a process of its own, survives what the store did not, and names it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            files = LocalFiles(root)
            named = [fault for path in ("a.edb", "b.edb") for fault in check_module.check_database(files, path) if fault is not None]
            code = 0 if named else 1
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def _harm(specimen: Specimen, seed: int, number: int, kinds: tuple[str, ...]) -> Harmed:
    return (HARMS | UNSEEN)[kinds[number % len(kinds)]](specimen, Random(f"{seed}/{number}"))


async def _read_all_harms(specimen: Specimen, root: Path, seed: int, numbers: range, kinds: tuple[str, ...], writing: int) -> None:
    reader = Reader(specimen, root)
    for number in numbers:
        harmed, how = _harm(specimen, seed, number, kinds)
        outcome, detail = await reader.read(harmed)
        os.write(writing, json.dumps([outcome, f"{how}: {detail}"]).encode() + b"\n")
