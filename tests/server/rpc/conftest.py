"""One server process for all tests of a module that do not stop or kill it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    # A socket's path may have 108 bytes; pytest's are longer.
    with (
        tempfile.TemporaryDirectory(prefix="jw") as short,
        ServerProcess(tmp_path_factory.mktemp("server") / "data", "--unix", str(Path(short) / "s")) as process,
    ):
        yield process
