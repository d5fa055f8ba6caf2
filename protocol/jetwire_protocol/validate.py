"""Params as the declarations want them: by name or by position, names turned into numbers, defaults filled in.

`validator(method)` is compiled once per method; calling it costs one look-up and one check a member and builds nothing
but the dictionary it returns. What does not fit is an `RpcError` of code -32602 that names the member.

    validator(METHODS["Seek"])({"sesid": 1, "tableid": 2, "grbit": ["SeekEQ"]})
    -> {"sesid": 1, "tableid": 2, "grbit": 1}

base64 comes out as `bytes`, also where a value is written as `{"base64": "..."}`; columns stay a name or an id.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Iterable
from enum import IntEnum, IntFlag
from typing import Any

from jetwire_protocol.data.codes import Err, Wrn
from jetwire_protocol.data.flags import GROUPS
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.declarations import TYPES, Member, Method
from jetwire_protocol.jsonrpc import INVALID_PARAMS, RpcError

__all__ = ["Mismatch", "Params", "Validator", "base64_bytes", "validator"]

Params = dict[str, Any]
Validator = Callable[[Params | list[Any]], Params]
Check = Callable[[Any], Any]

INT_MIN, INT_MAX = -(2**63), 2**64 - 1


class Mismatch(Exception):
    """A value of the wrong shape, and the path to it inside the member that is being checked."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem, path)
        self.problem = problem
        self.path = path

    def inside(self, name: str) -> Mismatch:
        return Mismatch(self.problem, f"{name}.{self.path}" if self.path else name)


# -- plain types ------------------------------------------------------------------------------------------------------
def _int(value: Any) -> int:
    if type(value) is int and INT_MIN <= value <= INT_MAX:
        return value
    raise Mismatch("expected an integer of 64 bits")


def _bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise Mismatch("expected true or false")


def _string(value: Any) -> str:
    if type(value) is str:
        return value
    raise Mismatch("expected a string")


def _number(value: Any) -> float:
    if type(value) is float or (type(value) is int and INT_MIN <= value <= INT_MAX):
        return value
    raise Mismatch("expected a number")


def base64_bytes(value: Any) -> bytes:
    """The bytes of a base64 string, padding and alphabet strictly checked."""
    if type(value) is str:
        try:
            return a2b_base64(value.encode("ascii"), strict_mode=True) if value else b""
        except (Base64Error, UnicodeEncodeError):
            pass
    raise Mismatch("expected base64")


def _value(value: Any) -> Any:
    """A column value before its column is known: any scalar, or bytes by `{"base64": ...}`."""
    kind = type(value)
    if kind is str or value is None or kind is bool or kind is float:
        return value
    if kind is int:
        return _int(value)
    if kind is dict and len(value) == 1 and "base64" in value:
        return base64_bytes(value["base64"])
    raise Mismatch('a value: null, true, false, a number, a string or {"base64": ...}')


def _any(value: Any) -> Any:
    return value


PLAIN: dict[str, Check] = {
    "int": _int,
    "bool": _bool,
    "string": _string,
    "number": _number,
    "base64": base64_bytes,
    "value": _value,
    "any": _any,
}


# -- names for numbers ------------------------------------------------------------------------------------------------
def _member_names(group: str, prefix: str) -> dict[str, int]:
    """The names of a group's constants, without and with C's prefix."""
    members: dict[str, IntFlag | IntEnum] = dict(GROUPS[group].__members__)
    short = {name.rstrip("_"): int(member) for name, member in members.items()}
    return short | {prefix + name.removeprefix("Default"): number for name, number in short.items()}


def _flags(groups: str) -> Check:
    names: dict[str, int] = {}
    for group in filter(None, groups.split(",")):
        if group in GROUPS:
            names |= _member_names(group, "JET_bit")

    def check(value: Any) -> int:
        if type(value) is int and INT_MIN <= value <= INT_MAX:
            return value
        if type(value) is list:
            bits = 0
            for item in value:
                if type(item) is not str or item not in names:
                    raise Mismatch(f"expected names of flags; {item!r:.60} is none of them")
                bits |= names[item]
            return bits
        raise Mismatch("expected an integer or a list of names of flags")

    return check


def _one_of(names: dict[str, int], what: str) -> Check:
    def check(value: Any) -> int:
        if type(value) is int and INT_MIN <= value <= INT_MAX:
            return value
        if type(value) is str and value in names:
            return names[value]
        raise Mismatch(f"expected an integer or the name of a {what}")

    return check


def _column(value: Any) -> int | str:
    if type(value) is str or (type(value) is int and INT_MIN <= value <= INT_MAX):
        return value
    raise Mismatch("expected a column's id or name")


def _index_key(value: Any) -> list[str]:
    """`["+name", "-age"]`, or C's string in which each part ends with a NUL."""
    if type(value) is str:
        return [part for part in value.split("\0") if part]
    if type(value) is list and all(type(item) is str for item in value):
        return value
    raise Mismatch("expected a list of columns, each after + or -")


def _all_names(prefix: str, *enums: type[IntEnum]) -> dict[str, int]:
    return {full: int(m) for e in enums for n, m in e.__members__.items() for full in (n, prefix + n)}


_parameter = _one_of(_all_names("JET_param", Param), "system parameter")
_error = _one_of(_all_names("JET_err", Err) | _all_names("JET_wrn", Wrn), "error")


def _named(names: str, kind: str) -> Check:
    what, _, groups = names.partition(":")
    if what == "flags":
        return _flags(groups)
    if what == "enum":
        stem = groups.removeprefix("JET_")
        return _one_of(_member_names(groups, f"JET_{stem}"), stem)
    if what == "key":
        return _index_key
    check = {"column": _column, "parameter": _parameter, "error": _error}[what]
    return _list_of(check) if kind.startswith("list of ") else check


# -- composed types ---------------------------------------------------------------------------------------------------
def _list_of(item: Check) -> Check:
    def check(value: Any) -> list[Any]:
        if type(value) is not list:
            raise Mismatch("expected an array")
        index = 0
        try:
            out = []
            for index, entry in enumerate(value):  # noqa: B007 - named in the error
                out.append(item(entry))
            return out
        except Mismatch as mismatch:
            raise mismatch.inside(str(index)) from None

    return check


def _map_of(item: Check) -> Check:
    def check(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise Mismatch("expected an object")
        if item is _any:
            return value
        out = {}
        for name, entry in value.items():
            try:
                out[name] = item(entry)
            except Mismatch as mismatch:
                raise mismatch.inside(name) from None
        return out

    return check


def _first_fitting(checks: list[Check], expected: str) -> Check:
    def check(value: Any) -> Any:
        for one in checks:
            try:
                return one(value)
            except Mismatch:
                continue
        raise Mismatch(f"expected {expected}")

    return check


def _nullable(inner: Check) -> Check:
    return lambda value: None if value is None else inner(value)


def _object(name: str) -> Check:
    if name not in _objects:
        _objects[name] = _members(m for m in TYPES[name].members if not m.result_only)
    return _objects[name]


_objects: dict[str, Check] = {}


def check_of(kind: str) -> Check:
    """The check of a declared type."""
    if " | " in kind:
        return _first_fitting([check_of(part) for part in kind.split(" | ")], kind)
    if kind.startswith("list of "):
        return _list_of(check_of(kind.removeprefix("list of ")))
    if kind.startswith("map of "):
        return _map_of(check_of(kind.removeprefix("map of ")))
    if kind.startswith("object "):
        return _object(kind.removeprefix("object "))
    return PLAIN[kind]


def _check_member(member: Member) -> Check:
    check = _named(member.names, member.type) if member.names else check_of(member.type)
    if member.also:
        check = _first_fitting([check, check_of(member.also)], f"{member.type} | {member.also}")
    return _nullable(check) if not member.required and member.default is None and member.type != "value" else check


def _members(members: Iterable[Member]) -> Check:
    """The check of an object with these members: the one loop that every call goes through."""
    rows = tuple(members)
    checks = {member.name: _check_member(member) for member in rows}
    get = checks.get
    defaults = {member.name: member.default for member in rows if not member.required}
    lists = [name for name, default in defaults.items() if isinstance(default, list | dict)]
    required = frozenset(member.name for member in rows if member.required)

    def check(value: Any) -> Params:
        if type(value) is not dict:
            raise Mismatch("expected an object")
        out = defaults.copy()
        for name, given in value.items():
            one = get(name)
            if one is None:
                raise Mismatch("unknown member", name)
            try:
                out[name] = one(given)
            except Mismatch as mismatch:
                raise mismatch.inside(name) from None
        if not value.keys() >= required:
            raise Mismatch("missing member", min(required - value.keys()))
        for name in lists:
            if out[name] is defaults[name]:
                out[name] = type(defaults[name])()
        return out

    return check


def validator(method: Method) -> Validator:
    """Compiles the check of a method's params."""
    check = _members(method.params)
    names = tuple(member.name for member in method.params)

    def validate(params: Params | list[Any]) -> Params:
        if not params and not names:
            return {}
        if type(params) is list:
            if len(params) > len(names):
                raise RpcError(INVALID_PARAMS, member=str(len(names)), description=f"at most {len(names)} positional params")
            params = dict(zip(names, params, strict=False))
        try:
            result: Params = check(params)
            return result
        except Mismatch as mismatch:
            raise RpcError(INVALID_PARAMS, member=mismatch.path, description=mismatch.problem) from None

    return validate
