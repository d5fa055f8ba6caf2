"""What belongs to no group: versions, hints, errors explained."""

from __future__ import annotations

from jetwire_protocol.data.codes import CATEGORIES
from jetwire_protocol.data.flags import Errcat, ErrorInfo
from jetwire_protocol.errors import Err, JetError
from jetwire_protocol.validate import Params
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.handlers.common import Result, session_of
from jetwire_server.rpc.peer import Peer

# Each category's parent.
_PARENTS = {
    Errcat.Operation: Errcat.Error,
    Errcat.Fatal: Errcat.Operation,
    Errcat.IO: Errcat.Operation,
    Errcat.Resource: Errcat.Operation,
    Errcat.Memory: Errcat.Resource,
    Errcat.Quota: Errcat.Resource,
    Errcat.Disk: Errcat.Resource,
    Errcat.Data: Errcat.Error,
    Errcat.Corruption: Errcat.Data,
    Errcat.Inconsistent: Errcat.Data,
    Errcat.Fragmentation: Errcat.Data,
    Errcat.Api: Errcat.Error,
    Errcat.Usage: Errcat.Api,
    Errcat.State: Errcat.Api,
    Errcat.Obsolete: Errcat.Api,
}


@handles("GetErrorInfo")
def get_error_info(peer: Peer, params: Params) -> Result:
    if params["infoLevel"] != ErrorInfo.SpecificErr or params["grbit"]:
        raise JetError(Err.InvalidParameter, "infoLevel is 1 and grbit 0")
    category = CATEGORIES.get(params["error"])
    if category is None:
        raise JetError(Err.InvalidParameter, f"no error {params['error']}")
    path = [Errcat[category]]
    while path[0] in _PARENTS:
        path.insert(0, _PARENTS[path[0]])
    info = {"errValue": params["error"], "errcat": int(path[-1]), "categoricalHierarchy": [int(one) for one in path]}
    return {"errinfo": {**info, "sourceLine": 0, "sourceFile": ""}}


@handles("GetVersion")
def get_version(peer: Peer, params: Params) -> Result:
    """The server's version as one number, a byte for each part."""
    session_of(peer, params)
    parts = [int(part) for part in peer.service.version.split(".") if part.isdigit()][:3]
    return {"version": int.from_bytes(bytes([*parts, 0, 0, 0][:3]), "big")}


@handles("ConfigureProcessForCrashDump")
def configure_process_for_crash_dump(peer: Peer, params: Params) -> Result:
    """Taken, and without effect on a process that is not the caller's."""
    return {}
