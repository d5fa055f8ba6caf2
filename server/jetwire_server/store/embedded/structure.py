"""Looks at LMDB's own page structure without LMDB, which trusts it: damage there may end the process that reads through it.

The layout is that of LMDB 1.0 (the library's `lib_version=1`): pages of one size, each beginning with its number, the
transaction that wrote it, flags and the bounds of its nodes; two meta pages, of which the one of the newer transaction
counts; one B+tree of rows and one of free pages. Every page must be what the page above says, be used once, and hold
ascending keys within the bounds of the page above; the totals must be those of the meta page.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from jetwire_server.files.interface import File

MAGIC, VERSION = 0xBEEFC0DE, 3
_NONE = (1 << 64) - 1
_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8
_KIND = _BRANCH | _LEAF | _OVERFLOW | _META | 0x60
_BIG_DATA = 1
_UNWRITTEN_MAX = 1 << 16  # free pages at the end that the file was never made long enough for

_PAGE = struct.Struct("<QQHHHH")  # number, transaction, pad, flags, end of offsets, begin of nodes: both behind this head
_MAGIC = struct.Struct("<II")
_TREE = struct.Struct("<IHHQQQQQ")  # page size or pad, flags, depth, pages of branches, leaves, overflow; entries, root
_END = struct.Struct("<QQ")  # last page, transaction
_NODE = struct.Struct("<HHHH")  # size or child (low, high), flags, size of the key
_OVERFLOW_POINTER = struct.Struct("<QQQ")  # first page, transaction, pages
_PAGES = struct.Struct("<I")
HEAD = _PAGE.size
_TREES_AT = HEAD + _MAGIC.size + 16
_END_AT = _TREES_AT + 2 * _TREE.size
_META_BYTES = _END_AT + _END.size


class Damage(Exception):
    """What is wrong with a page."""

    def __init__(self, page: int, what: str) -> None:
        super().__init__(f"page {page}: {what}")


@dataclass(frozen=True, slots=True)
class Tree:
    """One of the two trees, as a meta page describes it."""

    depth: int
    branches: int
    leaves: int
    overflow: int
    entries: int
    root: int


@dataclass(frozen=True, slots=True)
class Meta:
    """A meta page: one state of the whole file."""

    page_bytes: int
    free: Tree
    rows: Tree
    last_page: int
    transaction: int


def read_metas(file: File) -> list[Meta]:
    """The meta pages that look like some, the newest first."""
    first = _meta(file.read(0, _META_BYTES))
    page_bytes = first.page_bytes if first else 4096
    second = _meta(file.read(page_bytes, _META_BYTES))
    return sorted(filter(None, (first, second)), key=lambda meta: -meta.transaction)


def _meta(data: bytes) -> Meta | None:
    if len(data) < _META_BYTES or _MAGIC.unpack_from(data, HEAD) != (MAGIC, VERSION):
        return None
    page_bytes, _, *free = _TREE.unpack_from(data, _TREES_AT)
    _, _, *rows = _TREE.unpack_from(data, _TREES_AT + _TREE.size)
    if page_bytes not in (1 << shift for shift in range(9, 17)):
        return None
    return Meta(page_bytes, Tree(*free), Tree(*rows), *_END.unpack_from(data, _END_AT))


def walk(file: File, meta: Meta) -> Iterator[str | None]:
    """What is wrong with the state that `meta` describes, at most one thing per tree; None for every page that is good."""
    walker = _Walker(file, meta)
    for tree, is_free in ((meta.rows, False), (meta.free, True)):
        try:
            for _ in walker.tree(tree, is_free):
                yield None
        except Damage as damage:
            yield f"{damage}{' (of the list of free pages)' if is_free else ''}"


class _Walker:
    def __init__(self, file: File, meta: Meta) -> None:
        self._file = file
        self._meta = meta
        self._body = meta.page_bytes - HEAD
        self._seen = bytearray(min(meta.last_page, file.size() // meta.page_bytes + _UNWRITTEN_MAX) // 8 + 1)
        self._branches = self._leaves = self._overflow = self._entries = 0

    def tree(self, tree: Tree, is_free: bool) -> Iterator[None]:
        self._branches = self._leaves = self._overflow = self._entries = 0
        if tree.root != _NONE:
            yield from self._page(tree.root, tree.depth, b"", None, is_free)
        elif tree.depth:
            raise Damage(0, "a tree with a depth and no root")
        for what in ("branches", "leaves", "overflow", "entries"):
            found, kept = getattr(self, f"_{what}"), getattr(tree, what)
            if found != kept:
                raise Damage(0, f"{found} {what} can be reached, the meta page has {kept}")

    def _page(self, number: int, level: int, low: bytes, high: bytes | None, is_free: bool) -> Iterator[None]:
        if level < 1:
            raise Damage(number, "deeper than the tree")
        self._claim(number, 1)
        data = self._file.read(number * self._meta.page_bytes, self._meta.page_bytes)
        offsets = self._nodes_of(number, data, _LEAF if level == 1 else _BRANCH)
        keys, nodes = [], []
        for offset in offsets:
            key, node = self._node(number, data, offset)
            keys.append(key)
            nodes.append(node)
        ordered = [key[::-1] for key in keys] if is_free else keys  # its keys are little-endian numbers
        self._check_order(number, ordered if level == 1 else ordered[1:], low, high)
        yield None
        if level > 1:
            self._branches += 1
            bounds = [low, *ordered[1:], high]
            for index, (_, size_low, size_high, flags) in enumerate(nodes):
                child = size_low | size_high << 16 | flags << 32
                yield from self._page(child, level - 1, bounds[index] or b"", bounds[index + 1], is_free)
            return
        self._leaves += 1
        self._entries += len(nodes)
        for at, size_low, size_high, flags in nodes:
            self._value(number, data, at, size_low | size_high << 16, flags, is_free)

    def _nodes_of(self, number: int, data: bytes, kind: int) -> tuple[int, ...]:
        if len(data) < self._meta.page_bytes:
            raise Damage(number, "beyond the end of the file")
        its, transaction, _, flags, lower, upper = _PAGE.unpack_from(data)
        if its != number:
            raise Damage(number, f"calls itself {its}")
        if transaction > self._meta.transaction:
            raise Damage(number, f"of transaction {transaction}, which is yet to come")
        if flags & _KIND != kind:
            raise Damage(number, f"of kind {flags:#x} where {kind:#x} belongs")
        if lower % 2 or not lower <= upper <= self._body or lower < (4 if kind == _BRANCH else 2):
            raise Damage(number, f"nodes from {lower} to {upper}")
        return struct.unpack_from(f"<{lower // 2}H", data, HEAD)

    def _node(self, number: int, data: bytes, offset: int) -> tuple[bytes, tuple[int, int, int, int]]:
        """The key, and where its value begins with the three fields that say what it is."""
        if offset + _NODE.size > self._body:
            raise Damage(number, f"a node at {offset}")
        at = HEAD + offset
        size_low, size_high, flags, key_size = _NODE.unpack_from(data, at)
        end = at + _NODE.size + key_size
        if end > len(data):
            raise Damage(number, f"a key of {key_size} bytes at {offset}")
        return data[at + _NODE.size : end], (end + key_size % 2, size_low, size_high, flags)  # values stand at even places

    @staticmethod
    def _check_order(number: int, keys: list[bytes], low: bytes, high: bytes | None) -> None:
        last = None
        for key in keys:
            if last is not None and key <= last:
                raise Damage(number, "keys out of order")
            last = key
        if keys and (keys[0] < low or (high is not None and keys[-1] >= high)):
            raise Damage(number, "keys that belong to another page")

    def _value(self, number: int, data: bytes, at: int, size: int, flags: int, is_free: bool) -> None:
        if flags & ~_BIG_DATA:
            raise Damage(number, f"a node of kind {flags:#x}")
        if not flags & _BIG_DATA:
            if at + size > len(data):
                raise Damage(number, f"a value of {size} bytes goes beyond the page")
            if is_free:
                self._claim_free(number, data[at : at + size])
            return
        if at + _OVERFLOW_POINTER.size > len(data):
            raise Damage(number, "a pointer that goes beyond the page")
        first, _, pages = _OVERFLOW_POINTER.unpack_from(data, at)
        if pages * self._meta.page_bytes < HEAD + size:  # more may be left of a longer value
            raise Damage(number, f"a value of {size} bytes on {pages} pages")
        self._claim(first, pages)
        self._overflow += pages
        head = self._file.read(first * self._meta.page_bytes, HEAD + size if is_free else HEAD)
        its, _, _, flags, _, _ = _PAGE.unpack_from(head)
        if its != first or flags & _KIND != _OVERFLOW or _PAGES.unpack_from(head, HEAD - 4)[0] != pages:
            raise Damage(first, "not the first page of the long value it should be")
        if is_free:
            self._claim_free(first, head[HEAD:])

    def _claim_free(self, number: int, value: bytes) -> None:
        """A record of the list of free pages: how many, and their numbers. A run's begin may be marked by its length."""
        count = int.from_bytes(value[:8], "little")
        if len(value) < 8 * (count + 1):
            raise Damage(number, f"a list of {count} free pages in {len(value)} bytes")
        for page in struct.unpack_from(f"<{count}Q", value, 8):
            self._claim(page, 1)

    def _claim(self, first: int, pages: int) -> None:
        if first < 2 or first + pages - 1 > self._meta.last_page or (first + pages - 1) // 8 >= len(self._seen):
            raise Damage(first, "out of range")
        for number in range(first, first + pages):
            if self._seen[number >> 3] >> (number & 7) & 1:
                raise Damage(number, "used twice")
            self._seen[number >> 3] |= 1 << (number & 7)
