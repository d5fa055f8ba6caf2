"""The controls: an engine made wrong on purpose must be caught by the model, within the dose of `make test`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jetwire_protocol.data.flags import SetIndexRangeGrbit
from jetwire_server.engine import update
from jetwire_server.engine.autoincrement import Counters
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.session import Session
from jetwire_server.store.transaction import StoreTransaction
from tests.stateful.machine import EngineMachine
from tests.stateful.test_engine import drive

Patch = pytest.MonkeyPatch
RUNS = 300


def conflicts_are_ignored(patch: Patch) -> None:
    patch.setattr(StoreTransaction, "check_unchanged", lambda *args: None)


def range_limits_are_off_by_one(patch: Patch) -> None:
    right = Cursor.set_index_range

    async def wrong(self: Cursor, grbit: int = 0) -> None:
        await right(self, grbit ^ int(SetIndexRangeGrbit.RangeInclusive))

    patch.setattr(Cursor, "set_index_range", wrong)


def an_inner_rollback_undoes_nothing(patch: Patch) -> None:
    patch.setattr(StoreTransaction, "rollback_to", lambda *args: None)


def a_secondary_entry_outlives_its_record(patch: Patch) -> None:
    patch.setattr(update, "remove_entries", lambda *args: None)


def a_replace_leaves_the_indexes_alone(patch: Patch) -> None:
    patch.setattr(update, "change_entries", lambda *args: None)


def moving_keeps_the_update(patch: Patch) -> None:
    right = Cursor.move

    async def wrong(self: Cursor, rows: int, grbit: int = 0) -> None:
        kept, self.buffer = self.buffer, None
        try:
            await right(self, rows, grbit)
        finally:
            self.buffer = kept

    patch.setattr(Cursor, "move", wrong)


def an_auto_increment_value_comes_twice(patch: Patch) -> None:
    patch.setattr(Counters, "ready", lambda *args: 7)


def rollback_keeps_cursors_open(patch: Patch) -> None:
    def wrong(self: Session, level: int) -> None:
        for cursor in list(self.cursors.values()):
            cursor.rolled_back(level)

    patch.setattr(Session, "_undo_cursors", wrong)


def a_copy_forgets_a_column(patch: Patch) -> None:
    right: Callable[..., Any] = Cursor._prepare_from_record

    async def wrong(self: Cursor, *args: Any) -> Any:
        buffer = await right(self, *args)
        buffer.stored.popitem()
        return buffer

    patch.setattr(Cursor, "_prepare_from_record", wrong)


def a_search_keeps_the_range(patch: Patch) -> None:
    right = Cursor.seek

    async def wrong(self: Cursor, grbit: int) -> None:
        place = self.range_low, self.range_high
        await right(self, grbit)
        self.range_low, self.range_high = place  # a search must end the range

    patch.setattr(Cursor, "seek", wrong)


@pytest.mark.plain
@pytest.mark.parametrize(
    "mutation",
    [
        conflicts_are_ignored,
        range_limits_are_off_by_one,
        an_inner_rollback_undoes_nothing,
        a_secondary_entry_outlives_its_record,
        a_replace_leaves_the_indexes_alone,
        moving_keeps_the_update,
        an_auto_increment_value_comes_twice,
        rollback_keeps_cursors_open,
        a_copy_forgets_a_column,
        a_search_keeps_the_range,
    ],
    ids=lambda mutation: mutation.__name__,
)
def test_a_wrong_engine_is_caught(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises(AssertionError):
        drive(EngineMachine, RUNS, seed=1, shrink=False)
