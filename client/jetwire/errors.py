"""What can go wrong, as exceptions that say whose fault it is.

Every error of the engine has a class of its own in `jetwire.errors` under its documented name without `JET_err`:

    try:
        await table.insert(record)
    except jetwire.errors.KeyDuplicate:
        ...

They derive from `EngineError`, which derives from `JetwireError`. `retryable` says whether the same work may succeed if
the whole transaction is tried again.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from jetwire_protocol.errors import Err, JetError

__all__ = ["ConnectionLost", "EngineError", "HandleDead", "JetwireError", "RpcError", "error_for"]


class JetwireError(Exception):
    """The base of everything that this package raises."""


class ConnectionLost(JetwireError):
    """The connection is gone. Calls under way may or may not have been carried out; the sessions are over."""


class HandleDead(JetwireError):
    """A session, database or table object was used after it was closed, or after its connection was lost."""


class RpcError(JetwireError):
    """The server refused the call itself: its shape, its size, or the caller's rights."""

    def __init__(self, code: int, message: str, data: dict[str, Any]) -> None:
        super().__init__(f"{message} ({code})" + (f": {data}" if data else ""))
        self.code = code
        self.data = data


class EngineError(JetError, JetwireError):
    """An error of the engine: `code`, `name`, `category`, `detail`, `retryable`."""

    @property
    def retryable(self) -> bool:
        return bool(self.data.get("retryable", False))


@cache
def _class_of(code: int) -> type[EngineError]:
    try:
        return type(Err(code).name, (EngineError,), {"__doc__": f"JET_err{Err(code).name} ({code})"})
    except ValueError:
        return EngineError


def __getattr__(name: str) -> type[EngineError]:
    """`jetwire.errors.KeyDuplicate` and all the others, by their documented names."""
    try:
        return _class_of(Err[name])
    except KeyError:
        raise AttributeError(f"no engine error is called {name}") from None


def error_for(code: int, message: str, data: dict[str, Any]) -> JetwireError:
    if -32768 <= code <= -32000:
        return RpcError(code, message, data)
    detail = data.get("description", "")
    return _class_of(code)(code, detail, **{k: v for k, v in data.items() if k not in ("description", "category")})
