"""What a file is, told from its beginning: for questions about databases that nobody has attached."""

from __future__ import annotations

import os
from contextlib import closing

from jetwire_protocol.errors import Err, JetError
from jetwire_server.files.interface import Files
from jetwire_server.redo import checkpoint, generation
from jetwire_server.store.embedded.structure import read_metas
from jetwire_server.store.interface import FileFacts

_START_BYTES = 4096


def facts_of(files: Files, path: str) -> FileFacts:
    if not files.exists(path):
        raise JetError(Err.FileNotFound, path, path=path)
    with closing(files.open(path, read_only=True)) as file:
        size = file.size()
        start = file.read(0, min(size, _START_BYTES))
        kind = "database" if start and read_metas(file) else ""
    if start.startswith(generation.MAGIC):
        kind = "log"
    elif start.startswith(checkpoint.MAGIC):
        kind = "checkpoint"
    return FileFacts(size, os.stat(files.real_path(path)).st_blocks * 512, kind, start)
