"""The OSSnapshot family on the wire."""

from __future__ import annotations

from typing import Any

from jetwire_protocol.jsonrpc import INVALID_PARAMS, RpcError
from jetwire_protocol.validate import Params
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.peer import Peer
from jetwire_server.snapshot.participant import InstanceInfo
from jetwire_server.snapshot.states import OVER

_OVER = frozenset(state.value for state in OVER)  # as if there had been no session: nothing of it is left to tell


def _instances(infos: list[InstanceInfo]) -> list[dict[str, Any]]:
    return [
        {
            "instanceId": info.handle,
            "instanceName": info.name,
            "databaseFileName": list(info.databases),
            "databaseDisplayName": list(info.databases),
        }
        for info in infos
    ]


@handles("OSSnapshotPrepare")
def prepare(peer: Peer, params: Params) -> dict[str, Any]:
    return {"snapId": peer.service.snapshots.prepare(params["grbit"], owner=_owner(peer, params))}


def _owner(peer: Peer, params: Params) -> Peer | None:
    """Who takes the session along when it goes, if that was asked for."""
    if not params["bind"]:
        return None
    if not peer.stateful:
        raise RpcError(INVALID_PARAMS, member="bind", description="there is no connection to bind to over plain HTTP")
    snapshots = peer.service.snapshots
    peer.at_close("snapshot", lambda: snapshots.connection_closed(peer))
    return peer


@handles("OSSnapshotPrepareInstance")
def prepare_instance(peer: Peer, params: Params) -> dict[str, Any]:
    peer.service.snapshots.prepare_instance(params["snapId"], params["instance"], params["grbit"])
    return {}


@handles("OSSnapshotFreeze")
async def freeze(peer: Peer, params: Params) -> dict[str, Any]:
    frozen = await peer.service.snapshots.freeze(
        params["snapId"],
        params["grbit"],
        lease_ms=params["leaseMs"],
        max_drain_ms=params["maxDrainMs"],
        owner=_owner(peer, params),
    )
    return {
        "instances": _instances(frozen.instances),
        "deadline": frozen.deadline,
        "remainingMs": frozen.remaining_ms,
        "manifest": frozen.manifest.to_wire(),
    }


@handles("OSSnapshotThaw")
async def thaw(peer: Peer, params: Params) -> dict[str, Any]:
    verdict = await peer.service.snapshots.thaw(params["snapId"], params["grbit"])
    return dict(verdict.to_wire())


@handles("OSSnapshotAbort")
async def abort(peer: Peer, params: Params) -> dict[str, Any]:
    await peer.service.snapshots.abort(params["snapId"], params["grbit"])
    return {}


@handles("OSSnapshotEnd")
async def end(peer: Peer, params: Params) -> dict[str, Any]:
    await peer.service.snapshots.end(params["snapId"], params["grbit"])
    return {}


@handles("OSSnapshotGetFreezeInfo")
def get_freeze_info(peer: Peer, params: Params) -> dict[str, Any]:
    return {"instances": _instances(peer.service.snapshots.get_freeze_info(params["snapId"], params["grbit"]))}


@handles("OSSnapshotTruncateLog")
async def truncate_log(peer: Peer, params: Params) -> dict[str, Any]:
    await peer.service.snapshots.truncate_log(params["snapId"], params["grbit"])
    return {}


@handles("OSSnapshotTruncateLogInstance")
async def truncate_log_instance(peer: Peer, params: Params) -> dict[str, Any]:
    await peer.service.snapshots.truncate_log(params["snapId"], params["grbit"], params["instance"])
    return {}


@handles("SnapshotRenew")
def renew(peer: Peer, params: Params) -> dict[str, Any]:
    deadline = peer.service.snapshots.renew(params["snapId"], params["leaseMs"])
    return {"deadline": deadline, "remainingMs": max(0, int((deadline - peer.service.clock.now()) * 1000))}


@handles("SnapshotStatus")
def status(peer: Peer, params: Params) -> dict[str, Any]:
    now = peer.service.snapshots.status()
    answer: dict[str, Any] = {
        "state": "none" if now.state in _OVER else now.state,
        "instances": [info.name for info in now.instances],
        "frozenMs": now.frozen_ms,
        "remainingMs": now.remaining_ms,
        "waitingCommits": now.waiting_commits,
        "holders": now.holders,
    }
    if now.snap_id is not None:
        answer["snapId"] = now.snap_id
    if now.manifest is not None:
        answer["manifest"] = now.manifest.to_wire()
    return answer
