"""Values back from keys. Text cannot come back (its case is gone), nor can what was cut at the limit."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

from jetwire_server.keys import fixed
from jetwire_server.keys.binary import unchunk
from jetwire_server.keys.levels import UPPERCASE, letters_end
from jetwire_server.keys.spec import KeySpec, SegmentSpec


class NotDecodable(Enum):
    """Stands for a value the key does not hold whole."""

    NOT_DECODABLE = "not decodable"

    def __repr__(self) -> str:
        return self.name


NOT_DECODABLE: Final = NotDecodable.NOT_DECODABLE


def decode(spec: KeySpec, key: bytes, nulls_high: bool, dot_net_guid: bool) -> list[Any]:
    """The values of a key, one for each segment of the index.

    From the first segment that is cut, everything is NOT_DECODABLE. Raises ValueError if it is no key of this index.
    """
    values, start = decode_start(spec.segments, spec, key, nulls_high, dot_net_guid)
    if start < len(key):
        raise ValueError("the key is longer than its segments")
    return values


def decode_start(segments: Sequence[SegmentSpec], spec: KeySpec, key: bytes, nulls_high: bool, dot_net_guid: bool) -> tuple[list[Any], int]:
    """The values of an index's first segments, and where in the key they end."""
    null = (fixed.PREFIX_NULL_HIGH if nulls_high else fixed.PREFIX_NULL)[0]
    values: list[Any] = []
    start = 0
    for segment in segments:
        if start >= len(key):
            values.append(NOT_DECODABLE)
            continue
        rest = key[start:].translate(fixed.COMPLEMENT) if segment.descending else key[start:]
        if rest[0] == null:
            value, size = None, 1
        elif rest[0] == fixed.PREFIX_EMPTY[0] and (segment.text or segment.binary):
            value, size = ("" if segment.text else b""), 1
        elif rest[0] == fixed.PREFIX_DATA[0]:
            value, size = _data(spec, segment, rest, dot_net_guid)
        else:
            raise ValueError(f"no segment begins with {rest[0]:#04x}")
        values.append(value)
        start += size
    return values, start


def _data(spec: KeySpec, segment: SegmentSpec, rest: bytes, dot_net_guid: bool) -> tuple[Any, int]:
    """The value at the start of an ascending segment, and the segment's size."""
    lost = NOT_DECODABLE, len(rest)
    if segment.text:
        return NOT_DECODABLE, _text_size(spec, segment, rest)
    if segment.binary and not segment.fixed:
        found = unchunk(rest[1 : spec.var_seg_mac or None])
        if found is not None:
            return found[0], 1 + found[1]
        return NOT_DECODABLE, spec.var_seg_mac or len(rest)
    whole = 1 + (segment.max if segment.binary else fixed.BODY_SIZE[segment.coltyp])
    if segment.binary and 0 < spec.var_seg_mac < whole:
        return NOT_DECODABLE, spec.var_seg_mac
    if len(rest) < whole:
        return lost
    body = rest[1:whole]
    return (body if segment.binary else fixed.decoder(segment.coltyp, dot_net_guid)(body)), whole


def _text_size(spec: KeySpec, segment: SegmentSpec, rest: bytes) -> int:
    """How long a text segment is: to its end mark, or as far as it was allowed to go."""
    most = spec.var_seg_mac or len(rest)
    if not segment.unicode:
        end = rest.find(b"\x00", 1)
        return min(end + 1 or len(rest), most)
    end, step = 1, 2
    if spec.lcmap_flags != UPPERCASE:
        end = letters_end(rest)
        for _ in range(4):  # the ends of the letters, the accents, the case and the kana
            end = rest.find(b"\x01", end) + 1
            if not end:
                return min(len(rest), most)
        step = 4  # what follows is made of four bytes each, until the end mark
    while end < len(rest):
        if not rest[end] and (step == 4 or not any(rest[end : end + 2])):
            return min(end + (1 if step == 4 else 2), most)
        end += step
    return min(len(rest), most)
