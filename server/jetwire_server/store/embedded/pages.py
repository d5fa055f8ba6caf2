"""A database's page file: sorted sealed rows on LMDB.

One thread writes (`PageFile.apply`); reads go through views (see `view`). Nobody but these two imports LMDB.
Each applied chunk is one synced LMDB transaction: rows, the trees' statistics and the head change together or not at
all. LMDB maps the file into memory, where a page beyond the end kills the process: a file shorter than its pages is
refused at opening, and the file is made longer before a chunk could need it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any, cast

import lmdb
from msgspec import structs

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.failpoints import hit
from jetwire_server.files.interface import Files
from jetwire_server.store.embedded.contents import (
    DIGEST_MASK,
    HEAD,
    STATISTIC,
    Group,
    Head,
    Statistic,
    decode_statistic,
    encode,
    head_from,
)
from jetwire_server.store.embedded.layout import (
    checksum_of,
    damaged,
    intact,
    seal,
    tree_prefix,
    value_of,
)
from jetwire_server.store.embedded.structure import Meta, read_metas, walk
from jetwire_server.store.embedded.view import View, page_error

_MAY_WRITE = 0o222  # of a file: whoever it is
_MAP_BYTES = 1 << 40
_READERS = limits.PAGE_VIEWS_MAX
_GROW_BYTES = 16 << 20
_LOCK_HEAD_BYTES = 4096


class PageFile:
    """An open page file."""

    def __init__(self, files: Files, path: str, env: lmdb.Environment, head: Head, read_only: bool) -> None:
        self._files = files
        self._env = env
        self.path = path
        self.head = head
        self.read_only = read_only
        self.borrowed = False  # attached for one call, and let go by the next start if that never ended
        self._statistics: dict[int, Statistic | None] = {}

    # -- opening ----------------------------------------------------------------------------------------------
    @classmethod
    def create(cls, files: Files, path: str, head: Head, *, scratch: bool = False) -> PageFile:
        """A new, empty page file; whatever lies there is removed first. A scratch file is never synced."""
        for name in (path, path + "-lock"):
            if files.exists(name):
                files.remove(name)
        files.open(path, create=True).close()
        env = _open(files, path, read_only=False, sync=not scratch)
        made = cls(files, path, env, head, False)
        made.apply([], head=head)
        files.sync_directory(path.rpartition("/")[0])
        return made

    @classmethod
    def open(cls, files: Files, path: str, *, read_only: bool = False) -> PageFile:
        """An existing page file; a named error, and nothing changed, if it is not whole or not ours."""
        if not files.exists(path):
            raise JetError(Err.FileNotFound, f"{path}: no such database", path=path)
        file = files.open(path, read_only=True)
        try:
            size, start = file.size(), file.read(0, 64)
        finally:
            file.close()
        if size == 0 or not start:
            raise JetError(Err.DatabaseCorrupted, f"{path}: the file is empty; restore a backup", path=path)
        if not read_only and not os.stat(files.real_path(path)).st_mode & _MAY_WRITE:  # asked even where the system would allow it
            raise JetError(Err.DatabaseFileReadOnly, f"{path}: nobody may write the file; attach it read only, or chmod u+w", path=path)
        env = _open(files, path, read_only=read_only)
        try:
            info = env.info()
            pages = info["last_pgno"] + 1
            page_bytes = env.stat()["psize"]
            if size < pages * page_bytes:
                raise JetError(
                    Err.DatabaseCorrupted,
                    f"{path}: the file was truncated: it has {size} bytes of {pages * page_bytes}; restore a backup",
                    path=path,
                )
            try:
                with env.begin() as txn:
                    sealed = txn.get(HEAD)
            except lmdb.Error as error:
                raise page_error(path, error) from error
            if sealed is None:
                raise JetError(Err.DatabaseCorrupted, f"{path}: not a database of this server: it has no head", path=path)
            if not intact(HEAD, sealed):
                raise damaged(path, HEAD)
            head = head_from(path, value_of(sealed))
        except BaseException:
            env.close()
            raise
        return cls(files, path, env, head, read_only)

    @staticmethod
    def look(files: Files, path: str) -> None:
        """Looks at the page structure of a file that nobody has open, as far as it takes no long time; changes nothing.

        LMDB trusts what it maps: damage there could end the process at any later read or write. Beyond
        `limits.STRUCTURE_PAGES_MAX` pages it is found by the scrub and by `check`.
        """
        if not files.exists(path):
            return
        with closing(files.open(path, read_only=True)) as file:
            newest = next(iter(read_metas(file)), None)
            if newest is None or file.size() < (newest.last_page + 1) * newest.page_bytes:
                return  # opening it says what this is
            for what in islice(walk(file, newest), limits.STRUCTURE_PAGES_MAX):
                if what is not None:
                    detail = f"{path}: the page structure is damaged: {what}; see what `jetwired check` finds, and restore a backup"
                    raise JetError(Err.DatabaseCorrupted, f"{detail}; nothing was changed", path=path)

    def close(self) -> None:
        self._env.close()

    def meta_of(self, view: View) -> Meta | None:
        """The meta page of the state that `view` reads; None if it is gone already."""
        with closing(self._files.open(self.path, read_only=True)) as file:
            return next((meta for meta in read_metas(file) if meta.transaction == view.transaction), None)

    def walk(self, meta: Meta) -> Iterator[str | None]:
        """See `structure.walk`. A view on the same state must be open meanwhile."""
        with closing(self._files.open(self.path, read_only=True)) as file:
            yield from walk(file, meta)

    def size(self) -> int:
        """Bytes of the file that hold something, or did."""
        return int((self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"])

    def space(self) -> int:
        """Bytes of the disk that the file takes, reserved ones too."""
        return os.stat(self._env.path()).st_blocks * 512

    def view(self) -> View:
        """A read transaction on the newest state. `JET_errOutOfMemory` names the limit if too many are open."""
        try:
            return View(self.path, self._env.begin())
        except lmdb.ReadersFullError as error:
            raise JetError(Err.OutOfMemory, f"{self.path}: {_READERS} page snapshots are open") from error

    # -- writing: on the pages thread -------------------------------------------------------------------------
    def apply(
        self,
        groups: Iterable[Group],
        *,
        head: Head | None = None,
        note: Iterable[bytes] = (),
        unnote: Iterable[bytes] = (),
        turn_back: Callable[[], bool] | None = None,
    ) -> bool:
        """One chunk, one transaction, synced. False, and nothing done, if `turn_back` says so before the commit.

        `note` and `unnote` are whole meta keys (OPEN or CONDEMNED and the tree's prefix).
        """
        groups = list(groups)
        self._make_room(groups)
        changed: dict[int, Statistic | None] = {}
        try:
            txn = self._env.begin(write=True)
            try:
                for group in groups:
                    changed[group.number] = self._apply_group(txn, group)
                for number, statistic in changed.items():
                    key = STATISTIC + tree_prefix(number)
                    if statistic is None:
                        continue  # damaged: it stays as it is, for `check` to name
                    if statistic.count or statistic.digest:
                        txn.put(key, seal(key, 0, encode(statistic)))
                    else:
                        txn.delete(key)
                for key in note:
                    txn.put(key, seal(key, 0, b""))
                for key in unnote:
                    txn.delete(key)
                if head is not None:
                    txn.put(HEAD, seal(HEAD, 0, encode(head)))
                hit("pages.before_commit")
                if turn_back is not None and turn_back():
                    txn.abort()
                    return False
                txn.commit()
                hit("pages.after_commit")
            except BaseException:
                txn.abort()
                raise
        except (lmdb.Error, OSError) as error:
            raise page_error(self.path, error) from error
        self._statistics.update(changed)
        if head is not None:
            self.head = head
        return True

    def head_ahead(self, number: int) -> Head | None:
        """The head that says that a round up to this commit has begun; None if it says so."""
        return structs.replace(self.head, ahead=number) if self.head.ahead < number else None

    def _apply_group(self, txn: lmdb.Transaction, group: Group) -> Statistic | None:
        """The tree's statistic with this group in it; None if what was kept of the tree is damaged."""
        before = self._statistics[group.number] if group.number in self._statistics else _kept_statistic(txn, group.number)
        count, digest = (before.count, before.digest) if before is not None else (0, 0)
        keys = group.keys
        if keys:
            cursor = txn.cursor()
            at_the_end = not cursor.last() or cast(bytes, cursor.key()) < keys[0]  # LMDB fills its pages, then, and need not search
            if not at_the_end and cursor.set_range(keys[0]) and cast(bytes, cursor.key()) <= keys[-1]:
                get = txn.get
                for full in keys:
                    old = cast(Any, get(full))
                    if old is not None:
                        count -= 1
                        digest -= checksum_of(old)
            count += len(keys)
            digest += group.digest
            cursor.putmulti(zip(keys, group.values, strict=True), append=at_the_end)
            cursor.close()  # by this thread: whoever held the frame (a profiler) could free it while LMDB is at work
        for full in group.deletes:
            old = cast(Any, txn.pop(full))
            if old is not None:
                count -= 1
                digest -= checksum_of(old)
        return Statistic(count, digest & DIGEST_MASK) if before is not None else None

    def clear_some(self, number: int, limit: int, note_gone: Iterable[bytes]) -> bool:
        """Frees up to `limit` rows of a condemned tree; True when none is left and its notes are gone too."""
        prefix = tree_prefix(number)
        with self._env.begin() as txn:
            cursor = txn.cursor()
            found = cursor.set_range(prefix)
            full_keys = cast("list[bytes]", list(islice(cursor.iternext(values=False), limit))) if found else []
        deletes = [full for full in full_keys if full.startswith(prefix)]
        done = len(deletes) < limit
        group = Group(number)
        group.deletes = deletes
        self.apply([group], unnote=(*note_gone, STATISTIC + prefix) if done else ())
        if done:
            self._statistics.pop(number, None)
        return done

    def _make_room(self, groups: list[Group]) -> None:
        """Lengthens the file (sparsely) to what the chunk could need at worst."""
        rows = sum(len(group.keys) + len(group.deletes) for group in groups)
        payload = sum(sum(map(len, group.values)) for group in groups)
        info = self._env.info()
        needed = (info["last_pgno"] + 64 + 4 * rows) * 4096 + 2 * payload
        if needed > os.stat(self._env.path()).st_size:
            file = self._files.open(self.path)
            try:
                file.truncate((needed // _GROW_BYTES + 1) * _GROW_BYTES)
            finally:
                file.close()

    def reserve(self, size: int) -> None:
        """Takes so much of the disk for the file, or gives back what is reserved beyond that. On the pages thread."""
        with closing(self._files.open(self.path)) as file:
            file.truncate(self.size())  # what lies behind the last page holds nothing
            file.allocate(size)
            file.sync()

    def copy_to(self, fd: int) -> None:
        """A whole, consistent copy, compacted, written to a file descriptor: for backups."""
        try:
            self._env.copyfd(fd, compact=True)
        except (lmdb.Error, OSError) as error:
            raise page_error(self.path, error) from error


def _kept_statistic(txn: lmdb.Transaction, number: int) -> Statistic | None:
    key = STATISTIC + tree_prefix(number)
    sealed = cast("bytes | None", txn.get(key))
    if sealed is None:
        return Statistic()
    return decode_statistic(value_of(sealed)) if intact(key, sealed) else None


def _open(files: Files, path: str, *, read_only: bool, sync: bool = True) -> lmdb.Environment:
    _reserve_lock(files, path, _LOCK_HEAD_BYTES, read_only)
    try:
        env = lmdb.open(
            files.real_path(path),
            lib_version=1,
            subdir=False,
            map_size=_MAP_BYTES,
            max_readers=_READERS,
            max_dbs=0,
            readonly=read_only,
            create=not read_only,
            writemap=False,
            meminit=False,
            sync=sync,
            metasync=sync,
            mode=0o600,
        )
    except (lmdb.Error, OSError) as error:
        raise page_error(path, error) from error
    try:
        _reserve_lock(files, path, 0, read_only)
    except BaseException:
        env.close()
        raise
    return env


def _reserve_lock(files: Files, path: str, at_least: int, read_only: bool) -> None:
    """Disk for all of LMDB's lock file, which is mapped too: a hole in it that finds no room kills the process.

    Before LMDB looks at it, it needs what LMDB writes at once; how long the whole is, LMDB decides.
    """
    try:
        with closing(files.open(path + "-lock", create=True)) as file:
            file.allocate(max(at_least, file.size()))
    except JetError as error:
        if not (read_only and error.code == Err.FileAccessDenied):  # LMDB does without it on a read-only file system
            raise
