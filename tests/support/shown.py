"""What tests say they show of the functions' documented errors and flags; docs/coverage.md is made of it.

    @shows("Seek", "JET_errRecordNotFound", "JET_bitSeekEQ")
    async def test_seeking(...): ...

    CASES = [Case("Seek", "JET_errInvalidGrbit", {"grbit": 1 << 30}), ...]

    @shows_cases(CASES)
    async def test_cases(tmp_path): assert await failures(tmp_path, CASES) == []

Saying so is not enough: below tests/server/coverage a test fails (conftest.py) if `Bench.seen` lacks what it says it shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from jetwire_protocol.declarations import METHODS
from tests.support.bench import SUCCESS, Bench, flags_in
from tests.support.calls import CALLS, Params, Step
from tests.support.cannot_occur import reason

F = TypeVar("F", bound=Callable[..., Any])
DOCUMENTED = {name: row["errors"] for name, row in json.loads((Path(__file__).parents[1] / "data" / "functions.json").read_text()).items()}
Entry = tuple[str, str]  # a function's name, and the C name of an error, warning or flag


@dataclass(frozen=True)
class Case:
    """One call and the error, warning or success it must answer.

    It is the table's call (tests.support.calls) with `params` in place of its own and without `drop`, after the table's
    steps and then `before`; `bare` leaves the table's steps out. `after` takes away what would be in later cases' way.
    """

    method: str
    answer: str
    params: Params = field(default_factory=dict)
    before: tuple[Step, ...] = ()
    drop: tuple[str, ...] = ()
    bare: bool = False
    after: tuple[Step, ...] = ()

    def entries(self) -> list[Entry]:
        own = {**CALLS[self.method].params, **self.params}
        worked = self.answer == SUCCESS or self.answer.startswith("JET_wrn")
        flags = [(self.method, flag) for flag in flags_in(own)] if worked else []
        return [(self.method, self.answer), *flags]


def shows(method: str, *names: str) -> Callable[[F], F]:
    """Names of errors, warnings and flags as in C. May be put above a test several times."""
    return shows_entries((method, name) for name in names)


def shows_cases(cases: Iterable[Case]) -> Callable[[F], F]:
    return shows_entries(entry for case in cases for entry in case.entries())


def shows_entries(entries: Iterable[Entry]) -> Callable[[F], F]:
    given = list(entries)

    def mark(test: F) -> F:
        test.__dict__.setdefault("shown", []).extend(given)
        return test

    return mark


def documenting(error: str, *, among: Iterable[str] = METHODS) -> list[str]:
    """The functions that can answer an error, of those asked for."""
    return [name for name, errors in DOCUMENTED.items() if error in errors and name in among and not reason(name, error)]


def shows_all(error: str, *, among: Iterable[str] = METHODS) -> Callable[[F], F]:
    return shows_entries((name, error) for name in documenting(error, among=among))


def shown_by(test: object) -> list[Entry]:
    found: list[Entry] = getattr(test, "shown", [])
    return found


def not_seen(said: Iterable[Entry]) -> list[Entry]:
    """What no bench has answered since `Bench.seen` was cleared."""
    return sorted(set(said) - Bench.seen)


async def failures(data: Path, cases: Iterable[Case]) -> list[str]:
    """Runs the cases on one server, each in a session, on a table and with names of its own; what answered otherwise."""
    wrong = []
    async with Bench(data) as bench:
        for case in cases:
            world = await bench.world()
            if not case.bare:
                await world.ready(case.method)
            await world.do(case.before)
            params = {name: value for name, value in world.params(case.method, case.params).items() if name not in case.drop}
            answer = await world.answer_of(case.method, params)
            if answer != case.answer:
                wrong.append(f"{case.method} {params}: {answer}, not {case.answer}")
            await world.over(case.method, case.after)
    return wrong
