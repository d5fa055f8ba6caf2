"""Writes docs/coverage.md: for each function, its documented errors and flags, and the tests that name them.

    python -m tests.coverage_page

A test counts for a function if it calls its method (`add_column`) or names it (`AddColumn`), and for one of its errors
or flags if the same test function, or what it is parametrized with, names that too. This finds what nobody has tried; it
does not prove that what is named is shown. What has no test is listed, not hidden.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
FUNCTIONS = TESTS / "data" / "functions.json"
PAGE = TESTS.parent / "docs" / "coverage.md"
ALIASES = {"SetCurrentIndex": ("set_index",), "Update": ("update_record",)}


@dataclass(frozen=True)
class Test:
    """One test function, and every name and string in it."""

    where: str
    names: frozenset[str]


def named(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Attribute):
            yield part.attr
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield from re.findall(r"\w+", part.value)


def tests() -> list[Test]:
    found = []
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.append(Test(f"{path.relative_to(TESTS)}::{node.name}", frozenset(named(node))))
    return found


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def short(name: str) -> str:
    return re.sub(r"^JET_(err|wrn|bit|prep)", "", name)


def of_function(name: str, every: list[Test]) -> list[Test]:
    wanted = {name, f"Jet{name}", snake(name), *ALIASES.get(name, ())}
    return [test for test in every if wanted & test.names]


def row(name: str, mine: list[Test]) -> tuple[str, bool]:
    showing = [test.where for test in mine if short(name) in test.names]
    more = f" and {len(showing) - 1} more" if len(showing) > 1 else ""
    return f"| {name} | {f'`{showing[0]}`{more}' if showing else '**none**'} |", bool(showing)


def page() -> str:
    """The whole page; it depends on nothing but the sources of the tests."""
    functions = json.loads(FUNCTIONS.read_text())
    every = tests()
    sections, untried = [], []
    counts = {"functions": [0, 0], "errors": [0, 0], "flags": [0, 0]}
    for name, documented in functions.items():
        mine = of_function(name, every)
        counts["functions"][0] += bool(mine)
        counts["functions"][1] += 1
        if not mine:
            untried.append(name)
        lines = [f"### {name}", "", f"{len(mine)} tests name it.", ""]
        for kind in ("errors", "flags"):
            if documented[kind]:
                lines += [f"| {kind} | test |", "| --- | --- |"]
            for entry in documented[kind]:
                line, shown = row(entry, mine)
                lines.append(line)
                counts[kind][0] += shown
                counts[kind][1] += 1
            if documented[kind]:
                lines.append("")
        sections.append("\n".join(lines))
    summary = "\n".join(f"| {kind} | {shown} | {total} |" for kind, (shown, total) in counts.items())
    return "\n".join(
        [
            "# What the tests name",
            "",
            "Made by `python -m tests.coverage_page`: for each function of ESE's API its documented errors and flags, and a test that",
            "names both. It finds what nobody has tried; that a test names an error does not prove that it shows it.",
            "",
            "| | named by a test | documented |",
            "| --- | --- | --- |",
            summary,
            "",
            f"Functions that no test names: {', '.join(untried) or 'none'}.",
            "",
            *sections,
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
