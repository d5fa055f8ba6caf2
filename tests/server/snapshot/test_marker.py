"""Parts restored from different instants are recognised; a crash in the middle of marking is not mistaken for one."""

from __future__ import annotations

import itertools

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server.snapshot import marker
from jetwire_server.snapshot.marker import Marker, RootMarkers

ROOTS = ("data", "logs", "more")


def mark(n: int) -> Marker:
    return Marker(n, f"m{n}", 1000.0 + n, f"{n}:0:0", 1, ROOTS)


def history(snapshots: int) -> list[dict[str, bytes | None]]:
    """Every state of the roots' files while so many snapshots mark them, one write at a time."""
    now: dict[str, bytes | None] = dict.fromkeys(ROOTS)
    states = [dict(now)]
    for n in range(1, snapshots + 1):
        for root in ROOTS:
            now[root] = marker.first_round(marker.read(now[root], root), mark(n))
            states.append(dict(now))
        for root in ROOTS:
            now[root] = marker.second_round(mark(n))
            states.append(dict(now))
    return states


def odd(files: dict[str, bytes | None]) -> list[str]:
    return marker.odd_ones({root: marker.read(data, root) for root, data in files.items()}, log="logs")


def test_no_crash_in_the_middle_of_marking_is_refused() -> None:
    for state in history(3):
        assert odd(state) == []


def frozen_states(snapshots: int) -> list[dict[str, bytes | None]]:
    """What a copy taken while frozen holds: all roots sealed."""
    return history(snapshots)[6::6]


@pytest.mark.parametrize("torn", list(itertools.product(range(3), repeat=3)))
def test_every_mix_of_frozen_copies_is_refused_naming_the_odd_one(torn: tuple[int, int, int]) -> None:
    copies = frozen_states(3)
    mixed = {root: copies[which][root] for root, which in zip(ROOTS, torn, strict=True)}
    expected = sorted(root for root, which in zip(ROOTS, torn, strict=True) if which != max(torn))
    assert odd(mixed) == expected


def test_a_root_that_was_never_marked_is_odd_beside_marked_ones() -> None:
    copy = dict(frozen_states(1)[0], logs=None)
    assert odd(copy) == ["logs"]


@pytest.mark.parametrize("at", range(0, 400, 7))
def test_a_damaged_marker_is_reported(at: int) -> None:
    whole = marker.second_round(mark(1))
    at %= len(whole)
    damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    with pytest.raises(JetError) as caught:
        marker.read(damaged, "data")
    assert caught.value.code == Err.BadRestoreTargetInstance


def test_nothing_is_an_empty_marker() -> None:
    assert marker.read(None, "data") == RootMarkers()
