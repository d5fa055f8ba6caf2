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
from jetwire_server.limits import GATE_LOOK_SECONDS, TURN_SECONDS
from jetwire_server.rpc.dispatch import failure, handles
from jetwire_server.rpc.peer import Peer

_DEEP = frozenset({dict, list})  # what a reference may stand in
_encode = msgspec.json.Encoder().encode

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
    work = _Work(peer, calls)
    if not params["transaction"]:
        await work.run()
        return {"results": work.results}
    if sesid is None:
        raise RpcError(INVALID_PARAMS, member="sesid", description="missing member: a transaction needs its session")
    await _call(peer, "BeginTransaction", {"sesid": sesid})
    try:
        await work.run()
        try:
            await _call(peer, "CommitTransaction", {"sesid": sesid})
        except Exception as error:
            raise BatchError(error, len(calls), work.results) from error
    except BaseException:
        with suppress(JetError):  # the session may be gone: one of the calls ended it
            await _call(peer, "Rollback", {"sesid": sesid})
        raise
    return {"results": work.results}


class _Work:
    """The calls of one Batch and their results so far.

    Results wait as JSON, so that how much they weigh together is known before it is too much. What references bring into a
    call's params counts as if it had been sent: a few bytes could ask for gigabytes otherwise.
    """

    def __init__(self, peer: Peer, calls: list[dict[str, Any]]) -> None:
        self._peer = peer
        self._calls = calls
        self.results: list[msgspec.Raw] = []
        self._bytes = 0
        self._overtook: dict[int, Any] = {}  # results and errors of thaws that did not wait for a commit that waits for them
        self._read: dict[int, Any] = {}  # results that were referred to, as Python has them
        self._found: dict[str, tuple[Any, int]] = {}  # by reference: the value and its bytes as JSON
        self._referred_bytes = 0  # in the params of the call that is being prepared

    async def run(self) -> None:
        clock = self._peer.service.clock
        until = clock.boot() + TURN_SECONDS
        for index, call in enumerate(self._calls):
            if clock.boot() > until:
                await asyncio.sleep(0)
                until = clock.boot() + TURN_SECONDS
            try:
                if index in self._overtook:
                    result = self._overtook.pop(index)
                    if isinstance(result, Exception):
                        raise result
                elif _waits_for_thaw(self._peer, call):
                    result = await self._commit_and_thaw(index)
                else:
                    result = await self._run(call)
                self._keep(result)
            except Exception as error:
                raise BatchError(error, index, self.results) from error

    def _keep(self, result: Any) -> None:
        encoded = _encode(result)
        self._bytes += len(encoded)
        if self._bytes > self._peer.service.result_bytes_max:
            raise RpcError(jsonrpc.TOO_LARGE, limit="result", max=self._peer.service.result_bytes_max)
        self.results.append(msgspec.Raw(encoded))

    async def _run(self, call: dict[str, Any]) -> Any:
        return await _call(self._peer, call["method"], self._params(call))

    async def _commit_and_thaw(self, index: int) -> Any:
        """A commit while frozen, and the next call of the batch that may end the freeze: one must not lock out the other."""
        commit = asyncio.create_task(self._run(self._calls[index]))
        try:
            done, _ = await asyncio.wait([commit], timeout=GATE_LOOK_SECONDS)
            if done:  # it was refused, say, and that ends the batch: nothing behind it is run
                return commit.result()
            for later in range(index + 1, len(self._calls)):
                entry = self._peer.service.table.get(self._calls[later]["method"])
                if entry is not None and entry.method.name in _THAWING and later not in self._overtook:
                    try:
                        self._overtook[later] = await self._run(self._calls[later])
                    except Exception as error:
                        self._overtook[later] = error  # told when it is its turn
                    break
            return await commit
        finally:
            commit.cancel()

    # -- references ---------------------------------------------------------------------------------------------
    def _params(self, call: dict[str, Any]) -> Any:
        """The call's params with every `{"$ref": "0/tableid"}` replaced by what it names."""
        self._referred_bytes = 0
        params, limits = self._resolve(call["params"]), self._peer.limits
        if self._referred_bytes > limits.elements:  # up to there it cannot be beyond any limit
            refusal = jsonrpc.oversize(_encode(params), limits)
            if refusal is not None:
                raise RpcError(refusal.code, **(refusal.data or {}))
        return params

    def _resolve(self, given: Any) -> Any:
        if type(given) is dict:
            if len(given) == 1 and "$ref" in given:
                return self._look_up(given["$ref"])
            return {name: self._resolve(value) if type(value) in _DEEP else value for name, value in given.items()}
        if type(given) is list:
            return [self._resolve(value) if type(value) in _DEEP else value for value in given]
        return given

    def _look_up(self, reference: Any) -> Any:
        """`INDEX/MEMBER/...`: an earlier call's result, then members of objects and indexes of lists."""
        try:
            if reference not in self._found:
                first, *steps = reference.split("/")
                value = self._result(int(first))
                for step in steps:
                    value = value[int(step)] if isinstance(value, list) and step.isdecimal() else value[step]
                self._found[reference] = value, len(_encode(value))
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            raise RpcError(INVALID_PARAMS, member="$ref", description=f"{reference!r:.100} names no earlier result") from None
        value, weight = self._found[reference]
        self._referred_bytes += weight
        if self._referred_bytes > self._peer.limits.message_bytes:
            raise RpcError(jsonrpc.TOO_LARGE, limit="message", max=self._peer.limits.message_bytes)
        return value

    def _result(self, index: int) -> Any:
        if index not in self._read:
            if not 0 <= index < len(self.results):
                raise IndexError(index)
            self._read[index] = msgspec.json.decode(self.results[index])
        return self._read[index]


def _waits_for_thaw(peer: Peer, call: dict[str, Any]) -> bool:
    entry = peer.service.table.get(call["method"])
    return entry is not None and entry.commits and peer.service.snapshots is not None and peer.service.snapshots.holding


async def _call(peer: Peer, name: str, params: Params | list[Any]) -> Any:
    entry = peer.service.table.get(name)
    if entry is None:
        raise RpcError(jsonrpc.METHOD_NOT_FOUND)
    if peer.role not in entry.roles:
        raise RpcError(jsonrpc.NOT_ALLOWED, role=peer.role, needs=entry.method.role)
    result = entry.handler(peer, entry.validate(params))
    return await result if entry.waits else result
