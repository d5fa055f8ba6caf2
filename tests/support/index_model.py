"""Which keys a record has in an index, in plain Python: written from the rules of ESE's documentation, apart from `keys/`.

Slow and simple. Only the weights of Unicode characters are the product's own, which real databases prove (`tests/server/keys`).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from jetwire_protocol.data.flags import Coltyp, CreateIndexGrbit
from jetwire_server.keys.sortkey import sort_keys, utf16_units

I = CreateIndexGrbit  # noqa: E741
TEXT, BINARY = (Coltyp.Text, Coltyp.LongText), (Coltyp.Binary, Coltyp.LongBinary)
SIZES = {Coltyp.UnsignedByte: 1, Coltyp.Short: 2, Coltyp.UnsignedShort: 2, Coltyp.Long: 4, Coltyp.UnsignedLong: 4, Coltyp.LongLong: 8}
SIGNED = (Coltyp.Short, Coltyp.Long, Coltyp.LongLong)
_DOT_NET = (3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15)
_STORED = (10, 11, 12, 13, 14, 15, 8, 9, 6, 7, 4, 5, 0, 1, 2, 3)


class NullRefused(Exception):
    """An index with DisallowNull."""


class CutRefused(Exception):
    """One with DisallowTruncation."""


@dataclass(frozen=True)
class ModelColumn:
    name: str
    coltyp: Coltyp
    cp: int = 0
    multi: bool = False
    default: Any = None


@dataclass(frozen=True)
class ModelIndex:
    name: str
    segments: tuple[tuple[ModelColumn, bool], ...]  # and whether it descends
    grbit: int = 0
    key_most: int = 255
    part_most: int = 0
    flags: int = 0x30401
    condition: tuple[str, bool] | None = None  # a column, and whether it must be NULL
    pieces: tuple[int, int, int, int, int] | None = None  # shortest, longest, how many, step, start

    def build(self, values: list[Any]) -> bytes:
        """The key of one value a segment."""
        key, cut = b"", False
        for (column, descends), value in zip(self.segments, values, strict=False):
            room = self.key_most - len(key)
            whole = self._segment(column, value, room)
            cut = len(whole) > room
            key += bytes(255 - b for b in whole[:room]) if descends else whole[:room]
            if cut or not room:
                cut = True
                break
        if cut and self.grbit & I.IndexDisallowTruncation:
            raise CutRefused
        return key

    def _segment(self, column: ModelColumn, value: Any, room: int) -> bytes:
        """A segment; longer than the room for it if it is cut there."""
        kind = column.coltyp
        if value is None:
            return b"\xc0" if self.grbit & I.IndexSortNullsHigh and not self.grbit & I.IndexDisallowNull else b"\0"
        if value in ("", b""):
            return b"\x40"
        if kind in SIZES:
            size = SIZES[kind]
            return b"\x7f" + int(value + (1 << 8 * size - 1 if kind in SIGNED else 0)).to_bytes(size, "big")
        if kind == Coltyp.IEEEDouble:
            bits = struct.pack(">d", value)
            return b"\x7f" + (bytes(255 - b for b in bits) if bits[0] & 0x80 else bytes([bits[0] ^ 0x80]) + bits[1:])
        if isinstance(value, UUID):
            return b"\x7f" + bytes(value.bytes_le[i] for i in (_DOT_NET if self.grbit & I.IndexDotNetGuid else _STORED))
        own = self.part_most or self.key_most + 1  # a cut on purpose is none
        most = min(own, room)
        whole = self._binary(value, most) if kind in BINARY else self._text(column, value, most)
        return whole[:own] if len(whole) > own and own <= room else whole

    def _binary(self, value: bytes, most: int) -> bytes:
        chunks = [value[i : i + 8] for i in range(0, len(value), 8)]
        marks = [9] * (len(chunks) - 1) + [len(chunks[-1])]
        whole = b"\x7f" + b"".join(chunk.ljust(8, b"\0") + bytes([mark]) for chunk, mark in zip(chunks, marks, strict=True))
        if len(whole) > most > 1 and most % 9 == 1:
            whole = whole[: most - 1] + b"\x09" + whole[most:]
        return whole

    def _text(self, column: ModelColumn, value: str, most: int) -> bytes:
        if column.cp == 1200:
            units = utf16_units(value)
            for doubled in itertools.count():
                seen = (self.key_most << doubled) // 2
                whole = b"\x7f" + bytes(sort_keys(self.flags).units(units[:seen]))
                if self.key_most == 255 or seen >= len(units) or len(whole) >= most:
                    return whole
        data = value.encode("cp1252").partition(b"\0")[0]
        whole = b"\x7f" + bytes(b - 32 if 97 <= b <= 122 else b for b in data) + b"\0"
        if len(whole) > most > 1:  # the byte at the cut has 0x20 less, letter or not
            whole = whole[: most - 1] + bytes([data[most - 2] - 32 & 255]) + whole[most:]
        return whole

    def entries(self, record: Mapping[str, Any]) -> list[tuple[bytes, tuple[int, ...]]]:
        """The keys in ESE's order, repeats too, each with the numbers of the values it is of."""
        if self.condition is not None and (record[self.condition[0]] is None) != self.condition[1]:
            return []
        values = [many_of(record[column.name]) for column, _ in self.segments]
        out: list[tuple[bytes, tuple[int, ...]]] = []
        for numbers in self._numbers(values):
            one = [of[n - 1] if n <= len(of) else None for of, n in zip(values, numbers, strict=True)]
            pieces = self._pieces(one[0])
            if pieces and None in one and not self._has_place(one):
                break
            out += [(self.build([piece, *one[1:]]), numbers) for piece in pieces]
        return out

    def _numbers(self, values: list[list[Any]]) -> list[tuple[int, ...]]:
        varying = [place for place, (column, _) in enumerate(self.segments) if column.multi]
        if not self.grbit & (I.IndexCrossProduct | I.IndexNestedTable):
            varying = varying[:1]
        counts = [max(1, len(of)) if place in varying else 1 for place, of in enumerate(values)]
        if self.grbit & I.IndexNestedTable:
            return [tuple(n if place in varying else 1 for place in range(len(values))) for n in range(1, max(counts) + 1)]
        return list(itertools.product(*[range(1, count + 1) for count in counts]))

    def _pieces(self, value: Any) -> list[Any]:
        if self.pieces is None:
            return [value]
        if value is None:
            return []
        shortest, longest, total, step, start = self.pieces
        every = [value[start + n * step :][:longest] for n in range(min(total, len(value)))]
        return list(itertools.takewhile(lambda piece: len(piece) >= shortest, every))

    def _has_place(self, values: list[Any]) -> bool:
        if self.grbit & I.IndexDisallowNull:
            raise NullRefused
        if self.grbit & I.IndexIgnoreAnyNull or (values[0] is None and self.grbit & I.IndexIgnoreFirstNull):
            return False
        return not (self.grbit & I.IndexIgnoreNull and all(value is None for value in values))


def many_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
