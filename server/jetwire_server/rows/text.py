"""The last bytes of a row, its text: the values that have no slot, as JSON, with holes between them.

    %b"first value"%b"second"%b["a","multi-value"]%b

It is a template. Formatted with the column names, `row[n:] % (b'{"a":', b',"b":', b',"c":', b'}')`, it is a JSON object to hand
on; with the ids for names it is one to decode; with line feeds it can be split, for a line feed never stands in JSON written
without spaces. Each is one call into C, whatever the lengths. That is why the values keep their JSON escapes in the row,
and why a per cent sign in a value is written as its escape: a bare one is always a hole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import msgspec

from jetwire_server.rows.columns import CompiledColumn, LongRef

HOLE: Final = b"%b"
PERCENT: Final = b"\\u0025"
_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines
_decode = msgspec.json.Decoder().decode
_decode_values = msgspec.json.Decoder(dict[int, Any]).decode
decode_plain_texts: Final = msgspec.json.Decoder(dict[int, str]).decode  # a text by id; raises ValueError for a lone surrogate
decode_named_texts: Final = msgspec.json.Decoder(dict[str, str]).decode
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def tuple_decoder(kinds: tuple[type, ...]) -> Callable[[bytes], tuple[Any, ...]]:
    """Decodes a JSON array of just so many values of these kinds (str, or bytes in base64); raises ValueError for anything else."""
    return msgspec.json.Decoder(tuple[kinds]).decode  # type: ignore[valid-type]


def join_pieces(pieces: Sequence[bytes]) -> bytes:
    """A row's text of these values; of none, it is empty."""
    return HOLE + HOLE.join(pieces) + HOLE if pieces else b""


def join_plain(values: Sequence[Any], percent: bool) -> bytes:
    """`join_pieces` of values (at least one) that JSON can say as they are; `percent`: one may contain a per cent sign.

    Raises UnicodeEncodeError for a lone surrogate.
    """
    lines = _encode_lines([*values])  # of all but a list it keeps the iterator for ever: 64 bytes a row
    if percent:
        lines = lines.replace(b"%", PERCENT)
    return HOLE + lines.replace(b"\n", HOLE)


def line_feeds(count: int) -> tuple[bytes, ...]:
    """What formats a text of `count` values into lines."""
    return (b"", *[b"\n"] * (count - 1), b"") if count else ()


def split_pieces(text: bytes, feeds: tuple[bytes, ...]) -> list[bytes]:
    """The values of a row's text, as JSON. Raises TypeError or ValueError if they are not as many as `line_feeds` was told."""
    if not feeds:
        if text:
            raise ValueError("bytes beyond the last slot")
        return []
    pieces = (text % feeds).split(b"\n")
    if len(pieces) != len(feeds) - 1:
        raise ValueError("a line feed in the text")
    return pieces


def piece_at(row: bytes, text: int, index: int, count: int) -> bytes:
    """One of the `count` values of the text that begins at `text`, as JSON. Raises ValueError or IndexError if there is none."""
    if index > 3:
        return row[text:].split(b"%", index + 2)[index + 1][1:]
    for _ in range(index):
        text = row.index(b"%", text + 1)
    begin, end = text + 2, row.index(b"%", text + 1)
    return row[begin : max(begin, end)]  # compiled, a slice that ends before it begins is an error, and a damaged row may have one


def encode_piece(column: CompiledColumn, value: Any) -> bytes:
    """A value as JSON. Raises TypeError, struct.error or OverflowError if the type cannot hold it."""
    plain = [_plain(column, v) for v in value] if isinstance(value, list) else _plain(column, value)
    return encode_json(plain).replace(b"%", PERCENT)


def encode_json(plain: Any) -> bytes:
    """JSON without spaces; a lone surrogate, which UTF-16 allows and UTF-8 does not, as its escape."""
    try:
        return _encode(plain)
    except UnicodeEncodeError:
        loose = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", loose).encode()


def _plain(column: CompiledColumn, value: Any) -> Any:
    if type(value) is LongRef:
        if not column.type.separable:
            raise TypeError("only a long text or binary can be separated")
        return {"long": value.id, "size": value.size}
    return column.type.encode(value)


def decode_json(data: bytes) -> Any:
    """Raises ValueError (of which UnicodeDecodeError and msgspec's errors are) if it is no JSON."""
    try:
        return _decode(data)
    except msgspec.DecodeError:  # malformed, or a lone surrogate
        return json.loads(data.decode(), parse_constant=_no_constant)


def decode_values(data: bytes) -> dict[int, Any]:
    """A JSON object with ids for names. Raises ValueError if it is something else."""
    try:
        return _decode_values(data)
    except msgspec.DecodeError:
        return {int(name): value for name, value in json.loads(data.decode(), parse_constant=_no_constant).items()}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def decode_value(column: CompiledColumn, plain: Any) -> Any:
    """What `encode_piece` was given, from its decoded JSON. Raises TypeError, ValueError, struct.error for anything else."""
    if type(plain) is list:
        if len(plain) < 2:
            raise ValueError("a list of fewer than two values")
        return [_value(column, v) for v in plain]
    return _value(column, plain)


def _value(column: CompiledColumn, plain: Any) -> Any:
    if type(plain) is dict:
        if not column.type.separable or plain.keys() != {"long", "size"} or not all(type(v) is int for v in plain.values()):
            raise ValueError("not a reference to a long value")
        return LongRef(plain["long"], plain["size"])
    return column.type.decode(plain)
