"""The engine and the model, driven together: a small dose in every `make test`, as much as you like in `make torture`.

JETWIRE_STATEFUL_RUNS says how many runs of the torture (20,000), JETWIRE_STATEFUL_SEED where to begin; the seed of
every part is printed, and the same seed gives the same runs.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from tests.stateful.machine import EmbeddedMachine, EngineMachine

STEPS = 50
TORTURE_PART = 500
MACHINES = {"memory": EngineMachine, "embedded": EmbeddedMachine}


def drive(machine: type[EngineMachine], runs: int, seed: int, *, shrink: bool = True) -> None:
    """`runs` runs of 50 steps from this seed; raises what the first wrong answer raised, made as short as can be."""
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    bounds = settings(
        max_examples=runs,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=False,
        phases=phases,
        print_blob=False,
        report_multiple_bugs=False,
        verbosity=Verbosity.normal,
        suppress_health_check=list(HealthCheck),
    )
    print(f"{machine.__name__}: {runs} runs from seed {seed}")
    run_state_machine_as_test(seeded(seed)(machine), settings=bounds)


@pytest.mark.parametrize(("kind", "runs"), [("memory", 300), ("embedded", 60)])
def test_every_answer_is_the_models(kind: str, runs: int) -> None:
    drive(MACHINES[kind], runs, seed=1)


@pytest.mark.torture
@pytest.mark.parametrize("kind", ["memory", "embedded"])
def test_every_answer_is_the_models_for_long(kind: str) -> None:
    runs = int(os.environ.get("JETWIRE_STATEFUL_RUNS", "20000"))
    first = int(os.environ.get("JETWIRE_STATEFUL_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
    for part in range(0, runs, TORTURE_PART):
        drive(MACHINES[kind], min(TORTURE_PART, runs - part), first + part)
