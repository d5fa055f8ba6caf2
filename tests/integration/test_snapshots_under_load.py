"""Snapshots by plain copy under load: a sample of what `python -m tests.torture --part snapshots` tries, and its controls."""

from __future__ import annotations

import pytest

from tests.crash import snapshots

SNAPSHOTS = 3


def test_copies_under_load_hold_exactly_what_was_frozen() -> None:
    result = snapshots.run(1, SNAPSHOTS)
    assert result.failures == []
    assert result.snapshots == SNAPSHOTS
    assert result.commits > SNAPSHOTS  # or there was no load
    assert result.waited == SNAPSHOTS * snapshots.WRITERS


@pytest.mark.parametrize("judge", snapshots.JUDGES)
def test_control_a_copy_made_while_the_gate_is_open_is_caught_by_each_judge(judge: str) -> None:
    assert snapshots.run(1, 1, gate_is_open=True, judges=(judge,)).failures
