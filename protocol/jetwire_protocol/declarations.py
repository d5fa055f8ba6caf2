"""Every method of the protocol, declared once.

Validation, dispatch, the client, the OpenRPC document, the access matrix and the reference page all come from `METHODS`
and `TYPES`. The engine's methods are generated data; Jetwire's own stand in `own_methods.py` in the same form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jetwire_protocol.data import methods as data
from jetwire_protocol.own_methods import MORE_PARAMS, MORE_RESULTS, OWN_METHODS, OWN_NOTIFICATIONS, OWN_TYPES

__all__ = ["METHODS", "METHOD_BY_NAME", "NOTIFICATIONS", "ROLES", "TYPES", "Member", "Method", "Type", "may_call"]

# What each role includes. A method names the lowest role that may call it; whoever holds a role that includes it may.
ROLES: dict[str, frozenset[str]] = {
    "reader": frozenset({"any", "reader"}),
    "writer": frozenset({"any", "reader", "writer"}),
    "schema": frozenset({"any", "reader", "writer", "schema"}),
    "snapshotter": frozenset({"any", "snapshotter"}),
    "admin": frozenset({"any", "reader", "writer", "schema", "snapshotter", "admin"}),
}


@dataclass(frozen=True, slots=True)
class Member:
    """One parameter, result or member of an object.

    `type` is `int`, `bool`, `number`, `string`, `base64`, `value`, `any`, `object NAME`, `list of X`, `map of X`, or
    several with ` | ` between. `names` says which names stand for its numbers: `flags:GROUPS`, `enum:GROUP`, `column`,
    `parameter`, `error`, or `key` for an index key. `result_only` members of an object are never sent to the server.
    """

    name: str
    type: str
    required: bool = False
    default: Any = None
    names: str = ""
    also: str = ""
    result_only: bool = False


@dataclass(frozen=True, slots=True)
class Method:
    """One method: what it takes, what it answers, who may call it (`role` is the lowest that may)."""

    name: str
    group: str
    role: str
    params: tuple[Member, ...]
    results: tuple[Member, ...]
    aliases: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    note: str = ""
    info_levels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Type:
    """An object that travels inside params or results."""

    name: str
    members: tuple[Member, ...]
    note: str = ""


def _member(row: tuple[str, str, bool, Any, str, str, str]) -> Member:
    name, kind, required, default, names, also, where = row
    return Member(name, kind, required, default, names, also, where == "result")


def _method(row: dict[str, Any]) -> Method:
    name = row["name"]
    return Method(
        name=name,
        group=row["group"],
        role=row["role"],
        params=tuple(map(_member, [*row["params"], *MORE_PARAMS.get(name, ())])),
        results=tuple(map(_member, [*row["results"], *MORE_RESULTS.get(name, ())])),
        aliases=tuple(row.get("aliases", ())),
        errors=tuple(row.get("errors", ())),
        note=row["note"],
        info_levels=tuple(row.get("info_levels", {}).items()),
    )


METHODS: dict[str, Method] = {row["name"]: _method(row) for row in [*data.METHODS, *OWN_METHODS]}
TYPES: dict[str, Type] = {
    name: Type(name, tuple(map(_member, row["members"])), row["note"]) for name, row in {**data.TYPES, **OWN_TYPES}.items()
}
NOTIFICATIONS: dict[str, tuple[Member, ...]] = {
    name: tuple(map(_member, rows)) for name, rows in {**data.NOTIFICATIONS, **OWN_NOTIFICATIONS}.items()
}


def _names() -> dict[str, Method]:
    """Every spelling a method answers to: its name, its aliases, and each of them with C's prefix."""
    out: dict[str, Method] = {}
    for method in METHODS.values():
        for name in (method.name, *method.aliases):
            assert name not in out, f"two methods called {name}"
            out[name] = method
            if not name.startswith("rpc."):
                out[f"Jet{name}"] = method
    return out


METHOD_BY_NAME: dict[str, Method] = _names()


def may_call(role: str, method: Method) -> bool:
    """Whether a holder of `role` may call the method; an unknown role may call nothing."""
    return method.role in ROLES.get(role, frozenset())
