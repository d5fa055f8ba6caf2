"""Torn sets: the files of one instance, put together from two frozen copies of different instants.

A random life is frozen and copied twice; then every file (page files, log generations, checkpoint) is taken from the one
or the other copy, in every combination or a sample of them. What holds the parts of an instance together is its log: so
a mix is either refused, with the name of a file that does not belong, or it is a valid set (older pages beside a log
that goes on from there, say), and then it holds to the last byte what was frozen where its log ends.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from unittest import mock

from jetwire_protocol.errors import Err, JetError
from jetwire_server.files.local import LocalFiles
from jetwire_server.store.embedded import pages as pages_module
from jetwire_server.store.embedded import recovery as recovery_module
from jetwire_server.store.embedded.store import EmbeddedStore
from tests.crash.history import History, State, difference, same
from tests.crash.rig import abandon, dump, fast_directory, faults, settle, started
from tests.crash.workload import Workload

MIXES_MAX = 200  # of one life; all there are if there are fewer
FAILURES_MAX = 5
ALL_UP_TO_FILES = 10  # beyond that many that differ, a sample
FROZEN_SECONDS = 1_000.0
CURRENT = "edb.log"  # the log ends in it
Files = dict[str, bytes]
Mix = dict[str, int]  # which copy a file comes from


@dataclass(frozen=True)
class Copy:
    """What was on disk, and what it meant, while frozen."""

    files: Files
    state: State


@dataclass
class Result:
    mixes: int = 0
    lives: int = 0
    table: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def run(seed: int, mixes: int, *, pages_are_compared: bool = True) -> Result:
    """Control: a recovery that does not notice pages which know more than the log."""
    result = Result()
    with ExitStack() as stack:
        scratch = stack.enter_context(fast_directory("jetwire-torn-"))
        stack.enter_context(mock.patch.object(pages_module, "_GROW_BYTES", 1 << 16))
        if not pages_are_compared:
            stack.enter_context(mock.patch.object(recovery_module._Recovery, "_check_log_reaches_pages", return_value=None))
        for life in itertools.count():
            rng = Random(f"{seed}/{life}")
            root = Path(scratch, f"life{life}")
            copies, history = asyncio.run(_live(root, rng))
            result.lives += 1
            for number, mix in enumerate(_mixes(copies, rng)):
                if result.mixes >= mixes or len(result.failures) > FAILURES_MAX:
                    return result
                _try(Path(scratch, "mix"), copies, mix, history, result, f"seed {seed}, life {life}, mix {number}")
            shutil.rmtree(root)
    return result


def _try(target: Path, copies: list[Copy], mix: Mix, history: History, result: Result, name: str) -> None:
    _lay_out(target, copies, mix)
    try:
        outcome = asyncio.run(_judge(target, copies, mix, history))
    except AssertionError as wrong:
        result.failures.append(f"{name} {mix}: {wrong}")
        outcome = "WRONG"
    shutil.rmtree(target)
    shutil.rmtree(f"{target}-scratch", ignore_errors=True)
    result.mixes += 1
    result.table[f"{_kind(mix)}: {outcome}"] += 1


# -- two copies of a life -----------------------------------------------------------------------------------------------
async def _live(root: Path, rng: Random) -> tuple[list[Copy], History]:
    files = LocalFiles(root)
    files.make_directory("")
    history = History()
    store = await started(files, root, circular=rng.random() < 0.5)
    workload = Workload(store, history, rng)
    await workload.run(rng.randint(5, 40))
    copies = [await _frozen(store, root, history)]
    while len(copies) < 2:
        await workload.acts(rng.choice((1, 5, 20, 60)))
        copy = await _frozen(store, root, history)
        if copy.files != copies[0].files:
            copies.append(copy)
    await abandon(store)
    return copies, history


async def _frozen(store: EmbeddedStore, root: Path, history: History) -> Copy:
    await store.flush()
    now = store.gate._clock.boot()
    await store.gate.freeze(now + FROZEN_SECONDS, drain_until=now + FROZEN_SECONDS)
    found = {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and not p.name.endswith("-lock")}
    assert store.gate.thaw().held
    return Copy(found, history.last)


# -- mixes --------------------------------------------------------------------------------------------------------------
def _mixes(copies: list[Copy], rng: Random) -> list[Mix]:
    """First those with a single odd file, then the rest or a sample."""
    differing = sorted(p for p in copies[0].files.keys() | copies[1].files.keys() if copies[0].files.get(p) != copies[1].files.get(p))
    if len(differing) <= ALL_UP_TO_FILES:
        everything = [dict(zip(differing, sides, strict=True)) for sides in itertools.product((0, 1), repeat=len(differing))]
    else:
        everything = [{path: rng.randrange(2) for path in differing} for _ in range(MIXES_MAX)]
    rng.shuffle(everything)
    odd = [{path: side if path != one else 1 - side for path in differing} for one in differing for side in (0, 1)]
    whole = [dict.fromkeys(differing, side) for side in (0, 1)]
    chosen = [*whole, *odd, *everything[:MIXES_MAX]]
    return [dict(items) for items in dict.fromkeys(tuple(sorted(mix.items())) for mix in chosen)]


def _lay_out(target: Path, copies: list[Copy], mix: Mix) -> None:
    for path in copies[0].files.keys() | copies[1].files.keys():
        data = copies[mix.get(path, 0)].files.get(path)
        if data is not None:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(data)
    target.mkdir(exist_ok=True)


def _side(mix: Mix, wanted: str) -> str:
    sides = {side for path, side in mix.items() if _group(path) == wanted}
    return "same" if not sides else "both" if len(sides) == 2 else ("older", "newer")[sides.pop()]


def _group(path: str) -> str:
    if path.endswith(".edb"):
        return "pages"
    return "checkpoint" if path.endswith(".chk") else "log"


def _kind(mix: Mix) -> str:
    if len(set(mix.values())) == 1:
        return "one copy, whole"
    return ", ".join(f"{group} {_side(mix, group)}" for group in ("pages", "log", "checkpoint"))


# -- what must come of it -----------------------------------------------------------------------------------------------
async def _judge(root: Path, copies: list[Copy], mix: Mix, history: History) -> str:
    side = mix.get(CURRENT, 0)
    refused: JetError | None = None
    try:
        store = await started(LocalFiles(root), root)
    except JetError as error:
        refused = error
    if refused is not None:
        assert len(set(mix.values())) > 1, f"a whole copy is refused: {refused}"
        assert refused.data.get("path"), f"refused without a name: {refused}"
        return f"refused, {Err(refused.code).name}"
    try:
        await settle(store)  # what was being built and never named is freed
        expected = copies[side].state.attached
        found = await dump(store, history.trees)
        assert same(expected, found), f"neither refused nor what its log ends with: {difference(expected, found)}"
        assert not (wrong := faults(store)), wrong
    finally:
        await abandon(store)
    return f"exactly the {('older', 'newer')[side]} instant"
