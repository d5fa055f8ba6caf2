"""The event table, and subscriptions to what happens."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec

from jetwire_protocol.data.events import EVENTS
from jetwire_protocol.errors import Err, JetError
from jetwire_protocol.jsonrpc import INVALID_PARAMS, RpcError
from jetwire_protocol.validate import Params
from jetwire_server import limits
from jetwire_server.event_table import Entry
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.peer import Peer

_numbers = count(1)

# Which events a topic is about.
_TOPICS: dict[str, Callable[[Entry], bool]] = {
    "events": lambda entry: True,
    "snapshot": lambda entry: entry.name.startswith("OS_SNAPSHOT") or entry.id in (224, 225, 227),
    "sessions": lambda entry: "SESSION" in entry.name,
    "log": lambda entry: "LOG" in entry.name,
}
assert all(event in EVENTS for event in (224, 225, 227))


@handles("GetEvents")
def get_events(peer: Peer, params: Params) -> dict[str, Any]:
    if params["limit"] < 0 or params["after"] < 0:
        raise JetError(Err.InvalidParameter, "after and limit are not negative")
    entries = peer.service.event_table.after(params["after"], min(params["limit"], limits.EVENTS_KEPT))
    return {"events": msgspec.to_builtins(entries)}


@handles("Subscribe")
def subscribe(peer: Peer, params: Params) -> dict[str, Any]:
    unknown = [topic for topic in params["topics"] if topic not in _TOPICS]
    if unknown or not params["topics"]:
        raise RpcError(INVALID_PARAMS, member="topics", description=f"topics are {', '.join(_TOPICS)}")
    subscriptions: dict[int, Callable[[], None]] = peer.state.setdefault("subscriptions", {})
    if len(subscriptions) >= limits.SUBSCRIPTIONS_PER_CONNECTION_MAX:
        raise JetError(Err.TooManyActiveUsers, "too many subscriptions on this connection")
    peer.at_close("subscriptions", lambda: _end_all(subscriptions))
    number = next(_numbers)
    topics = list(dict.fromkeys(params["topics"]))

    def tell(entry: Entry) -> None:
        for topic in topics:
            if _TOPICS[topic](entry):
                peer.notify("event", {"subscription": number, "topic": topic, "event": msgspec.to_builtins(entry)})
                return

    subscriptions[number] = peer.service.event_table.listen(tell)
    return {"subscription": number}


@handles("Unsubscribe")
def unsubscribe(peer: Peer, params: Params) -> dict[str, Any]:
    stop = peer.state.get("subscriptions", {}).pop(params["subscription"], None)
    if stop is None:
        raise JetError(Err.InvalidParameter, f"this connection has no subscription {params['subscription']}")
    stop()
    return {}


def _end_all(subscriptions: dict[int, Callable[[], None]]) -> None:
    for stop in subscriptions.values():
        stop()
    subscriptions.clear()
