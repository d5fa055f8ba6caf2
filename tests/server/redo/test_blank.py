"""The next file of the log: whole, durable and all zeros, made a piece at a time, or at once where nobody can wait for that."""

from __future__ import annotations

from collections import Counter

import pytest

from jetwire_server.files.memory import MemoryFiles
from jetwire_server.redo.generation import blank, finished
from tests.server.redo.logs import NAMES

FILE_BYTES = 4 << 20


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("begun", [0, 1, 3, 100])
def test_it_is_whole_and_durable(begun: int, at_once: bool) -> None:
    steps: Counter[str] = Counter()
    files = MemoryFiles(step=lambda what, path: steps.update([what]))
    making = blank(files, NAMES.prepared, FILE_BYTES, "")
    for _ in range(begun):
        if next(making, making) is making:  # it is done
            making = blank(files, NAMES.prepared, FILE_BYTES, "")
            break
    writes = steps["write"]
    file = finished(making, at_once=at_once)
    assert file.size() == FILE_BYTES
    found = files.instant()
    assert found.durable[found.names[NAMES.prepared]] == bytes(FILE_BYTES), "after a power cut too"
    assert not found.journals[found.names[NAMES.prepared]]
    assert (steps["write"] - writes <= 1) == at_once, "the zeros are not waited for"
    file.close()
