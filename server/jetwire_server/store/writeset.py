"""What a transaction has written and nobody else has seen: per tree a dictionary, and a way back to every save point.

An entry is the new value, None for a deletion, or `Deltas`: adds to integers inside a value that belongs to all.
"""

from __future__ import annotations

from jetwire_protocol.errors import Err, JetError


class Deltas(tuple[tuple[int, int, int], ...]):
    """Adds on one value: (offset, size, delta), one for each place."""

    __slots__ = ()

    def plus(self, offset: int, size: int, delta: int) -> Deltas:
        """These and one more; a second add to the same place sums up and wraps as the place does: the log takes no larger number."""
        for i, (o, s, d) in enumerate(self):
            if o == offset and s == size:
                return Deltas((*self[:i], (o, s, wrapped(d + delta, size)), *self[i + 1 :]))
        return Deltas((*self, (offset, size, delta)))


Entry = bytes | Deltas | None


class _Missing:
    """No entry at all: the transaction has not written this key."""

    __slots__ = ()


MISSING = _Missing()  # nor locked it: the first write takes the lock
HELD = _Missing()


def integer_at(value: bytes, offset: int, size: int) -> int:
    if offset < 0 or size not in (1, 2, 4, 8) or offset + size > len(value):
        raise JetError(Err.InvalidParameter, f"no integer of {size} bytes at {offset} in a value of {len(value)}")
    return int.from_bytes(value[offset : offset + size], "little", signed=True)


def wrapped(number: int, size: int) -> int:
    """As a signed integer of so many bytes keeps it."""
    number &= (1 << size * 8) - 1
    return number - (1 << size * 8) if number >> (size * 8 - 1) else number


def made_whole(value: bytes | None, deltas: Deltas) -> bytes | None:
    """The value with the deltas added, each wrapping at its size."""
    if value is None:
        return None
    out = bytearray(value)
    for offset, size, delta in deltas:
        total = int.from_bytes(out[offset : offset + size], "little") + delta
        out[offset : offset + size] = (total & ((1 << size * 8) - 1)).to_bytes(size, "little")
    return bytes(out)
