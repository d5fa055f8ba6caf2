"""Writes the pages of docs/ that come from the declarations: the method reference, the parameters, the events.

`python docs/generate.py` after a change of them; a test holds the pages to it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from jetwire_protocol.data.events import EVENTS
from jetwire_protocol.data.parameters import PARAMETERS, Param
from jetwire_protocol.declarations import METHODS, NOTIFICATIONS, TYPES, Member, Method
from jetwire_server.engine.parameters import EFFECTIVE, default_of
from jetwire_server.events import severity_of
from jetwire_server.rpc import handlers
from jetwire_server.rpc.dispatch import not_built

HERE = Path(__file__).parent
assert handlers, "importing the handlers registers them"

_SEVERITIES = ("information", "warning", "error")


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _kind(member: Member) -> str:
    text = member.type
    if member.names.startswith("flags:"):
        text += ", or a list of flag names"
    elif member.names:
        text += f", or a name ({member.names.removeprefix('enum:')})"
    return text


def _members(members: Iterable[Member]) -> str:
    rows = [(f"`{m.name}`", _kind(m), "" if m.required else "optional" if m.default is None else f"default {m.default!r}") for m in members]
    return _table(("member", "type", ""), rows) if rows else "None.\n"


def _method(method: Method, missing: set[str]) -> str:
    out = [f"### {method.name}\n", f"{method.note}\n" if method.note else ""]
    if method.name in missing:
        out.append("*Not built yet: answers `JET_errFeatureNotAvailable`.*\n")
    aliases = ", ".join(f"`{alias}`" for alias in method.aliases)
    out.append(f"Role: `{method.role}`." + (f" Also called {aliases}." if aliases else "") + "\n")
    out += ["Params:\n", _members(method.params), "Result:\n", _members(method.results)]
    if method.errors:
        out.append(f"Errors and warnings: {', '.join(f'`{e}`' for e in method.errors)}.\n")
    return "\n".join(part for part in out if part)


def reference() -> str:
    missing = set(not_built())
    out = [
        "# Method reference\n",
        "Generated from the declarations that also validate, dispatch and make the OpenRPC document (`rpc.discover`, `/openrpc.json`).\n",
        f"{len(METHODS)} methods, {len(TYPES)} objects, {len(NOTIFICATIONS)} notifications. Names may carry C's prefix `Jet`.\n",
        "## Not built yet\n",
        (", ".join(f"`{name}`" for name in sorted(missing)) + "\n") if missing else "None: every method is built.\n",
    ]
    for group in dict.fromkeys(m.group for m in METHODS.values()):
        out.append(f"## {group.capitalize()}\n")
        out += [_method(m, missing) for m in METHODS.values() if m.group == group]
    out.append("## Objects\n")
    out += [f"### {t.name}\n\n{t.note}\n\n{_members(t.members)}" for t in TYPES.values()]
    out.append("## Notifications\n")
    out += [f"### {name}\n\n{_members(members)}" for name, members in NOTIFICATIONS.items()]
    return "\n".join(out)


def parameters() -> str:
    rows = []
    for paramid, (kind, _, low, high, scope, mutable, *_rest) in PARAMETERS.items():
        limits = f"{low} ... {high}" if high is not None else low
        here = "has an effect" if paramid in EFFECTIVE else "kept"
        rows.append((paramid, f"`{Param(paramid).name}`", kind, default_of(paramid), limits, scope, mutable, here))
    return (
        "# System parameters\n\nGenerated. For strings the range is of lengths.\n"
        "All are checked, kept and reported; those that are only `kept` change nothing in this server.\n\n"
        + _table(("id", "name", "type", "default", "range", "scope", "may be set", "here"), rows)
    )


def emitted() -> dict[int, list[str]]:
    """The events that the server's sources emit by number, with the arguments they give; those of snapshots stand in tables there."""
    found: dict[int, list[str]] = {}
    for file in sorted((HERE.parent / "server" / "jetwire_server").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            in_a_table = file.parent.name == "snapshot" and isinstance(node, ast.Constant) and node.value in EVENTS
            if in_a_table and EVENTS[node.value][1]:
                found.setdefault(node.value, [])
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "emit" and node.args:
                numbers = [n.value for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant) and n.value in EVENTS]
                for number in numbers:
                    given = found.setdefault(number, [])
                    given += [word.arg for word in node.keywords if word.arg and word.arg not in given]
    return found


def events() -> str:
    seen = emitted()
    rows = [
        (number, f"`{name}`", severity_of(number), ", ".join(args or seen.get(number, [])))
        for number, (name, _, args) in sorted(EVENTS.items())
        if number in seen
    ]
    return (
        "# Events\n\nGenerated. The ids and names are ESE's;\n"
        "`GetEvents` reads them, `Subscribe` sends them, and they survive restarts.\n\n"
        + _table(("id", "name", "severity", "arguments"), rows)
    )


def pages() -> dict[Path, str]:
    return {HERE / "reference.md": reference(), HERE / "parameters.md": parameters(), HERE / "events.md": events()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
