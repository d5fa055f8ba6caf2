"""What may come next on a shell's line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from jetwire_protocol.data.flags import GROUPS
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.declarations import METHOD_BY_NAME, METHODS, Member

# Parameters that name a table, whatever the method.
_TABLE_PARAMS = frozenset({"tablename", "tableName", "objectName"})


class Proposal(NamedTuple):
    """`text` replaces the last `length` characters before the cursor."""

    text: str
    length: int
    note: str


def proposals(line: str, commands: dict[str, str], table_names: Callable[[], list[str]]) -> Iterator[Proposal]:
    """For a line up to its cursor: commands and methods, then parameters, then their values."""
    head, space, last = line.rpartition(" ")
    if not space:
        names = [*commands.items()] if line.startswith(".") else [(m.name, m.note) for m in METHODS.values()]
        yield from (Proposal(name, len(line), note) for name, note in names if name.lower().startswith(line.lower()))
        return
    first = head.split(" ", 1)[0]
    if first in commands:
        if first in (".use", ".columns"):
            yield from (Proposal(name, len(last), "") for name in table_names() if name.lower().startswith(last.lower()))
        return
    method = METHOD_BY_NAME.get(first)
    if method is None or head.split(" ", 1)[-1][:1] in ("{", "["):
        return
    name, equals, value = last.partition("=")
    if not equals:
        given = {word.partition("=")[0] for word in head.split(" ")[1:]}
        for member in method.params:
            if member.name not in given and member.name.lower().startswith(last.lower()):
                yield Proposal(f"{member.name}=", len(last), member.type + (", required" if member.required else ""))
        return
    for member in method.params:
        if member.name == name:
            values = table_names() if name in _TABLE_PARAMS else _values(member)
            yield from (Proposal(text, len(value), "") for text in values if text.lower().startswith(value.lower()))


@cache
def _values(member: Member) -> list[str]:
    """The names that stand for a parameter's numbers."""
    if member.type == "bool":
        return ["true", "false"]
    if member.names == "parameter":
        return [param.name for param in Param]
    kind, _, groups = member.names.partition(":")
    names = [name.rstrip("_") for group in groups.split(",") if group in GROUPS for name in GROUPS[group].__members__]
    return [f'["{name}"]' for name in names] if kind == "flags" else names
