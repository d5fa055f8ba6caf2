"""Failpoints fire at the hit they were armed for, and never otherwise."""

import time
from collections.abc import Iterator

import pytest

from jetwire_server import failpoints


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    failpoints.disarm()


def test_an_unarmed_place_does_nothing() -> None:
    failpoints.hit("anywhere")


def test_the_named_hit_fires_and_no_other() -> None:
    failpoints.arm_from_environment("here=error:2")
    failpoints.hit("here")
    failpoints.hit("elsewhere")
    with pytest.raises(OSError, match="failpoint"):
        failpoints.hit("here")
    failpoints.hit("here")


def test_a_pause_blocks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    failpoints.arm_from_environment("here=pause:0.25")
    failpoints.hit("here")
    failpoints.hit("here")
    assert slept == [0.25]
