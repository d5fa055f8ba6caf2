"""Parameters of a call as words on a line: one JSON value, or `name=value` pairs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from jetwire._sync.connection import Connection
from jetwire.cli.context import Wrong
from jetwire.errors import RpcError
from jetwire_protocol.declarations import METHOD_BY_NAME, Method
from jetwire_protocol.jsonrpc import METHOD_NOT_FOUND


def split(line: str) -> list[str]:
    """A line as a shell splits it, but with JSON left whole: quotes inside braces and brackets are JSON's."""
    method, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    if not rest:
        return [method] if method else []
    if rest[0] in "{[":
        return [method, rest]
    try:
        return [method, *shlex.split(rest)]
    except ValueError as error:
        raise Wrong(f"{line}: {error}") from None


def params(words: Sequence[str]) -> dict[str, Any] | list[Any]:
    """`{"name": 1}`, `[1, 2]`, or `name=1 other=text flags='["A"]'`: what reads as JSON is JSON, anything else is text."""
    if len(words) == 1 and words[0].lstrip()[:1] in ("{", "["):
        try:
            value: dict[str, Any] | list[Any] = json.loads(words[0])
        except ValueError as error:
            raise Wrong(f"{words[0]}: {error}") from None
        return value
    given: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise Wrong(f"{word}: a parameter is name=value, or all of them are one JSON object")
        if name in given:
            raise Wrong(f"{name} is given twice")
        given[name] = _value(text)
    return given


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def by_name(method: Method | None, given: dict[str, Any] | list[Any]) -> dict[str, Any]:
    """Parameters by position as parameters by name."""
    if isinstance(given, dict):
        return given
    if method is None or len(given) > len(method.params):
        raise Wrong("too many parameters" if method else "parameters by position need a method that is known here")
    return {member.name: value for member, value in zip(method.params, given, strict=False)}


def method_named(name: str) -> Method | None:
    """A method by any of its spellings; None for one that this client does not know (the server may)."""
    return METHOD_BY_NAME.get(name)


def call(connection: Connection, name: str, given: dict[str, Any]) -> Any:
    """A method by the name that somebody typed."""
    try:
        return connection.call(name, **given)
    except RpcError as error:
        if error.code != METHOD_NOT_FOUND:
            raise
        raise Wrong(f"the server has no method {name}") from None
