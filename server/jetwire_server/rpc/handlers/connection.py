"""The connection's own methods: Ping, Hello, the OpenRPC document."""

from __future__ import annotations

from typing import Any

from jetwire_protocol import jsonrpc
from jetwire_protocol.jsonrpc import INVALID_PARAMS, RpcError
from jetwire_protocol.openrpc import document
from jetwire_protocol.validate import Params
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.peer import Peer
from jetwire_server.rpc.service import PROTOCOL_VERSION

_EMPTY: dict[str, Any] = {}


@handles("Ping", "FreeBuffer")
def ping(peer: Peer, params: Params) -> dict[str, Any]:
    return _EMPTY


@handles("rpc.discover")
def discover(peer: Peer, params: Params) -> dict[str, Any]:
    return document(peer.service.version)


@handles("Hello")
def hello(peer: Peer, params: Params) -> dict[str, Any]:
    """Names, options, authentication. After a wrong token nothing is answered and no notification sent until a right one."""
    if params["int64"] not in (None, "string", "number"):
        raise RpcError(INVALID_PARAMS, member="int64", description='expected "string" or "number"')
    service = peer.service
    if params["token"] is not None:
        identity = service.gatekeeper.by_token(params["token"])
        peer.role, peer.principal = identity.role, identity.principal
    if not peer.role:
        raise RpcError(jsonrpc.NOT_AUTHENTICATED)
    if params["client"] is not None:
        peer.client = params["client"]
    if params["int64"] is not None:
        peer.int64_strings = params["int64"] == "string"
    return {
        "server": "jetwire",
        "version": service.version,
        "protocol": PROTOCOL_VERSION,
        "role": peer.role,
        "limits": service.limits_for_clients(),
        "instances": service.instance_names(),
    }
