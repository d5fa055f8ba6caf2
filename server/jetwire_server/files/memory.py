"""Files in memory, with two images: what programs see, and what a power cut would leave for certain.

Between the two lies the journal: writes since their file's last sync, and changes of names since their directory's.
`instant()` hands all three out, so that tests can build every state a cut at that moment may leave behind. As a disk
may do it, a new file's name is not durable because its content is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from jetwire_protocol.errors import Err, JetError
from jetwire_server.failpoints import hit
from jetwire_server.files.errno_map import jet_error
from jetwire_server.files.interface import Buffer
from jetwire_server.files.paths import components, unwatched
from jetwire_server.files.whole import parent, replace


@dataclass(frozen=True, slots=True)
class Write:
    """A write not synced yet. `order` counts all changes of all files and names."""

    order: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Length:
    """A change of a file's length (truncate, allocate) not synced yet."""

    order: int
    length: int


@dataclass(slots=True)
class Naming:
    """A create, remove or rename not synced yet: what each path means afterwards, all or nothing."""

    order: int
    paths: dict[str, Content | None]
    unsynced: set[str]


@dataclass(eq=False)
class Content:
    """What an inode is: it outlives its names."""

    live: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    journal: list[Write | Length] = field(default_factory=list)
    sync_failed: bool = False


@dataclass(frozen=True)
class Instant:
    """Everything a power cut at one moment may play with. Contents are numbered; names point to the numbers."""

    directories: frozenset[str]
    names: dict[str, int]
    namings: tuple[tuple[int, dict[str, int | None]], ...]
    durable: dict[int, bytes]
    journals: dict[int, tuple[Write | Length, ...]]


def apply_change(image: bytearray, change: Write | Length) -> None:
    if isinstance(change, Length):
        length = change.length
        image.extend(bytes(max(0, length - len(image))))
        del image[length:]
    else:
        image.extend(bytes(max(0, change.offset - len(image))))
        image[change.offset : change.offset + len(change.data)] = change.data


@contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # only failpoints raise these here
        raise jet_error(error, path) from error


class MemoryFile:
    """An open file; see `files.interface.File`."""

    def __init__(self, files: MemoryFiles, path: str, content: Content, *, read_only: bool) -> None:
        self._files = files
        self._path = path
        self._content = content
        self._read_only = read_only
        self._open = True

    @property
    def path(self) -> str:
        return self._path

    def size(self) -> int:
        return len(self._content.live)

    def read(self, offset: int, length: int) -> bytes:
        with _named(self._path):
            hit("files.read")
        with self._files._lock:
            return bytes(self._content.live[offset : offset + length])

    def write(self, offset: int, data: Buffer) -> None:
        self._change(len(data), "write", lambda order: Write(order, offset, bytes(data)))

    def writev(self, offset: int, parts: Sequence[Buffer]) -> None:
        self.write(offset, b"".join(parts))

    def allocate(self, length: int) -> None:
        if length > self.size():
            self._change(length - self.size(), "allocate", lambda order: Length(order, length))

    def truncate(self, length: int) -> None:
        self._change(0, "truncate", lambda order: Length(order, length))

    def sync(self) -> None:
        content = self._content
        if content.sync_failed:
            raise JetError(Err.DiskIO, f"{self._path}: an earlier sync failed", path=self._path)
        self._files._step("sync", self._path)
        try:
            with _named(self._path):
                hit("files.before_sync")
                if self._files._sync_works:
                    with self._files._lock:
                        for change in content.journal:
                            apply_change(content.durable, change)
                        content.journal.clear()
                hit("files.after_sync")
        except JetError:
            content.sync_failed = True
            raise

    def forget(self) -> None:
        """There is nothing but memory."""

    def close(self) -> None:
        self._open = False

    def _change(self, size: int, what: str, change: Callable[[int], Write | Length]) -> None:
        if self._read_only or not self._open:
            raise JetError(Err.FileAccessDenied, f"{self._path}: not open for writing", path=self._path)
        self._files._watch(size)
        self._files._step(what, self._path)
        with _named(self._path):
            hit(f"files.before_{what}")
            with self._files._lock:
                made = change(next(self._files._order))
                apply_change(self._content.live, made)
                self._content.journal.append(made)
            if what == "write":
                hit("files.after_write")


class MemoryFiles:
    """A directory tree in memory; see `files.interface.Files`.

    `step` is called before every change and sync with what and where: a test takes its instants there. `sync_works`
    false makes every sync a lie, for the control run that must lose data. `real_root` is the real directory that
    `real_path` speaks of, for libraries that open files themselves.
    """

    def __init__(
        self,
        content: Mapping[str, bytes] | None = None,
        *,
        directories: frozenset[str] = frozenset(),
        watch: Callable[[int], None] = unwatched,
        step: Callable[[str, str], None] = lambda what, path: None,
        sync_works: bool = True,
        real_root: str | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._watch = watch
        self._step = step
        self._sync_works = sync_works
        self._real_root = real_root
        self._order = count()
        self._live = {path: Content(bytearray(data), bytearray(data)) for path, data in (content or {}).items()}
        self._durable = dict(self._live)
        self._namings: list[Naming] = []
        self._directories = {"", *directories}
        for path in self._live:
            while path := parent(path):
                self._directories.add(path)

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> MemoryFile:
        self._check(path)
        with _named(path):
            hit("files.before_open")
        if path in self._directories:
            raise JetError(Err.InvalidPath, f"{path!r}: a directory", path=path)
        if path not in self._live:
            if read_only or not create or parent(path) not in self._directories:
                raise JetError(Err.FileNotFound, path, path=path)
            self._rename({path: Content()}, "create", path)
        return MemoryFile(self, path, self._live[path], read_only=read_only)

    def exists(self, path: str) -> bool:
        self._check(path)
        return path in self._live or path in self._directories

    def make_directory(self, path: str) -> None:
        names = components(path)
        for depth in range(1, len(names) + 1):
            some = "/".join(names[:depth])
            if some in self._live:
                raise JetError(Err.InvalidPath, f"{some}: a file", path=path)
            if some not in self._directories:
                self._watch(0)
                self._directories.add(some)

    def remove(self, path: str) -> None:
        self._check(path)
        if path in self._directories:
            if self.list(path):
                raise JetError(Err.FileAccessDenied, f"{path}: not empty", path=path)
            self._watch(0)
            self._directories.discard(path)
        elif path in self._live:
            self._rename({path: None}, "remove", path)
        else:
            raise JetError(Err.FileNotFound, path, path=path)

    def rename(self, source: str, target: str) -> None:
        self._check(source)
        self._check(target)
        if parent(target) not in self._directories:
            raise JetError(Err.FileNotFound, target, path=target)
        if source in self._live:
            if target in self._directories:
                raise JetError(Err.InvalidPath, f"{target}: a directory", path=target)
            moved: dict[str, Content | None] = {source: None, target: self._live[source]}
        elif source in self._directories:
            moved = {}
            for path, content in self._live.items():
                if path.startswith(source + "/"):
                    moved |= {path: None, target + path[len(source) :]: content}
            inside = {path for path in self._directories if path == source or path.startswith(source + "/")}
            self._directories |= {target + path[len(source) :] for path in inside}
            self._directories -= inside
        else:
            raise JetError(Err.FileNotFound, source, path=source)
        self._rename(moved, "rename", source)
        with _named(source):
            hit("files.after_rename")

    def sync_directory(self, path: str = "") -> None:
        components(path)
        if path not in self._directories:
            raise JetError(Err.FileNotFound, path, path=path)
        self._step("sync_directory", path)
        with _named(path):
            hit("files.before_sync_directory")
        if self._sync_works:
            with self._lock:
                for naming in self._namings:
                    naming.unsynced.discard(path)
                self._settle_names()

    def replace(self, path: str, data: bytes) -> None:
        replace(self, path, data)

    def real_path(self, path: str) -> str:
        assert self._real_root is not None, "these files are in memory only"
        return "/".join([self._real_root, *components(path)])

    def list(self, path: str = "") -> list[str]:
        if components(path) and path in self._live:
            raise JetError(Err.InvalidPath, f"{path}: a file", path=path)
        return sorted(some.rpartition("/")[2] for some in (*self._live, *self._directories) if some and parent(some) == path)

    @classmethod
    def after_kill(cls, instant: Instant, *, step: Callable[[str, str], None] = lambda what, path: None) -> MemoryFiles:
        """What the next process finds if this one was killed at that instant: nothing is lost, and nothing more is durable."""
        files = cls(directories=instant.directories, step=step)
        contents = {
            number: Content(bytearray(data), bytearray(data), [*instant.journals[number]]) for number, data in instant.durable.items()
        }
        orders = [order for order, _ in instant.namings]
        for content in contents.values():
            for change in content.journal:
                apply_change(content.live, change)
                orders.append(change.order)
        files._durable = {path: contents[number] for path, number in instant.names.items()}
        files._live = dict(files._durable)
        for order, names in instant.namings:
            paths = {path: None if number is None else contents[number] for path, number in names.items()}
            _apply_names(files._live, paths)
            files._namings.append(Naming(order, paths, {parent(path) for path in paths}))
        files._order = count(max(orders, default=-1) + 1)
        return files

    def instant(self) -> Instant:
        """What a power cut right now would find."""
        with self._lock:
            contents = [*self._durable.values(), *(c for n in self._namings for c in n.paths.values() if c)]
            numbers = {content: number for number, content in enumerate(dict.fromkeys(contents))}  # in order: a seed must repeat
            return Instant(
                frozenset(self._directories),
                {path: numbers[content] for path, content in self._durable.items()},
                tuple((n.order, {path: numbers[c] if c else None for path, c in n.paths.items()}) for n in self._namings),
                {number: bytes(content.durable) for content, number in numbers.items()},
                {number: tuple(content.journal) for content, number in numbers.items()},
            )

    # -- names ------------------------------------------------------------------------------------------------
    def _check(self, path: str) -> None:
        names = components(path)
        if not names:
            raise JetError(Err.InvalidPath, "the root itself is not a file", path=path)
        for depth in range(1, len(names)):
            if "/".join(names[:depth]) in self._live:
                raise JetError(Err.InvalidPath, f"{path}: a file on the way", path=path)

    def _rename(self, paths: dict[str, Content | None], what: str, path: str) -> None:
        self._watch(0)
        self._step(what, path)
        with _named(path):
            if what != "create":
                hit(f"files.before_{what}")
        with self._lock:
            _apply_names(self._live, paths)
            self._namings.append(Naming(next(self._order), paths, {parent(some) for some in paths}))
            self._settle_names()

    def _settle_names(self) -> None:
        """Makes durable what is synced, and before it, in order, every earlier change of the same paths."""
        settled: set[str] = set()
        kept: list[Naming] = []
        due: list[Naming] = []
        for naming in reversed(self._namings):
            if naming.unsynced and settled.isdisjoint(naming.paths):
                kept.append(naming)
            else:
                settled.update(naming.paths)
                due.append(naming)
        for naming in reversed(due):
            _apply_names(self._durable, naming.paths)
        self._namings = kept[::-1]


def _apply_names(names: dict[str, Content], changes: Mapping[str, Content | None]) -> None:
    for path, content in changes.items():
        if content is None:
            names.pop(path, None)
        else:
            names[path] = content
