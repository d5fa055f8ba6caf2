"""Snapshots in use, beside a plain count of each."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from jetwire_server.store.snapshots import Snapshots


@pytest.mark.parametrize("seed", range(20))
def test_snapshots_that_come_and_go(seed: int) -> None:
    dice = random.Random(seed)
    snapshots, model, newest = Snapshots(), Counter[int](), 0
    for _ in range(500):
        newest += dice.random() < 0.2
        if dice.random() < 0.5:
            snapshots.opened(newest)
            model[newest] += 1
        elif model:
            one = dice.choice(list(model))
            snapshots.closed(one)
            model[one] -= 1
            model += Counter()  # without those at 0
        assert snapshots.all() == sorted(model)
        assert snapshots.any_open() == bool(model)
        assert snapshots.oldest(-1) == min(model, default=-1)
