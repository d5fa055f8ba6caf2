"""Whether a result has the shape its method declares: used wherever tests talk to a real server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jetwire_protocol.declarations import METHOD_BY_NAME, NOTIFICATIONS, TYPES, Member
from jetwire_protocol.validate import PLAIN, Mismatch


def misfits(method: str, result: Any) -> list[str]:
    """What is wrong with a decoded result, as `path: why`; nothing if all is well."""
    if method == "rpc.discover":
        return []
    members = [*METHOD_BY_NAME[method].results, Member("wrn", "int")]
    missing = [f"{method}.{member.name}: missing" for member in members if member.required and member.name not in result]
    return missing + list(_object(result, members, method))


def misfits_of_notification(name: str, params: Any) -> list[str]:
    """The same for a notification's params."""
    members = NOTIFICATIONS[name]
    missing = [f"{name}.{member.name}: missing" for member in members if member.required and member.name not in params]
    return missing + list(_object(params, members, name))


def _object(value: Any, members: Iterable[Member], path: str) -> Iterable[str]:
    if not isinstance(value, dict):
        yield f"{path}: not an object"
        return
    known = {member.name: member for member in members}
    for name in value.keys() - known.keys():
        yield f"{path}.{name}: not declared"
    for name, member in known.items():
        if name in value:
            yield from _value(value[name], member, f"{path}.{name}")


def _value(value: Any, member: Member, path: str) -> Iterable[str]:
    if value is None and not member.required:
        return
    kinds = [*member.type.split(" | "), *([member.also] if member.also else [])]
    found = [list(_typed(value, kind, path)) for kind in kinds]
    if all(found):
        yield from found[0]


def _typed(value: Any, kind: str, path: str) -> Iterable[str]:
    if kind.startswith("list of "):
        if not isinstance(value, list):
            yield f"{path}: not a list"
            return
        for place, one in enumerate(value):
            yield from _typed(one, kind.removeprefix("list of "), f"{path}.{place}")
    elif kind.startswith("map of "):
        if not isinstance(value, dict):
            yield f"{path}: not an object"
    elif kind.startswith("object "):
        if value is not None:  # an object that is not known is null
            yield from _object(value, TYPES[kind.removeprefix("object ")].members, path)
    else:
        try:
            PLAIN[kind](value)
        except Mismatch as mismatch:
            yield f"{path}: {mismatch.problem}, got {value!r:.60}"
