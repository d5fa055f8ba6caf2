"""The smallest thing that answers as a server without sessions: the protocol and a table of two kinds of methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jetwire_protocol import jsonrpc
from jetwire_protocol.declarations import METHOD_BY_NAME
from jetwire_protocol.errors import Err, JetError
from jetwire_protocol.jsonrpc import Call, Message, RpcError
from jetwire_protocol.validate import validator

Run = Callable[[str, Any], Any]


def engineless(name: str, params: Any) -> Any:
    method = METHOD_BY_NAME.get(name)
    if method is None:
        raise RpcError(jsonrpc.METHOD_NOT_FOUND)
    checked = validator(method)(params)
    if "sesid" in checked:
        raise JetError(Err.InvalidSesid)
    return {}


def answer(data: bytes, run: Run = engineless) -> bytes | None:
    """The whole answer to one message, or None where there is none."""
    message = jsonrpc.decode(data)
    if isinstance(message, list):
        answers = [one for item in message if (one := _one(item, run)) is not None]
        return jsonrpc.encode_batch(answers) if answers else None
    return _one(message, run)


def _one(message: Message, run: Run) -> bytes | None:
    if not isinstance(message, Call):
        return jsonrpc.encode_refusal(message)
    try:
        reply = jsonrpc.encode_result(message.id, run(message.method, message.params))
    except RpcError as error:
        reply = jsonrpc.encode_error(message.id, error.code, error.message, error.data)
    except JetError as error:
        reply = jsonrpc.encode_error(message.id, error.code, error.name, {})
    return None if message.id is jsonrpc.NO_ID else reply
