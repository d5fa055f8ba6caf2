"""Every index entry that Windows stored in the sample databases, made again from its row."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from jetwire_server.keys import NOT_DECODABLE, KeyMaker
from tests.support.edb import EdbIndex, read_indexes, samples

pytestmark = pytest.mark.skipif(not samples(), reason="the sample databases are not beside the project")


def _made(index: EdbIndex) -> list[tuple[bytes, bytes]]:
    maker = KeyMaker(index.spec)
    return sorted((key, bookmark) for bookmark, values in index.rows for key in maker.keys(values))


@pytest.mark.parametrize("path", samples(), ids=lambda p: p.name)
def test_every_index_entry_is_rebuilt_byte_for_byte(path: Path) -> None:
    compared: Counter[str] = Counter()
    for index in read_indexes(path):
        assert _made(index) == sorted(index.entries), (index.table, index.name)
        assert index.entries == sorted(index.entries), "the order is ours too"
        compared[index.table] += len(index.entries)
    assert compared["MSysObjects"] > 20
    assert len(compared) > 2


@pytest.mark.parametrize("path", samples(), ids=lambda p: p.name)
def test_stored_keys_decode_to_the_values_of_their_rows(path: Path) -> None:
    decoded = 0
    for index in read_indexes(path):
        maker = KeyMaker(index.spec)
        if any(s.multi_valued for s in index.spec.segments):
            continue
        values = dict(index.rows)
        for key, bookmark in index.entries:
            for segment, got, was in zip(index.spec.segments, maker.decode(key), values[bookmark], strict=True):
                if segment.text and was:
                    assert got is NOT_DECODABLE
                elif got is not NOT_DECODABLE:
                    assert got == was
                    decoded += 1
    assert decoded > 20


def test_the_comparison_can_fail() -> None:
    index = next(i for i in read_indexes(samples()[0]) if i.entries)
    turned = tuple(replace(s, descending=not s.descending) for s in index.spec.segments)
    index.spec = replace(index.spec, segments=turned)
    assert _made(index) != sorted(index.entries)
