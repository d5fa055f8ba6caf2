"""The method table with a handler beside each method, and what an exception looks like on the wire.

A handler is a function `(peer, params) -> result`, plain or async; plain is faster and preferred where nothing is
awaited. It is registered by the method's name:

    @handles("GetBookmark")
    def get_bookmark(peer: Peer, params: Params) -> dict[str, Any]: ...
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jetwire_protocol import jsonrpc
from jetwire_protocol.declarations import METHODS, ROLES, Method, may_call
from jetwire_protocol.errors import Err, JetError
from jetwire_protocol.jsonrpc import RpcError
from jetwire_protocol.validate import Mismatch, Params, Validator, validator

if TYPE_CHECKING:
    from jetwire_server.rpc.peer import Peer

Handler = Callable[["Peer", Params], Any]

log = logging.getLogger(__name__)

HANDLERS: dict[str, Handler] = {}

# Methods that a connection may call before it has authenticated.
BEFORE_AUTHENTICATION = frozenset({"Hello"})

# Groups whose handlers are begun without a task of their own: most end without ever waiting. Code that is begun so
# must not use asyncio.timeout or a task group before its first real wait; the groups left out may.
STARTED_AT_ONCE = frozenset({"session", "transaction", "table", "temp_table", "column", "index", "cursor", "record", "jetwire", "misc"})

COMMITTING = frozenset({"CommitTransaction", "PutRecords", "Batch"})

# What may succeed if it is tried again, by whom it was refused.
RETRYABLE = frozenset(
    {
        *(Err.WriteConflict, Err.VersionStoreOutOfMemory, Err.OutOfSessions, Err.OutOfCursors, Err.TooManyOpenTables, Err.OutOfMemory),
        *(Err.BackupInProgress, Err.OSSnapshotNotAllowed, Err.OutOfBuffers, Err.TermInProgress, Err.RestoreInProgress),
    }
)


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Registers a function as the handler of one or more methods."""

    def register(handler: Handler) -> Handler:
        for name in names:
            assert name in METHODS, f"no method {name}"
            assert name not in HANDLERS, f"two handlers for {name}"
            HANDLERS[name] = handler
        return handler

    return register


@dataclass(frozen=True, slots=True)
class Entry:
    """All that a call needs to know about its method."""

    method: Method
    validate: Validator
    handler: Handler
    waits: bool  # the handler is async
    at_once: bool  # an async handler is begun without a task
    roles: frozenset[str]
    by_session: bool  # runs after the calls of the same session that came before it
    is_batch: bool
    commits: bool  # may wait for a thaw


def _not_built(method: Method) -> Handler:
    def refuse(peer: Peer, params: Params) -> Any:
        if params.get("sesid") is not None:
            peer.session(params["sesid"])  # a dead handle is told first, as everywhere
        raise JetError(Err.FeatureNotAvailable, f"{method.name} is not built yet")

    return refuse


def _entry(method: Method, handler: Handler) -> Entry:
    roles = {role for role in ROLES if may_call(role, method)} | ({""} if method.name in BEFORE_AUTHENTICATION else set())
    return Entry(
        method=method,
        validate=validator(method),
        handler=handler,
        waits=inspect.iscoroutinefunction(handler),
        at_once=method.group in STARTED_AT_ONCE,
        roles=frozenset(roles),
        by_session=any(member.name == "sesid" for member in method.params),
        is_batch=method.name == "Batch",
        commits=method.name in COMMITTING,
    )


def table(handlers: Mapping[str, Handler] = HANDLERS) -> dict[str, Entry]:
    """Every spelling of every method. One without a handler answers `JET_errFeatureNotAvailable`."""
    out: dict[str, Entry] = {}
    for method in METHODS.values():
        entry = _entry(method, handlers.get(method.name) or _not_built(method))
        for name in (method.name, *method.aliases):
            out[name] = entry
            if not name.startswith("rpc."):
                out[f"Jet{name}"] = entry
    return out


def not_built() -> list[str]:
    """The methods that still answer `JET_errFeatureNotAvailable`."""
    return sorted(set(METHODS) - set(HANDLERS))


# -- errors -----------------------------------------------------------------------------------------------------------
def failure(error: BaseException) -> tuple[int, str, dict[str, Any]]:
    """An exception as an error object's code, message and data. What nobody expected is logged and tells nothing."""
    if isinstance(error, JetError):
        data = {
            "description": error.detail or _words(error.name),
            "category": error.category,
            "retryable": error.code in RETRYABLE,
            **error.data,
        }
        return error.code, error.name, data
    if isinstance(error, RpcError):
        return error.code, error.message, error.data
    if isinstance(error, Mismatch):
        return jsonrpc.INVALID_PARAMS, jsonrpc.MESSAGES[jsonrpc.INVALID_PARAMS], {"member": error.path, "description": error.problem}
    if isinstance(error, MemoryError):
        return failure(JetError(Err.OutOfMemory, "the server's memory is used up"))
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return failure(JetError(Err.OutOfThreads, "the system starts no more threads"))
    log.error("a call failed in a way nobody expected", exc_info=error)
    return jsonrpc.INTERNAL_ERROR, jsonrpc.MESSAGES[jsonrpc.INTERNAL_ERROR], {}


def _words(name: str) -> str:
    """`JET_errKeyDuplicate` -> `key duplicate`: better than nothing where nobody said more."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name.removeprefix("JET_err"))).lower()
