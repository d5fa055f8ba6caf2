"""Writes docs/coverage.md: for each function, its documented errors and flags, and what the tests have to say of them.

    python -m tests.coverage_page

An error or flag is

* shown, if a test below tests/server/coverage says so (tests.support.shown): such a test fails unless a server really
  gave that answer to a call of that function while it ran;
* named, which is weaker, if one test function calls the method (`add_column`, `AddColumn`) and names the error in what it
  expects, or the flag anywhere. It finds what nobody has tried; it does not prove that what is named is shown;
* impossible, with the reason, if tests.support.cannot_occur says so;
* none otherwise: listed, not hidden.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.cannot_occur import reason
from tests.support.shown import Entry, shown_by

TESTS = Path(__file__).parent
PROVING = TESTS / "server" / "coverage"
FUNCTIONS = TESTS / "data" / "functions.json"
PAGE = TESTS.parent / "docs" / "coverage.md"
ALIASES = {"SetCurrentIndex": ("set_index",), "Update": ("update_record",)}
CLASSES = ("shown", "named", "impossible", "none")


@dataclass(frozen=True)
class Test:
    """One test function, and every name and string in it."""

    where: str
    names: frozenset[str]


# -- shown ------------------------------------------------------------------------------------------------------------
def shown() -> dict[Entry, str]:
    """What is shown, and the first test that does."""
    found: dict[Entry, str] = {}
    for path in sorted(PROVING.glob("test_*.py")):
        where = path.relative_to(TESTS).with_suffix("")
        module = importlib.import_module(".".join(("tests", *where.parts)))
        for name, test in vars(module).items():
            if name.startswith("test_") and callable(test):
                for entry in shown_by(test):
                    found.setdefault(entry, f"{path.relative_to(TESTS)}::{name}")
    return found


# -- named ------------------------------------------------------------------------------------------------------------
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


# -- the page ---------------------------------------------------------------------------------------------------------
def row(function: str, name: str, proved: dict[Entry, str], mine: list[Test]) -> tuple[str, str]:
    """A line of the page, and its class."""
    if (function, name) in proved:
        return f"| {name} | shown by `{proved[function, name]}` |", "shown"
    if why := reason(function, name):
        return f"| {name} | cannot occur: {why} |", "impossible"
    naming = next((test.where for test in mine if short(name) in test.names), None)
    if naming:
        return f"| {name} | named in `{naming}` |", "named"
    return f"| {name} | **none** |", "none"


def page() -> str:
    """The whole page; it depends on nothing but the sources of the tests."""
    functions = json.loads(FUNCTIONS.read_text())
    every, proved = tests(), shown()
    sections, missing = [], []
    counts = {kind: dict.fromkeys(CLASSES, 0) for kind in ("errors", "flags")}
    for function, documented in functions.items():
        mine = of_function(function, every)
        lines = [f"### {function}", ""]
        for kind, count in counts.items():
            rows = [row(function, name, proved, mine) for name in documented[kind]]
            if rows:
                lines += [f"| {kind} | test |", "| --- | --- |", *(line for line, _ in rows), ""]
            for _, found in rows:
                count[found] += 1
            if kind == "errors":
                lacking = [short(name) for name, (_, found) in zip(documented[kind], rows, strict=True) if found == "none"]
                if lacking:
                    missing.append(f"* {function}: {', '.join(lacking)}")
        sections.append("\n".join(lines))
    summary = [f"| {kind} | {' | '.join(str(count[one]) for one in CLASSES)} | {sum(count.values())} |" for kind, count in counts.items()]
    return "\n".join(
        [
            "# What the tests show",
            "",
            "Made by `python -m tests.coverage_page`: each function of ESE's API with its documented errors and flags, and a test of each.",
            "",
            "- *Shown*: a test declares it, and fails unless a server really gave that answer to a call of that function while it ran.",
            "- *Named*: a test calls the function and names the error or flag; that it shows it, nobody checks.",
            "- *Impossible*: no call can get it here, and why.",
            "- *None*: nobody has tried.",
            "",
            "| | shown | named | impossible | none | documented |",
            "| --- | --- | --- | --- | --- | --- |",
            *summary,
            "",
            "## Errors without a test",
            "",
            *(missing or ["None."]),
            "",
            "## Function by function",
            "",
            *sections,
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
