"""The OpenRPC document of the protocol, from the same declarations that validate."""

from __future__ import annotations

from functools import cache
from typing import Any

from jetwire_protocol.data.codes import CATEGORIES, Err, Wrn
from jetwire_protocol.data.flags import GROUPS
from jetwire_protocol.declarations import METHODS, NOTIFICATIONS, TYPES, Member, Method
from jetwire_protocol.validate import INT_MAX, INT_MIN

OPENRPC_VERSION = "1.3.2"

_INT = {"type": "integer", "minimum": INT_MIN, "maximum": INT_MAX}
_PLAIN: dict[str, dict[str, Any]] = {
    "int": _INT,
    "bool": {"type": "boolean"},
    "number": {"type": "number"},
    "string": {"type": "string"},
    "base64": {"type": "string", "contentEncoding": "base64"},
    "value": {"$ref": "#/components/schemas/VALUE"},
    "any": {},
}
_VALUE = {
    "title": "VALUE",
    "description": "A column value, by the column's type; base64 stands for the stored bytes of any type.",
    "anyOf": [
        {"type": ["null", "boolean", "number", "string"]},
        {"type": "object", "properties": {"base64": _PLAIN["base64"]}, "required": ["base64"], "additionalProperties": False},
    ],
}


@cache
def document(version: str) -> dict[str, Any]:
    """The whole document; `version` is the server's."""
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {
            "title": "Jetwire",
            "version": version,
            "description": "The Extensible Storage Engine's API over JSON-RPC 2.0.",
            "license": {"name": "Apache-2.0"},
        },
        "methods": [_method(method) for method in METHODS.values()],
        "components": {"schemas": {"VALUE": _VALUE, **{name: _object(kind.members, kind.note, name) for name, kind in TYPES.items()}}},
        "x-notifications": [{"name": name, "params": [_descriptor(m) for m in members]} for name, members in NOTIFICATIONS.items()],
    }


def _method(method: Method) -> dict[str, Any]:
    out: dict[str, Any] = {
        "name": method.name,
        "summary": method.note,
        "tags": [{"name": method.group}],
        "paramStructure": _structure(method),
        "params": [_descriptor(member) for member in method.params],
        "result": {"name": "result", "schema": _result(method)},
        "errors": [error for name in method.errors if (error := _error(name)) is not None],
        "x-role": method.role,
    }
    if method.aliases:
        out["x-aliases"] = list(method.aliases)
    return out


def _structure(method: Method) -> str:
    """OpenRPC wants required params first where they may go by position; ESE's order does not always have them so.

    The server takes every method's params both ways.
    """
    required = [member.required for member in method.params]
    return "either" if required == sorted(required, reverse=True) else "by-name"


def _error(name: str) -> dict[str, Any] | None:
    """An error as its number and name; warnings are no errors on the wire."""
    short = name.removeprefix("JET_err")
    if name.startswith("JET_wrn") or short not in Err.__members__:
        return None
    code = int(Err[short])
    return {"code": code, "message": name, "data": {"category": CATEGORIES.get(code, "Unknown")}}


def _descriptor(member: Member) -> dict[str, Any]:
    return {"name": member.name, "required": member.required, "schema": _schema(member)}


def _schema(member: Member) -> dict[str, Any]:
    choices = [_type(part) for part in member.type.split(" | ")]
    if member.also:
        choices.append(_type(member.also))
    choices += _names(member)
    if not member.required and member.default is None and member.type != "value":
        choices.append({"type": "null"})
    schema = choices[0] if len(choices) == 1 else {"anyOf": choices}
    return schema if member.required or member.default is None else {**schema, "default": member.default}


def _names(member: Member) -> list[dict[str, Any]]:
    """The names that may stand for the member's numbers."""
    what, _, groups = member.names.partition(":")
    if what == "flags":
        known = sorted({name.rstrip("_") for group in groups.split(",") if group in GROUPS for name in GROUPS[group].__members__})
        return [{"type": "array", "items": {"enum": known}}] if known else [{"type": "array", "maxItems": 0}]
    if what == "enum":
        return [{"enum": [name.rstrip("_") for name in GROUPS[groups].__members__]}]
    if what == "column":
        name: dict[str, Any] = {"type": "string"}
        return [{"type": "array", "items": {"anyOf": [_INT, name]}}] if member.type.startswith("list of ") else [name]
    return [{"type": "string"}] if what in ("parameter", "error", "key") else []


def _type(kind: str) -> dict[str, Any]:
    if kind.startswith("list of "):
        return {"type": "array", "items": _type(kind.removeprefix("list of "))}
    if kind.startswith("map of "):
        return {"type": "object", "additionalProperties": _type(kind.removeprefix("map of "))}
    if kind.startswith("object "):
        return {"$ref": f"#/components/schemas/{kind.removeprefix('object ')}"}
    return _PLAIN[kind]


def _object(members: tuple[Member, ...], note: str, title: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {
        "type": "object",
        "properties": {member.name: _schema(member) for member in members},
        "required": [member.name for member in members if member.required],
        "additionalProperties": False,
    }
    return {**({"title": title} if title else {}), **({"description": note} if note else {}), **out}


def _result(method: Method) -> dict[str, Any]:
    if method.name == "rpc.discover":
        return {"type": "object", "description": "An OpenRPC document."}
    schema = _object(method.results, "")
    schema["properties"]["wrn"] = {"enum": [int(warning) for warning in Wrn], "description": "Present on a success with a warning."}
    return schema
