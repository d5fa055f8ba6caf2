"""A dose of random sequences with every run of the tests; and that each of their rules can be broken."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from jetwire_protocol.declarations import METHODS
from jetwire_protocol.errors import Err, JetError
from jetwire_protocol.validate import Params
from jetwire_server.rpc.dispatch import HANDLERS
from jetwire_server.rpc.peer import Peer
from tests.fuzz import sequences
from tests.fuzz.sequences import play, run

SEQUENCES = 10
TORTURE_SECONDS = 600.0


def test_sequences_of_all_methods_break_no_rule(tmp_path: Path) -> None:
    answers: Counter[str] = sum((play(seed, tmp_path) for seed in range(SEQUENCES)), Counter())
    called = {told.split()[0] for told in answers}
    assert len(called) > 120, METHODS.keys() - called
    assert len([name for name in METHODS if name in answers]) > 90, "or hardly a call was valid"


@pytest.mark.torture
def test_sequences_of_all_methods_for_long(tmp_path: Path) -> None:
    answers = run(count(1_000), tmp_path, TORTURE_SECONDS)
    assert METHODS.keys() == {told.split()[0] for told in answers} - {"sequences"}


# -- controls: each of them must be noticed ---------------------------------------------------------------------------
def _instead(patch: pytest.MonkeyPatch, handler: Callable[[Peer, Params], Any], method: str = "GetThreadStats") -> None:
    patch.setitem(HANDLERS, method, handler)


def an_internal_error(patch: pytest.MonkeyPatch) -> None:
    def crash(peer: Peer, params: Params) -> None:
        raise KeyError("nobody expected this")

    _instead(patch, crash)


def never_answered(patch: pytest.MonkeyPatch) -> None:
    async def hang(peer: Peer, params: Params) -> None:
        await asyncio.Event().wait()

    patch.setattr(sequences, "HANG_SECONDS", 0.5)
    _instead(patch, hang)


def a_traceback(patch: pytest.MonkeyPatch) -> None:
    def tell(peer: Peer, params: Params) -> None:
        raise JetError(Err.InvalidParameter, "Traceback (most recent call last)")

    _instead(patch, tell)


def threadstats_missing(patch: pytest.MonkeyPatch) -> None:
    _instead(patch, lambda peer, params: {"secret": 1})


def nobody_expected_it(patch: pytest.MonkeyPatch) -> None:
    def complain(peer: Peer, params: Params) -> None:
        logging.getLogger("jetwire_server.rpc").error("nobody expected it")
        raise JetError(Err.InvalidParameter)

    _instead(patch, complain)


def another_connections_SnapshotStatus_waits(patch: pytest.MonkeyPatch) -> None:
    async def wait(peer: Peer, params: Params) -> None:
        await asyncio.Event().wait()

    _instead(patch, wait, "SnapshotStatus")


def sessions_outlive_their_connection(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Peer, "at_close", lambda *_: None)


@pytest.mark.parametrize(
    "control",
    [
        an_internal_error,
        never_answered,
        a_traceback,
        threadstats_missing,
        nobody_expected_it,
        another_connections_SnapshotStatus_waits,
        sessions_outlive_their_connection,
    ],
)
def test_control(control: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control(monkeypatch)
    words = control.__name__.replace("_", " ").replace("connections ", "connection's ").replace("threadstats ", "threadstats: ")
    with pytest.raises(AssertionError, match=words):
        run(iter(range(SEQUENCES)), tmp_path, 60)
