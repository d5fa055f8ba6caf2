"""The engine and the model, driven together: a small dose in every `make test`, more as a part of `tests.torture`.

The same seed gives the same runs.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from tests.stateful.machine import EmbeddedMachine, EngineMachine

STEPS = 50
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
