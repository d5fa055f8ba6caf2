"""Batch: several calls in order in one round trip, each of which may use the results of those before it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec

from jetwire_protocol import jsonrpc
from jetwire_protocol.errors import JetError
from jetwire_protocol.jsonrpc import INVALID_PARAMS, RpcError
from jetwire_protocol.validate import Params
from jetwire_server.rpc.dispatch import failure, handles
from jetwire_server.rpc.peer import Peer

_DEEP = frozenset({dict, list})  # what a reference may stand in

# The calls that can end a freeze.
_THAWING = frozenset({"OSSnapshotThaw", "OSSnapshotAbort", "OSSnapshotEnd"})


class BatchError(RpcError):
    """The error of the call that stopped a batch, with its place and the results before it."""

    def __init__(self, cause: Exception, index: int, results: list[Any]) -> None:
        code, message, data = failure(cause)
        super().__init__(code, **{**data, "index": index, "results": results})
        self._message = message

    @property
    def message(self) -> str:
        return self._message


@handles("Batch")
async def batch(peer: Peer, params: Params) -> dict[str, Any]:
    calls, sesid = params["calls"], params["sesid"]
    if len(calls) > peer.service.wire_limits.batch:
        raise RpcError(jsonrpc.TOO_MANY, limit="batch", max=peer.service.wire_limits.batch)
    for index, call in enumerate(calls):
        entry = peer.service.table.get(call["method"])
        if entry is not None and entry.is_batch:
            raise RpcError(INVALID_PARAMS, member=f"calls.{index}.method", description="a Batch in a Batch")
        if type(call["params"]) not in (dict, list):
            raise RpcError(INVALID_PARAMS, member=f"calls.{index}.params", description="expected an object or an array")
    if not params["transaction"]:
        return {"results": await _run(peer, calls, [])}
    if sesid is None:
        raise RpcError(INVALID_PARAMS, member="sesid", description="missing member: a transaction needs its session")
    await _call(peer, "BeginTransaction", {"sesid": sesid})
    results: list[Any] = []
    try:
        await _run(peer, calls, results)
        try:
            await _call(peer, "CommitTransaction", {"sesid": sesid})
        except Exception as error:
            raise BatchError(error, len(calls), results) from error
    except BaseException:
        with suppress(JetError):  # the session may be gone: one of the calls ended it
            await _call(peer, "Rollback", {"sesid": sesid})
        raise
    return {"results": results}


async def _run(peer: Peer, calls: list[dict[str, Any]], results: list[Any]) -> list[Any]:
    overtook: dict[int, Any] = {}  # results of thaws that did not wait for a commit that waits for them
    for index, call in enumerate(calls):
        try:
            if index in overtook:
                results.append(overtook.pop(index))
            elif _waits_for_thaw(peer, call):
                results.append(await _commit_and_thaw(peer, calls, index, results, overtook))
            else:
                results.append(await _call(peer, call["method"], _resolve(call["params"], results)))
        except Exception as error:
            raise BatchError(error, index, results) from error
    return results


def _waits_for_thaw(peer: Peer, call: dict[str, Any]) -> bool:
    entry = peer.service.table.get(call["method"])
    return entry is not None and entry.commits and peer.service.snapshots is not None and peer.service.snapshots.holding


async def _commit_and_thaw(peer: Peer, calls: list[dict[str, Any]], index: int, results: list[Any], overtook: dict[int, Any]) -> Any:
    """A commit while frozen, and the next call of the batch that may end the freeze: one must not lock out the other."""
    commit = asyncio.create_task(_call(peer, calls[index]["method"], _resolve(calls[index]["params"], results)))
    try:
        for later in range(index + 1, len(calls)):
            entry = peer.service.table.get(calls[later]["method"])
            if entry is not None and entry.method.name in _THAWING and later not in overtook:
                overtook[later] = await _call(peer, calls[later]["method"], _resolve(calls[later]["params"], results))
                break
        return await commit
    finally:
        commit.cancel()


async def _call(peer: Peer, name: str, params: Params | list[Any]) -> Any:
    entry = peer.service.table.get(name)
    if entry is None:
        raise RpcError(jsonrpc.METHOD_NOT_FOUND)
    if peer.role not in entry.roles:
        raise RpcError(jsonrpc.NOT_ALLOWED, role=peer.role, needs=entry.method.role)
    result = entry.handler(peer, entry.validate(params))
    return await result if entry.waits else result


def _resolve(given: Any, results: list[Any]) -> Any:
    """The params with every `{"$ref": "0/tableid"}` replaced by what it names."""
    if type(given) is dict:
        if len(given) == 1 and "$ref" in given:
            return _look_up(given["$ref"], results)
        return {name: _resolve(value, results) if type(value) in _DEEP else value for name, value in given.items()}
    if type(given) is list:
        return [_resolve(value, results) if type(value) in _DEEP else value for value in given]
    return given


def _look_up(reference: Any, results: list[Any]) -> Any:
    """`INDEX/MEMBER/...`: an earlier call's result, then members of objects and indexes of lists."""
    value: Any = results
    try:
        for step in reference.split("/"):
            if isinstance(value, msgspec.Raw):  # a record that is JSON already
                value = msgspec.json.decode(value)
            value = value[int(step)] if isinstance(value, list) and step.isdecimal() else value[step]
    except (AttributeError, KeyError, IndexError, TypeError):
        raise RpcError(INVALID_PARAMS, member="$ref", description=f"{reference!r:.100} names no earlier result") from None
    return msgspec.to_builtins(value)  # as it would have come over the wire: bytes as base64
