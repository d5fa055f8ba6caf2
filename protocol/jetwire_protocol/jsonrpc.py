"""The JSON-RPC 2.0 envelope without I/O: bytes in, calls or refusals out; results in, bytes out.

`decode` never raises. A message is a `Call` (a request, or a notification if it has no id), a `Refusal` (the answer to
something that is no valid request), or a list of both for a batch. An `id` that is no plain integer or string stays raw
JSON, so that it is echoed exactly as it came, whatever its number format.

    message = decode(b'{"jsonrpc":"2.0","id":1,"method":"Ping"}', LIMITS)
    answer = encode_result(message.id, {})
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct, UnsetType

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
NOT_AUTHENTICATED: Final = -32001
NOT_ALLOWED: Final = -32002
TOO_MANY: Final = -32003
TOO_LARGE: Final = -32004
SHUTTING_DOWN: Final = -32005
CANCELLED: Final = -32006

MESSAGES: dict[int, str] = {
    PARSE_ERROR: "Parse error",
    INVALID_REQUEST: "Invalid Request",
    METHOD_NOT_FOUND: "Method not found",
    INVALID_PARAMS: "Invalid params",
    INTERNAL_ERROR: "Internal error",
    NOT_AUTHENTICATED: "Not authenticated",
    NOT_ALLOWED: "Not allowed",
    TOO_MANY: "Too many",
    TOO_LARGE: "Too large",
    SHUTTING_DOWN: "Shutting down",
    CANCELLED: "Cancelled",
}

NO_ID: Final = msgspec.UNSET  # a notification: it is never answered
NULL_ID: Final = None
Id = int | str | None | Raw  # Raw: a number of another format, exactly as it came


class RpcError(Exception):
    """An error of the envelope or of the server itself, not of the engine. `data` names what it is about."""

    def __init__(self, code: int, **data: Any) -> None:
        super().__init__(code, data)
        self.code = code
        self.data = data

    @property
    def message(self) -> str:
        return MESSAGES[self.code]

    def __str__(self) -> str:
        return f"{self.message} ({self.code})" + (f": {self.data}" if self.data else "")


_ABSENT: Final = Raw(b"")


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What one message may weigh."""

    message_bytes: int = 8 << 20
    depth: int = 64
    elements: int = 100_000
    batch: int = 1_000


LIMITS = WireLimits()


class Call(Struct):
    """A request, or a notification: then `id` is `NO_ID`."""

    jsonrpc: Literal["2.0"]
    method: str
    id: int | str | UnsetType | None = NO_ID
    params: dict[str, Any] | list[Any] = {}


class _RawCall(Struct):
    """A call whose id is read as it stands."""

    jsonrpc: Literal["2.0"]
    method: str
    id: Raw = _ABSENT
    params: dict[str, Any] | list[Any] = {}


class Refusal(Struct):
    """The error that answers what cannot be called."""

    id: Id
    code: int
    data: dict[str, Any] | None = None


Message = Call | Refusal


class _Head(Struct):
    """The members of an object that may be a call, nothing assumed of them."""

    jsonrpc: Raw = _ABSENT
    method: Raw = _ABSENT
    id: Raw = _ABSENT
    params: Raw = _ABSENT


class _Answer(Struct, tag_field="jsonrpc", tag="2.0"):
    id: Id | UnsetType
    result: Any


class _ErrorAnswer(Struct, tag_field="jsonrpc", tag="2.0"):
    id: Id | UnsetType
    error: dict[str, Any]


class _Notice(Struct, tag_field="jsonrpc", tag="2.0"):
    method: str
    params: Any


_decode_call = msgspec.json.Decoder(Call).decode
_decode_raw_call = msgspec.json.Decoder(_RawCall).decode
_decode_head = msgspec.json.Decoder(_Head).decode
_decode_batch = msgspec.json.Decoder(list[Raw]).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_ID_BYTES = frozenset(b'"-0123456789n')  # a string, a number or null: what an id may begin with
_NOTHING: Final[dict[str, Any]] = {}
_EMPTY = re.compile(rb"\[\s*\]|\{\s*\}")


def decode(data: bytes, limits: WireLimits = LIMITS) -> Message | list[Message]:
    """Reads one message. Cheap for a plain valid request; whatever is odd about it is found out by `_judge`."""
    if len(data) > 2 * limits.depth and (refusal := oversize(data, limits)) is not None:
        return refusal
    try:
        call = _decode_call(data)
        if not data.isascii():
            data.decode()
        return call
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _judge(data, limits)


def _judge(data: bytes, limits: WireLimits) -> Message | list[Message]:
    """What a message is that is not a plain valid request: no JSON, a batch, or an invalid request."""
    try:
        data.decode()
        with suppress(msgspec.ValidationError):  # a number that no 64 bits hold: what comes after it has not been read yet
            _decode_any(data)
        return _read(data, limits)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Refusal(NULL_ID, PARSE_ERROR)
    except RecursionError:
        return Refusal(_readable_id(data), TOO_LARGE, {"limit": "depth", "max": limits.depth})


def _read(data: bytes, limits: WireLimits) -> Message | list[Message]:
    try:
        items = _decode_batch(data)
    except msgspec.ValidationError:
        return _single(data)
    if not items:
        return Refusal(NULL_ID, INVALID_REQUEST)
    if len(items) > limits.batch:
        return Refusal(NULL_ID, TOO_MANY, {"limit": "batch", "max": limits.batch})
    return [_single(bytes(item)) for item in items]


def _single(data: bytes) -> Message:
    """One item. `DecodeError` if it is no JSON after all."""
    with suppress(msgspec.ValidationError):
        return _decode_call(data)
    with suppress(msgspec.ValidationError):
        raw = _decode_raw_call(data)
        if raw.id is not _ABSENT and memoryview(raw.id)[0] in _ID_BYTES:
            call = Call("2.0", raw.method, params=raw.params)
            call.id = raw.id  # type: ignore[assignment]
            return call
        return Refusal(NULL_ID, INVALID_REQUEST)
    try:
        head = _decode_head(data)
    except msgspec.ValidationError:
        return Refusal(NULL_ID, INVALID_REQUEST)
    number_out_of_range = _is_version(head.jsonrpc) and bytes(head.method)[:1] == b'"' and bytes(head.params)[:1] in (b"{", b"[")
    if number_out_of_range:
        if head.id is _ABSENT:
            return Call("2.0", "")  # never answered: it stays so by a method that no table has
        return Refusal(_echo(head.id), INVALID_PARAMS, {"description": "a number does not fit 64 bits"})
    return Refusal(_echo(head.id), INVALID_REQUEST)


def _is_version(raw: Raw) -> bool:
    return bytes(raw)[:1] == b'"' and _decode_any(raw) == "2.0"


def _echo(raw: Raw) -> Id:
    """The id as it stands if it is one, else null."""
    return raw if raw is not _ABSENT and memoryview(raw)[0] in _ID_BYTES else NULL_ID


def _readable_id(data: bytes) -> Id:
    try:
        return _echo(_decode_head(data).id)
    except (msgspec.DecodeError, RecursionError):
        return NULL_ID


def oversize(data: bytes, limits: WireLimits) -> Refusal | None:
    """Bytes, depth and elements, counted before anything is built from them."""
    if len(data) > limits.message_bytes:
        return Refusal(NULL_ID, TOO_LARGE, {"limit": "message", "max": limits.message_bytes})
    brackets = data.count(b"[") + data.count(b"{")
    many = brackets + data.count(b",") > limits.elements
    if brackets <= limits.depth and not many:
        return None
    bare = _without_strings(data)
    if many:
        elements = bare.count(b",") + bare.count(b"[") + bare.count(b"{") - len(_EMPTY.findall(bare))
        if elements > limits.elements:
            return Refusal(_readable_id(data), TOO_LARGE, {"limit": "elements", "max": limits.elements})
    # Each round takes the innermost pairs away, so the rounds are the depth; all in C, whatever the shape.
    left = bare.translate(None, delete=_NO_BRACKETS).replace(b"{", b"[").replace(b"}", b"]")
    for _ in range(limits.depth):
        shorter = left.replace(b"[]", b"")
        if len(shorter) == len(left):
            break
        left = shorter
    if b"[]" in left or left.count(b"[") > limits.depth:
        return Refusal(_readable_id(data), TOO_LARGE, {"limit": "depth", "max": limits.depth})
    return None


_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def _without_strings(data: bytes) -> bytes:
    """The message with one quote in the place of each string: what is left is structure, numbers and words."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b'"'.join(data.split(b'"')[::2])


def encode_result(id_: Id | UnsetType, result: Any) -> bytes:
    """The answer of a call that succeeded. Values that are JSON already may stand in it as `msgspec.Raw`."""
    if type(id_) is int and result == _NOTHING:
        return b'{"jsonrpc":"2.0","id":%d,"result":{}}' % id_
    return _encode(_Answer(id_, result))


def encode_error(id_: Id | UnsetType, code: int, message: str, data: dict[str, Any] | None = None) -> bytes:
    """The answer of a call that failed."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data:
        error["data"] = data
    return _encode(_ErrorAnswer(id_, error))


def encode_refusal(refusal: Refusal) -> bytes:
    return encode_error(refusal.id, refusal.code, MESSAGES[refusal.code], refusal.data)


def encode_notification(method: str, params: Any) -> bytes:
    return _encode(_Notice(method, params))


def encode_batch(answers: list[bytes]) -> bytes:
    """The answer of a batch from its answers; of one with nothing to answer there is none, so do not ask."""
    return b"[" + b",".join(answers) + b"]"
