"""The table of valid calls is one: each method answers what the table says, on a server where nothing is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetwire_protocol.declarations import METHODS
from tests.support.bench import SUCCESS, Bench
from tests.support.calls import CALLS
from tests.support.shown import Case, failures, not_seen


def test_the_table_knows_every_method() -> None:
    assert CALLS.keys() == METHODS.keys()


async def test_each_call_answers_what_the_table_says(tmp_path: Path) -> None:
    wrong = []
    async with Bench(tmp_path) as bench:
        for method, form in CALLS.items():
            if not form.alone:
                world = await bench.world()
                await world.ready(method)
                answer = await world.name_of(method)
                if answer != form.answer:
                    wrong.append(f"{method}: {answer}")
                await world.over(method)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("method", [method for method, form in CALLS.items() if form.alone])
async def test_each_call_that_wants_a_server_to_itself_too(method: str, tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        world = await bench.world()
        await world.ready(method)
        assert await world.name_of(method) == CALLS[method].answer


async def test_what_was_never_answered_is_told_from_what_was(tmp_path: Path) -> None:
    wrong = await failures(
        tmp_path, [Case("Seek", SUCCESS), Case("Seek", "JET_errRecordNotFound"), Case("Seek", "JET_errKeyNotMade", bare=True)]
    )
    assert [one.partition(" ")[0] for one in wrong] == ["Seek"]
    said = [("Seek", SUCCESS), ("Seek", "JET_bitSeekEQ"), ("Seek", "JET_errKeyNotMade"), ("Seek", "JET_errRecordNotFound")]
    assert not_seen(said) == [("Seek", "JET_errRecordNotFound")]
