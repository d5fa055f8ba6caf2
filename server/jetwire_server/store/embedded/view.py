"""Reading a page file: a read transaction that stays on the state it opened on, verifies what it reads, and says what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, cast

import lmdb
from crc32c import crc32c

from jetwire_protocol.errors import Err, JetError
from jetwire_server.store.embedded.contents import META, STATISTIC, Statistic, decode_statistic
from jetwire_server.store.embedded.layout import (
    RESIDUE,
    after_prefix,
    damaged,
    disordered,
    intact,
    number_of,
    split_key,
    tree_prefix,
    value_of,
)
from jetwire_server.store.interface import Row


def _rows(walk: object) -> Iterator[Row]:
    """LMDB's iterator, which its types call one of views too."""
    return cast("Iterator[Row]", walk)


class View:
    """A read transaction: the state of the pages when it was opened. One thread at a time."""

    __slots__ = ("_get", "_txn", "path")

    def __init__(self, path: str, txn: lmdb.Transaction) -> None:
        self.path = path
        self._txn = txn
        self._get: Callable[[bytes], bytes | None] = cast(Any, txn.get)

    def get(self, prefix: bytes, key: bytes) -> bytes | None:
        full = prefix + key
        try:
            sealed = self._get(full)
        except lmdb.Error as error:
            raise page_error(self.path, error) from error
        if sealed is None:
            return None
        if crc32c(sealed, crc32c(full)) != RESIDUE:
            raise damaged(self.path, full)
        return value_of(sealed)

    def newest(self, prefix: bytes, key: bytes) -> tuple[int, bytes] | None:
        full = prefix + key
        sealed = self._read(full)
        if sealed is None:
            return None
        if not intact(full, sealed):
            raise damaged(self.path, full)
        return number_of(sealed), value_of(sealed)

    def chunk(self, prefix: bytes, low: bytes | None, high: bytes | None, reverse: bool, limit: int) -> list[Row]:
        """At most `limit` verified rows of a tree with `low <= key < high`."""
        start = prefix + low if low else prefix
        stop = after_prefix(prefix) if high is None else prefix + high
        if start >= stop:
            return []
        try:
            cursor = self._txn.cursor()
            if reverse:
                return self._backward(cursor, len(prefix), start, stop, limit)
            return self._forward(cursor, len(prefix), start, stop, limit)
        except lmdb.Error as error:
            raise page_error(self.path, error) from error

    def _forward(self, cursor: lmdb.Cursor, cut: int, start: bytes, stop: bytes, limit: int) -> list[Row]:
        out: list[Row] = []
        if not cursor.set_range(start):
            return out
        last = b""
        for full, sealed in islice(_rows(cursor.iternext()), limit):
            if full >= stop:
                break
            if crc32c(sealed, crc32c(full)) != RESIDUE:
                raise damaged(self.path, full)
            if full <= last:
                raise disordered(self.path, full)
            last = full
            out.append((full[cut:], value_of(sealed)))
        return out

    def _backward(self, cursor: lmdb.Cursor, cut: int, start: bytes, stop: bytes, limit: int) -> list[Row]:
        out: list[Row] = []
        if not (cursor.prev() if cursor.set_range(stop) else cursor.last()):
            return out
        last = stop
        for full, sealed in islice(_rows(cursor.iterprev()), limit):
            if full < start:
                break
            if crc32c(sealed, crc32c(full)) != RESIDUE:
                raise damaged(self.path, full)
            if full >= last:
                raise disordered(self.path, full)
            last = full
            out.append((full[cut:], value_of(sealed)))
        return out

    def raw(self, start: bytes, limit: int) -> list[Row]:
        """Full keys and sealed values as they lie there, unverified: for `check`."""
        try:
            cursor = self._txn.cursor()
            found = cursor.set_range(start) if start else cursor.first()
            return list(islice(_rows(cursor.iternext()), limit)) if found else []
        except lmdb.Error as error:
            raise page_error(self.path, error) from error

    def statistic(self, number: int) -> Statistic:
        found = self.newest(STATISTIC, tree_prefix(number))
        return decode_statistic(found[1]) if found is not None else Statistic()

    def _read(self, full: bytes) -> bytes | None:
        try:
            return self._get(full)
        except lmdb.Error as error:
            raise page_error(self.path, error) from error

    def noted(self, kind: bytes) -> list[int]:
        """The trees that have a note of this kind (OPEN, CONDEMNED)."""
        rows = self.chunk(META, kind[1:], kind[1:] + b"\xff", False, 1 << 30)
        return [split_key(key[1:])[0] for key, _ in rows]

    @property
    def transaction(self) -> int:
        """LMDB's number of the state that is read."""
        return self._txn.id()

    def close(self) -> None:
        self._txn.abort()


_MEANINGS: tuple[tuple[tuple[str, ...], int, str], ...] = (
    (("SHORT_WRITE", "No space left", "MDB_MAP_FULL"), Err.DiskFull, "free space and restart the instance"),
    (("Permission denied", "Read-only file system"), Err.FileAccessDenied, "the server needs to write here"),
    (("Cannot allocate memory",), Err.OutOfMemory, "each open database takes a terabyte of the process' addresses: about 120 fit"),
    (("MDB_INVALID", "MDB_VERSION_MISMATCH"), Err.DatabaseCorrupted, "it is no database of this server"),
    (("MDB_PAGE_NOTFOUND",), Err.DatabaseCorrupted, "the file was truncated or damaged, restore a backup"),
    (("MDB_CORRUPTED", "MDB_PANIC"), Err.DatabaseCorrupted, "restore a backup"),
)


def page_error(path: str, error: Exception) -> JetError:
    """LMDB's and the system's errors in the engine's words: what their texts contain, the code, what to do."""
    text = f"{path}: {error}"
    for signs, code, advice in _MEANINGS:
        if any(sign in text for sign in signs):
            return JetError(code, f"{text}; {advice}", path=path)
    return JetError(Err.DiskIO, text, path=path)
