"""The last bytes of a row, its text: the values that have no slot, as JSON, with holes between them.

    %b"first value"%b"second"%b["a","multi-value"]%b

It is a template. Formatted with the column names, `row[n:] % (b'{"a":', b',"b":', b',"c":', b'}')`, it is a JSON object; formatted
with `[`, commas and `]` it is an array to decode; with line feeds it can be split, for a line feed never stands in JSON written
without spaces. Each is one call into C, whatever the lengths. That is why the values keep their JSON escapes in the row,
and why a per cent sign in a value is written as its escape: a bare one is always a hole.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import msgspec

from jetwire_server.rows.columns import ColumnType, LongRef

HOLE: Final = b"%b"
_PERCENT = b"\\u0025"
_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines
_decode = msgspec.json.Decoder().decode
_decode_texts = msgspec.json.Decoder(list[str]).decode
_SURROGATE = re.compile("[\ud800-\udfff]")


def join_pieces(pieces: Sequence[bytes]) -> bytes:
    """A row's text of these values; of none, it is empty."""
    return HOLE + HOLE.join(pieces) + HOLE if pieces else b""


def join_texts(texts: Sequence[str]) -> bytes:
    """`join_pieces` of plain texts (at least one), in few calls. Raises TypeError if one is no str, and UnicodeEncodeError if one
    has a lone surrogate."""
    percent = "%" in "".join(texts)  # joining them also checks that they are texts
    lines = _encode_lines(texts)
    if percent:
        lines = lines.replace(b"%", _PERCENT)
    return HOLE + lines.replace(b"\n", HOLE)


def split_pieces(text: bytes, count: int) -> list[bytes]:
    """The `count` values of a row's text, as JSON. Raises TypeError or ValueError if it has another number of them."""
    if not count:
        if text:
            raise ValueError("a text without a value")
        return []
    pieces = (text % (b"", *[b"\n"] * (count - 1), b"")).split(b"\n")
    if len(pieces) != count:
        raise ValueError("a line feed in the text")
    return pieces


def piece_at(text: bytes, index: int, count: int) -> bytes:
    """One of the values, as JSON, from whichever end is nearer."""
    if index * 2 < count:
        return text.split(b"%", index + 2)[index + 1][1:]
    return text.rsplit(b"%", count - index + 1)[1][1:]


def encode_piece(kind: ColumnType, value: Any) -> bytes:
    """A value as JSON. Raises TypeError, ValueError or an arithmetic error if the type cannot hold it."""
    if isinstance(value, list):
        plain: Any = [_plain(kind, v) for v in value]
    else:
        plain = _plain(kind, value)
    return encode_json(plain).replace(b"%", _PERCENT)


def encode_json(plain: Any) -> bytes:
    """JSON without spaces; a lone surrogate, which UTF-16 allows and UTF-8 does not, as its escape."""
    try:
        return _encode(plain)
    except UnicodeEncodeError:
        loose = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", loose).encode()


def _plain(kind: ColumnType, value: Any) -> Any:
    if isinstance(value, LongRef):
        if not kind.separable:
            raise TypeError("only a long text or binary can be separated")
        return {"long": value.id, "size": value.size}
    return kind.to_json(kind.checked(value))


def decode_json(data: bytes) -> Any:
    """Raises ValueError (of which UnicodeDecodeError and msgspec's errors are) if it is no JSON."""
    try:
        return _decode(data)
    except msgspec.DecodeError:  # malformed, or a lone surrogate
        return json.loads(data.decode(), parse_constant=_no_constant)


def decode_texts(data: bytes) -> list[str]:
    """An array of texts. Raises ValueError if it is something else."""
    try:
        return _decode_texts(data)
    except msgspec.DecodeError:
        texts = decode_json(data)
        if isinstance(texts, list) and all(type(t) is str for t in texts):
            return texts
        raise


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def decode_value(kind: ColumnType, plain: Any) -> Any:
    """What `encode_piece` was given, from its decoded JSON. Raises TypeError or ValueError for anything else."""
    if type(plain) is list:
        if not plain:
            raise ValueError("a list of no values")
        return [_value(kind, v) for v in plain]
    return _value(kind, plain)


def _value(kind: ColumnType, plain: Any) -> Any:
    if type(plain) is dict:
        if not kind.separable or plain.keys() != {"long", "size"} or not all(type(v) is int for v in plain.values()):
            raise ValueError("not a reference to a long value")
        return LongRef(plain["long"], plain["size"])
    return kind.checked(kind.from_json(plain))


def value_json(kind: ColumnType, value: Any) -> bytes:
    """A whole value (never a LongRef) as the JSON a client sees."""
    if isinstance(value, bytes | bytearray | memoryview):
        return b'"' + b64encode(value) + b'"'
    return encode_json(kind.to_json(kind.checked(value)))
