"""Search keys: what JetMakeKey builds, column by column, for Seek and SetIndexRange.

Limits make a key that sorts before or after everything which begins like it: the end of the key, or the mark that ends a text or
binary value, is taken away (start limits), and the rest of the key space filled with ff (end limits). Such a key is one byte longer
than any stored key may be, so it equals none.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from jetwire_protocol.data.flags import MakeKeyGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server.keys.binary import data_end
from jetwire_server.keys.levels import UPPERCASE
from jetwire_server.keys.maker import KeyMaker
from jetwire_server.keys.sortkey import utf16_units
from jetwire_server.keys.spec import SegmentSpec
from jetwire_server.keys.text import to_code_page
from jetwire_server.limits import KEY_BYTES_DEFAULT

_FILL: Final = b"\xff"
# plain integers: arithmetic on IntFlag is ten times slower, and Seek makes a key each time
_NORMALIZED: Final = int(MakeKeyGrbit.NormalizedKey)
_NEW: Final = int(MakeKeyGrbit.NewKey)
_EMPTY: Final = int(MakeKeyGrbit.KeyDataZeroLength)
_LIMITS: Final = int(MakeKeyGrbit.maskLimitOptions)
_PARTIAL: Final = int(MakeKeyGrbit.PartialColumnStartLimit | MakeKeyGrbit.PartialColumnEndLimit)
_END: Final = int(MakeKeyGrbit.FullColumnEndLimit | MakeKeyGrbit.PartialColumnEndLimit)
_STRING, _SUBSTRING = int(MakeKeyGrbit.StrLimit), int(MakeKeyGrbit.SubStrLimit)
_ANY_LIMIT: Final = _LIMITS | _STRING | _SUBSTRING
_NOT_A_VALUE: Final = (TypeError, ValueError, AttributeError, OverflowError, struct.error)  # what encoders raise


class SearchKey:
    """A cursor's search key while it grows. `limit`: it ends in a limit, and no column can follow.

    `maker` may be None for a table without a primary index, which takes NormalizedKey only.
    """

    __slots__ = ("_first_number", "columns", "cut", "data", "limit", "maker", "prepared")

    def __init__(self, maker: KeyMaker | None) -> None:
        self.maker = maker
        self._first_number = maker.first_number if maker else None
        self.reset()

    def reset(self) -> None:
        self.data = b""
        self.columns = 0
        self.prepared = self.limit = self.cut = False

    def add(self, value: Any, grbit: int = 0) -> None:
        """The value of the next column. None, and an empty value without KeyDataZeroLength, are NULL."""
        if type(value) is int and grbit == _NEW and self._first_number is not None and self._begin(value):
            return
        flags = int(grbit)
        if flags & _NORMALIZED:
            self._take_normalized(value)
            return
        if self.maker is None:
            raise JetError(Err.NoCurrentIndex)
        if flags & _NEW:
            self.reset()
        elif self.limit:
            raise JetError(Err.KeyIsMade, "a limit ends the key")
        elif not self.prepared:
            raise JetError(Err.KeyNotMade, "the first column needs NewKey")
        segments = self.maker.spec.segments
        if self.columns >= len(segments):
            raise JetError(Err.KeyIsMade, f"the index has {len(segments)} columns")
        segment = segments[self.columns]
        options = flags & _LIMITS
        if options:
            if options & options - 1:
                raise JetError(Err.InvalidGrbit, "more than one limit")
            if options & _PARTIAL and not segment.text and (segment.fixed or not segment.binary):
                raise JetError(Err.InvalidGrbit, "a partial limit needs a text or variable binary column")
        if not self.cut and len(self.data) < self.maker.key_most:
            self._append(self.maker, segment, value, flags)
        self.columns += 1
        self.prepared = True

    def _begin(self, number: int) -> bool:
        """A new key that begins with a number, as most do; False if it is not one for this column."""
        assert self._first_number is not None
        try:
            self.data = self._first_number(number)
        except _NOT_A_VALUE:
            return False
        self.columns = 1
        self.prepared = True
        self.limit = self.cut = False
        return True

    def _take_normalized(self, value: Any) -> None:
        if not isinstance(value, bytes):
            raise JetError(Err.InvalidParameter, "a normalized key is bytes")
        key_most = self.maker.key_most if self.maker else KEY_BYTES_DEFAULT
        if len(value) > max(key_most + 1, KEY_BYTES_DEFAULT):
            raise JetError(Err.InvalidParameter, "longer than any key of this index")
        self.reset()
        self.data = value[: key_most + 1]
        self.columns = 1
        self.prepared = True
        self.limit = len(self.data) > key_most

    def _append(self, maker: KeyMaker, segment: SegmentSpec, value: Any, flags: int) -> None:
        room = maker.key_most - len(self.data)
        value = self._prepare(maker, segment, value, flags)
        try:
            part, self.cut = maker.encoders[self.columns](value, room)
        except _NOT_A_VALUE as error:
            raise JetError(Err.InvalidBufferSize, f"not a value of {segment.coltyp.name}: {error}") from None
        self.data += self._limited(segment, value, part, room + 1, flags) if flags & _ANY_LIMIT else part

    def _prepare(self, maker: KeyMaker, segment: SegmentSpec, value: Any, flags: int) -> Any:
        """The value as the row would have it: NULL if empty, a fixed text padded, a tuple index's no longer than a tuple."""
        tuples = maker.spec.tuples if self.columns == 0 else None
        if value is None or value in ("", b""):
            if tuples is not None:
                raise JetError(Err.IndexTuplesKeyTooSmall)
            if not flags & _EMPTY:
                return None
            if segment.fixed or not (segment.text or segment.binary):
                raise JetError(Err.InvalidBufferSize, "only variable text and binary can be empty")
            return "" if segment.text else b""
        if segment.text and isinstance(value, str):
            if segment.fixed:
                value = _padded(segment, value)
            if tuples is not None:
                return _tuple_piece(segment, value, tuples.min, tuples.max)
        elif segment.binary and segment.fixed and len(value) != segment.max:
            raise JetError(Err.InvalidBufferSize, f"the column has {segment.max} bytes")
        return value

    def _limited(self, segment: SegmentSpec, value: Any, part: bytes, most: int, flags: int) -> bytes:
        """The segment with its limit; `most` is the room for it, with the byte that only limits may use."""
        options = flags & _LIMITS
        to_the_end = bool(flags & _END)
        if options & _PARTIAL:
            partial = True
        elif options:
            partial = False
        elif flags & _SUBSTRING and segment.text:
            partial = to_the_end = True
        elif flags & _STRING:
            # only a binary's end mark makes way: after a whole text, everything that follows it in the index is meant
            partial, to_the_end = not segment.text, True
        else:
            return part
        self.limit = True
        if partial and segment.text and len(part) > 1:
            upper_case = self.maker is not None and self.maker.spec.lcmap_flags == UPPERCASE
            part = part[: _text_end(segment, part, upper_case)]
        elif partial and segment.binary and not segment.fixed and value:
            end = data_end(value, len(part))
            if end:
                return part[:end] + _FILL * (len(part) + 1 - end) if to_the_end else part[:end]
        return part.ljust(most, _FILL) if to_the_end else part


def _padded(segment: SegmentSpec, value: str) -> str:
    size = 2 * len(utf16_units(value)) if segment.unicode else len(to_code_page(value))
    if size > segment.max:
        raise JetError(Err.InvalidBufferSize, f"the column has {segment.max} bytes")
    return value + " " * ((segment.max - size) // (2 if segment.unicode else 1))


def _tuple_piece(segment: SegmentSpec, value: str, least: int, most: int) -> str:
    text = "".join(map(chr, utf16_units(value))) if segment.unicode else value
    if len(text) < least:
        raise JetError(Err.IndexTuplesKeyTooSmall, f"{least} characters at least")
    return text[:most]


def _text_end(segment: SegmentSpec, part: bytes, upper_case: bool) -> int:
    """Where the letters of a text segment end: Unicode's accents and the mark that ends a text do not count."""
    if segment.unicode and upper_case:  # no weights but letters of two bytes; where ESE looks for the 01 all the same
        terminator = b"\xff\xff" if segment.descending else b"\0\0"
        return len(part) - 2 * part.endswith(terminator)
    if segment.unicode:  # the first such byte, even where it is part of a letter's weight: so does ESE
        mark = b"\xfe" if segment.descending else b"\x01"
        end = part.find(mark, 1)
        return end if end > 0 else len(part)
    terminator = b"\xff" if segment.descending else b"\x00"
    return len(part) - part.endswith(terminator)
