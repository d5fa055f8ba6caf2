"""Reads everything in a page file and names each fault: file, tree, key.

Four nets: LMDB's own page structure (`structure`), a checksum on every row, ascending keys, and the count and digest per
tree that every checkpoint chunk keeps. The last finds what the others cannot: pages that are whole, but of another time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterator
from functools import partial
from typing import Any, Literal

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.files.interface import Files
from jetwire_server.metrics import Counter
from jetwire_server.store.embedded.contents import DIGEST_MASK, STATISTIC, Statistic, decode_statistic
from jetwire_server.store.embedded.layout import checksum_of, intact, split_key, value_of
from jetwire_server.store.embedded.pages import PageFile
from jetwire_server.store.embedded.view import View
from jetwire_server.store.interface import Fault

OnThread = Callable[[Callable[[], Any]], Awaitable[Any]]

SLICE_ROWS = 1_000
_TRIES = 1_000  # a view is taken again this often before its meta page counts as damaged

ROWS_CHECKED = Counter("jetwire_checked_rows_total", "Rows read by checks and scrubs.")
FAULTS_FOUND = Counter("jetwire_check_faults_total", "Faults found by checks and scrubs.")


def check_database(files: Files, path: str) -> Iterator[Fault | None]:
    """Checks a file that nobody has open for writing. Yields None between slices, so that a caller may breathe."""
    try:
        file = PageFile.open(files, path, read_only=True)
    except JetError as error:
        if error.code == Err.DiskFull:  # of LMDB's lock file: it says nothing of the database
            raise
        yield Fault(path, -1, b"", error.detail)
        return
    try:
        yield from check_file(file)
    finally:
        file.close()


def check_file(file: PageFile) -> Generator[Fault | None, None, None]:
    """Checks one state of an open page file, while it may go on changing."""
    view = file.view()
    try:
        for _ in range(_TRIES):
            if (meta := file.meta_of(view)) is not None:
                break
            view.close()  # two commits since, and its meta page was written over
            view = file.view()
        else:
            yield Fault(file.path, -1, b"", "the meta page cannot be read")
            return
        damaged = False
        for what in file.walk(meta):
            damaged = damaged or what is not None
            yield None if what is None else Fault(file.path, -1, b"", f"the page structure is damaged: {what}")
        if not damaged:  # else reading on could end the process
            yield from _check_rows(file.path, view)
    except JetError as error:
        yield Fault(file.path, -1, b"", error.detail)
    finally:
        view.close()


def _check_rows(path: str, view: View) -> Iterator[Fault | None]:
    counted: dict[int, Statistic] = {}
    kept: dict[int, Statistic | None] = {}
    start = last = b""
    while rows := view.raw(start, SLICE_ROWS):
        for full, sealed in rows:
            if full <= last and last:
                yield _fault(path, full, "keys are out of order")
            last = full
            whole = intact(full, sealed)
            if not whole:
                yield _fault(path, full, "the checksum does not match")
            try:
                number, _ = split_key(full)
                if full.startswith(STATISTIC):
                    kept[split_key(full[len(STATISTIC) :])[0]] = decode_statistic(value_of(sealed)) if whole else None
            except ValueError as error:
                yield Fault(path, -1, full, str(error))
                continue
            found = counted.setdefault(number, Statistic())
            found.count += 1
            found.digest = (found.digest + checksum_of(sealed)) & DIGEST_MASK
        if last < start:  # pages that lead back: what lies behind them cannot be reached
            return
        start = last + b"\0"
        ROWS_CHECKED.value += len(rows)
        yield None
    yield from _compare(path, kept, counted)


def _compare(path: str, kept: dict[int, Statistic | None], counted: dict[int, Statistic]) -> Iterator[Fault]:
    for number in sorted({*counted, *kept} - {0}):
        written, found = kept.get(number, Statistic()), counted.get(number, Statistic())
        if written is None:
            continue  # damaged, which was said
        if written.count != found.count:
            yield Fault(path, number, b"", f"{found.count} rows can be reached, {written.count} were written")
        elif written.digest != found.digest:
            yield Fault(path, number, b"", "the rows are not those that were written")


def _fault(path: str, full: bytes, what: str) -> Fault:
    try:
        tree, key = split_key(full)
    except ValueError:
        return Fault(path, -1, full, what)
    return Fault(path, tree, key, what)


async def scrub(files: dict[int, PageFile], on_pages_thread: OnThread, pause_seconds: float) -> list[Fault]:
    """The same for files in use. On the pages thread, where files are closed, too: one that goes meanwhile is let go of."""
    faults: list[Fault] = []
    for slot, file in list(files.items()):
        walk = check_file(file)
        most = len(faults) + limits.SCRUB_FAULTS_MAX
        try:
            while len(faults) < most and (found := await on_pages_thread(partial(_step, files, slot, file, walk))) is not False:
                if found is not None:
                    faults.append(found)
                    FAULTS_FOUND.value += 1
                else:
                    await asyncio.sleep(pause_seconds)
        finally:
            await asyncio.shield(on_pages_thread(walk.close))
    return faults


def _step(files: dict[int, PageFile], slot: int, file: PageFile, walk: Iterator[Fault | None]) -> Fault | Literal[False] | None:
    return next(walk, False) if files.get(slot) is file else False
