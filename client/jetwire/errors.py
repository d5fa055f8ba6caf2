"""What can go wrong, as exceptions that say whose fault it is.

Every error of the engine has a class of its own here under its documented name without `JET_err`:

    from jetwire.errors import KeyDuplicate

    try:
        await table.insert(record)
    except KeyDuplicate:
        ...

They derive from `EngineError`, which derives from `JetwireError`. `retryable` says whether the same work may succeed if
the whole transaction is tried again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jetwire_protocol.errors import JetError

if TYPE_CHECKING:
    from jetwire.data.engine_errors import *  # noqa: F403

__all__ = ["ConnectionLost", "EngineError", "HandleDead", "JetwireError", "RpcError", "ValueCut", "error_for"]


class JetwireError(Exception):
    """The base of everything that this package raises."""


class ConnectionLost(JetwireError):
    """The connection is gone. Calls under way may or may not have been carried out; the sessions are over."""


class HandleDead(JetwireError):
    """A session, database or table object was used after it was closed, or after its connection was lost."""


class ValueCut(UserWarning):
    """A value was longer than its column and was cut, as the engine does (JET_wrnColumnMaxTruncated)."""


# What an error object says of itself and a line for people has said already, or does not need.
_NOT_SAID_AGAIN = frozenset({"description", "member", "results"})


class RpcError(JetwireError):
    """The server refused the call itself: its shape, its size, or the caller's rights."""

    def __init__(self, code: int, message: str, data: dict[str, Any]) -> None:
        super().__init__(code, message, data)
        self.code = code
        self.message = message
        self.data = data

    def __str__(self) -> str:
        said = ": ".join(str(self.data[name]) for name in ("member", "description") if self.data.get(name))
        facts = ", ".join(f"{name}={value}" for name, value in self.data.items() if name not in _NOT_SAID_AGAIN)
        return ": ".join(filter(None, (f"{self.message} ({self.code})", said, facts)))


class EngineError(JetError, JetwireError):
    """An error of the engine: `code`, `name`, `category`, `detail`, `retryable`; `data` is what else the server said."""

    @property
    def retryable(self) -> bool:
        return bool(self.data.get("retryable", False))

    def __reduce__(self) -> tuple[Any, ...]:
        return error_for, (self.code, self.name, {**self.data, "description": self.detail})


if not TYPE_CHECKING:  # or every misspelt name would pass the type checker

    def __getattr__(name: str) -> type[EngineError]:
        """The engine's errors; there are hundreds, so they are made when the first one is asked for."""
        if not name.startswith("_"):
            from jetwire.data import engine_errors

            kind = vars(engine_errors).get(name)
            if isinstance(kind, type) and issubclass(kind, EngineError):
                return kind
        raise AttributeError(f"no engine error is called {name}")


def error_for(code: int, message: str, data: dict[str, Any]) -> JetwireError:
    """The exception for an error object of the wire."""
    if -32768 <= code <= -32000:
        return RpcError(code, message, data)
    from jetwire.data.engine_errors import BY_CODE

    facts = {name: value for name, value in data.items() if name not in ("description", "category", "code", "detail")}
    return BY_CODE.get(code, EngineError)(code, data.get("description", ""), **facts)
