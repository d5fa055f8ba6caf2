"""Segments of binary columns. A variable one is cut into chunks of 8 bytes, each followed by a marker: 9 if more follows,
otherwise how many of its bytes count. So a value sorts before its own extensions, and a following segment cannot be mistaken for it.
"""

from __future__ import annotations

from typing import Final

from jetwire_server.keys.fixed import PREFIX_DATA

CHUNK: Final = 8
CHUNK_KEY: Final = CHUNK + 1
MORE: Final = b"\x09"
_END: Final = tuple(bytes(CHUNK - n) + bytes([n]) for n in range(CHUNK + 1))  # zero padding and marker after n bytes


def chunked(data: bytes, room: int, part_most: int) -> tuple[bytes, bool]:
    """The segment of a variable binary value (not empty) in at most `room` bytes, and whether lack of room cut it.

    `part_most` is the index's VarSegMac: cutting there is on purpose, and does not count as a truncated key.
    """
    whole = (len(data) + CHUNK - 1) // CHUNK * CHUNK_KEY + 1
    size = min(whole, part_most, room)
    if size == whole:
        if len(data) <= CHUNK:
            return PREFIX_DATA + data + _END[len(data)], False
        chunks = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
        return PREFIX_DATA + MORE.join(chunks) + _END[len(chunks[-1])], False
    full, tail = divmod(size - 1, CHUNK_KEY)  # the last chunk is never among the full ones, so each is marked "more"
    parts = [PREFIX_DATA, *(data[i : i + CHUNK] + MORE for i in range(0, full * CHUNK, CHUNK))]
    parts.append(data[full * CHUNK : full * CHUNK + tail].ljust(tail, b"\x00"))
    return b"".join(parts), room < min(whole, part_most)


def data_end(data: bytes, segment_size: int) -> int:
    """Where in its segment the data of a variable binary value ends; 0 if the segment was cut before that."""
    full, tail = divmod(segment_size - 1, CHUNK_KEY)
    left = len(data) - full * CHUNK
    if left <= 0:  # complete: the last of the full chunks is the value's last
        return 1 + (full - 1) * CHUNK_KEY + left + CHUNK
    return 1 + full * CHUNK_KEY + left if left < tail else 0


def raw(data: bytes, room: int, part_most: int) -> tuple[bytes, bool]:
    """The segment of a fixed binary column: its bytes as they are."""
    wanted = min(len(data) + 1, part_most)
    return (PREFIX_DATA + data)[: min(wanted, room)], room < wanted


def unchunk(body: bytes) -> tuple[bytes, int] | None:
    """The value at the start of an ascending body, and how many bytes it took; None if it was cut short."""
    for end in range(CHUNK_KEY, len(body) + 1, CHUNK_KEY):
        marker = body[end - 1]
        if marker <= CHUNK:
            chunks = [body[i : i + CHUNK] for i in range(0, end, CHUNK_KEY)]
            chunks[-1] = chunks[-1][:marker]
            return b"".join(chunks), end
    return None
