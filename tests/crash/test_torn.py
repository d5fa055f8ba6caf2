"""Torn sets: a sample of what `python -m tests.torture --part torn` tries, and its control."""

from __future__ import annotations

from tests.crash import torn


def test_a_mix_of_two_copies_is_refused_with_a_name_or_is_exactly_one_of_the_instants() -> None:
    result = torn.run(1, 60)
    assert result.failures == []
    outcomes = {what.partition(": ")[2].partition(",")[0] for what in result.table}
    assert outcomes == {"refused", "exactly the older instant", "exactly the newer instant"}, outcomes  # or the mixes try nothing


def test_control_pages_that_know_more_than_the_log_are_noticed_by_the_comparison() -> None:
    assert torn.run(1, 60, pages_are_compared=False).failures
