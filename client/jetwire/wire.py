"""JSON-RPC as the client speaks it, without I/O: calls to bytes, bytes to answers. Both twins stand on this."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from jetwire.errors import ConnectionLost, JetwireError, RpcError, error_for

TOO_LARGE = -32004
LARGE_BYTES = 64 * 1024  # messages above this are remembered by their size until they are answered


class _Request(Struct):
    method: str
    params: dict[str, Any]
    id: int
    jsonrpc: str = "2.0"


class _ErrorObject(Struct):
    code: int
    message: str = ""
    data: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """For people: what the server says happened, not only what it is called."""
        description = self.data.get("description")
        return f"{self.message}: {description}" if description else self.message


class Answer(Struct):
    """What came from the server: an answer (it has an `id`), or a notification (it has a `method`)."""

    id: int | str | UnsetType | None = UNSET
    result: Any = None
    error: _ErrorObject | None = None
    method: str | None = None
    params: Any = None

    @property
    def message_limit(self) -> int | None:
        """If this says that a message was too large to be read (so that its call is not known): how large it might be."""
        if self.error is None or self.error.code != TOO_LARGE or self.error.data.get("limit") != "message":
            return None
        limit = self.error.data.get("max")
        return limit if isinstance(limit, int) else None

    def value(self) -> Any:
        """The result, or the error raised."""
        if self.error is None:
            return self.result
        raise error_for(self.error.code, self.error.message, self.error.data)


# What others derive classes of, whose own `str` or `int` may say something else.
_PLAIN: dict[type[Any], Callable[[Any], Any]] = {str: str.__str__, int: int.__int__, float: float.__float__, bytes: bytes.__bytes__}


def _encode_other(value: Any) -> Any:
    """What is a list to JSON; dates, GUIDs and bytes the encoder knows itself."""
    if isinstance(value, set | frozenset):
        return list(value)
    for kind, plain in _PLAIN.items():
        if isinstance(value, kind):
            return plain(value)
    raise TypeError(f"{type(value).__name__} is no value of a column or parameter")


_encode = msgspec.json.Encoder(enc_hook=_encode_other).encode
_decode = msgspec.json.Decoder(Answer).decode
_decode_batch = msgspec.json.Decoder(list[Answer]).decode


def encode_call(call_id: int, method: str, params: dict[str, Any]) -> bytes:
    try:
        return _encode(_Request(method, params, call_id))
    except (UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise JetwireError(f"{method!r:.50} cannot be sent, for something in it is not JSON: {error}") from error


def decode(data: bytes | str) -> list[Answer]:
    """One message: an answer, a notification, or a batch of answers."""
    try:
        return _decode_batch(data) if data[:1] in (b"[", "[") else [_decode(data)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if data[:5] in (b"HTTP/", "HTTP/"):
            raise JetwireError("what answers there is an HTTP server: its address begins with http:// or ws://") from error
        raise JetwireError(f"the server sent what is no JSON-RPC: {error}") from error


def decode_one(data: bytes) -> Answer:
    """The one answer that a body of HTTP is."""
    answers = decode(data)
    if len(answers) != 1:
        raise JetwireError(f"the server sent {len(answers)} answers to one call")
    return answers[0]


# What HTTP says before JSON-RPC is reached, as the protocol says it.
_HTTP_CODES = {401: -32001, 403: -32002, 413: TOO_LARGE}


def http_refusal(url: str, status: int, text: str) -> JetwireError:
    """The error of an answer that is not 200."""
    code = _HTTP_CODES.get(status)
    if code is None:
        return ConnectionLost(f"{url} answered {text}" if text.startswith(str(status)) else f"{url} answered {status} {text}")
    return RpcError(code, text or f"HTTP status {status}", {"status": status})


def no_http(url: str) -> ConnectionLost:
    """The error of an answer that is none of HTTP."""
    return ConnectionLost(f"{url}: what answers there is no HTTP server; the address of its other port begins with tcp://")


def unreachable(where: str, error: Exception) -> ConnectionLost:
    """The error of a connection that could not be made; a server that is there but not trusted is told from none."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConnectionLost(
            f"{where}: its certificate is not trusted: {error.verify_message}; SSL_CERT_FILE names the file of an authority of your own"
        )
    if isinstance(error, ssl.SSLError):
        return ConnectionLost(f"{where} does not speak TLS: {error.reason or error}")
    return ConnectionLost(f"no server at {where}: {str(error) or 'nobody answers'}")
