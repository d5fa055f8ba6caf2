"""Small doses of `tests.crash.restoring`, and its controls: what makes a restore safe, switched off, is noticed."""

from __future__ import annotations

from tests.crash import restoring


def test_points_and_their_control() -> None:
    assert restoring.points(3, 5).failures == []
    assert restoring.points(3, 3, cutting=False).failures


def test_damaged_streams_and_their_control() -> None:
    assert restoring.streams(4, 15).failures == []
    assert restoring.streams(4, 20, checksums=False).failures


def test_kills_in_the_swap_and_their_control() -> None:
    result = restoring.swaps(5, 2)
    assert result.failures == []
    assert result.count
    assert restoring.swaps(6, 3, finishing=False).failures
