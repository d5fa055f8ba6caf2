"""Parameters of a call as words on a line: one JSON value, or `name=value` pairs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from io import StringIO
from math import isfinite
from typing import Any

from jetwire._sync.connection import Connection
from jetwire.cli.context import Wrong
from jetwire.errors import RpcError
from jetwire_protocol.declarations import METHOD_BY_NAME, METHODS, Method
from jetwire_protocol.jsonrpc import METHOD_NOT_FOUND

_JSON_VALUE = re.compile(r"\w+=(?=[\[{])")


def split(line: str) -> list[str]:
    """A line as a shell splits it, but with JSON left whole: quotes inside braces and brackets are JSON's."""
    method, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    if not rest:
        return [method] if method else []
    if rest[0] in "{[":
        return [method, rest]
    words = [method]
    while rest:
        try:
            word, rest = _json_word(rest) or _shell_word(rest)
        except ValueError as error:
            raise Wrong(f"{line}: {error}") from None
        words.append(word)
    return words


def _json_word(text: str) -> tuple[str, str] | None:
    """`name=[...]` or `name={...}` at the beginning of a text, and what comes after it; None if there is no such thing."""
    name = _JSON_VALUE.match(text)
    if name is None:
        return None
    try:
        _, end = json.JSONDecoder().raw_decode(text, name.end())
    except (ValueError, RecursionError):
        return None
    return (text[:end], text[end:].lstrip()) if end == len(text) or text[end].isspace() else None


def _shell_word(text: str) -> tuple[str, str]:
    unread = StringIO(text)
    lexer = shlex.shlex(unread, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    word = lexer.get_token()
    return word or "", unread.read().lstrip()


def params(words: Sequence[str]) -> dict[str, Any] | list[Any]:
    """`{"name": 1}`, `[1, 2]`, or `name=1 other=text flags='["A"]'`: what reads as JSON is JSON, anything else is text."""
    if len(words) == 1 and words[0].lstrip()[:1] in ("{", "["):
        try:
            value: dict[str, Any] | list[Any] = _json(words[0])
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
        return _json(text)
    except ValueError:
        return text


def _json(text: str) -> Any:
    """What JSON is, and not what Python takes for it: a `NaN` would arrive as NULL. Texts that say it are the protocol's way."""
    try:
        return json.loads(text, parse_constant=_no_json, parse_float=_finite)
    except RecursionError:
        raise Wrong(f"{text:.40}...: nested too deep") from None


def _no_json(word: str) -> Any:
    raise ValueError(f"{word} is no JSON; it is written as a string")


def _finite(text: str) -> float:
    number = float(text)
    return number if isfinite(number) else _no_json(text)


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
        method, member = method_named(name), error.data.get("member")
        if method is not None and error.data.get("description") == "unknown member" and member in given:
            there = ", ".join(known.name for known in method.params) or "none"
            raise Wrong(f"{method.name} has no parameter {member}; there are {there}") from None
        if error.code != METHOD_NOT_FOUND or method_named(name) is not None:  # then it is one within a Batch
            raise
        like = get_close_matches(name.casefold(), {known.casefold(): known for known in METHODS}, n=1)
        hint = next((f"; there is {known}" for known in METHODS if [known.casefold()] == like), "")
        raise Wrong(f"the server has no method {name or repr(name)}{hint}") from None
