"""Segments of text columns: under a code page the upper-cased bytes, under Unicode the Windows sort key (`sortkey.py`)."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Final

from jetwire_server.keys.fixed import PREFIX_DATA, PREFIX_EMPTY
from jetwire_server.keys.sortkey import SortKeys, utf16_units
from jetwire_server.limits import KEY_BYTES_DEFAULT

TextSegment = Callable[[str, int], tuple[bytes, bool]]
_UNDEFINED_IN_1252: Final = "\x81\x8d\x8f\x90\x9d"  # Python has no such bytes, Windows passes them through


def _like_windows(error: UnicodeError) -> tuple[bytes, int]:
    """Code page 1252 as Windows writes it: five C1 controls as they are, a question mark for what it cannot hold."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    return bytes(ord(c) if c in _UNDEFINED_IN_1252 else 0x3F for c in bad), error.end


codecs.register_error("jetwire-1252", _like_windows)


def to_code_page(value: str) -> bytes:
    return value.encode() if value.isascii() else value.encode("cp1252", "jetwire-1252")


def code_page_segment(part_most: int) -> TextSegment:
    """Segments of one-byte text. Too long a text fills its room to the last byte, without the NUL that ends it elsewhere."""

    def segment(value: str, room: int) -> tuple[bytes, bool]:
        data = to_code_page(value)
        if "\x00" in value:
            data = data[: data.index(0)]
        most = min(room, part_most) - 1
        if len(data) < most:
            return b"\x7f%b\x00" % data.upper(), False  # bytes.upper() changes ASCII letters only, as ESE does
        if not most:
            return PREFIX_DATA, room < part_most
        # ESE takes 0x20 off the byte at the cut, letter or not; its indexes are sorted by that
        return b"\x7f%b%c" % (data[: most - 1].upper(), data[most - 1] - 0x20 & 0xFF), room < part_most

    return segment


def code_page_key(null: bytes, room: int, part_most: int) -> Callable[[str | None], bytes]:
    """Whole keys of one ascending column of one-byte text."""
    segment = code_page_segment(part_most)
    most = min(room, part_most) - 1

    def key(value: str | None) -> bytes:
        if value is None:
            return null
        if value.isascii() and 0 < len(value) < most and "\x00" not in value:  # nearly always, so in one step
            return b"\x7f%b\x00" % value.upper().encode()
        return segment(value, room)[0] if value else PREFIX_EMPTY

    return key


def unicode_segment(sort_keys: SortKeys, key_most: int, part_most: int) -> TextSegment:
    """Segments of Unicode text. Sort keys are not prefixes of one another, so how much text is mapped matters:

    a key of 255 bytes never sees more than 255 bytes of text; any other sees as much as its own size, doubled until it is full.
    """

    def segment(value: str, room: int) -> tuple[bytes, bool]:
        most = min(room, part_most)
        limit = key_most
        if value.isascii():
            text: bytes | tuple[int, ...] = value.encode()
            make: Callable[..., bytes | bytearray] = sort_keys.ascii
        else:
            text, make = utf16_units(value), sort_keys.units
        while True:
            key = make(text[: limit // 2])
            if 2 * len(text) <= limit or key_most == KEY_BYTES_DEFAULT or len(key) + 1 >= most:
                break
            limit *= 2
        if len(key) < most:
            return PREFIX_DATA + key, False
        return PREFIX_DATA + key[: most - 1], room < part_most

    return segment
