"""What files say of themselves: the checkpoint, heads of log and page files, snapshot markers, log records. Nothing is recovered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any

import msgspec

from jetwire_server.offline.places import Place, page_files
from jetwire_server.redo.checkpoint import load_checkpoint
from jetwire_server.redo.position import Position
from jetwire_server.redo.reader import LogReader, discover
from jetwire_server.redo.records import COMMIT_HEADER_BYTES, decode_commit
from jetwire_server.snapshot.roots import marker_path, markers
from jetwire_server.store.embedded import changes
from jetwire_server.store.embedded.contents import CheckpointFile
from jetwire_server.store.embedded.pages import PageFile

Facts = dict[str, Any]


def headers(place: Place) -> Iterator[Facts]:
    """The checkpoint, each log generation, each page file, each root's snapshot markers."""
    files, names = place.files, place.names
    checkpoint = load_checkpoint(files, names)
    if checkpoint is not None:
        facts = {**asdict(checkpoint), "position": str(checkpoint.position)}
        body = facts.pop("body")
        facts["attached"] = [row[1] for row in msgspec.msgpack.decode(body, type=CheckpointFile).attached] if body else []
        yield _plain({"file": names.checkpoint, **facts})
    for generation in discover(files, names):
        yield _plain({"file": generation.path, **asdict(generation.header)})
    for path in page_files(place):
        with closing(PageFile.open(files, path, read_only=True)) as file:
            facts = {name: getattr(file.head, name) for name in file.head.__struct_fields__}
        yield _plain({"file": path, **facts, "position": str(Position(*facts["position"]))})
    roots = markers(files, names)
    if any(found.sealed or found.pending for found in roots.values()):  # else there was no snapshot yet
        for root, found in sorted(roots.items()):
            yield {"file": marker_path(root), "sealed": msgspec.to_builtins(found.sealed), "pending": msgspec.to_builtins(found.pending)}


def log_records(place: Place) -> Iterator[Facts]:
    """Every record from the oldest generation on: where it is, what it is, how much it changes."""
    reader = LogReader(place.files, discover(place.files, place.names))
    for record in reader.records():
        head = decode_commit(record.payload)
        change = changes.decode(memoryview(record.payload)[COMMIT_HEADER_BYTES:])
        yield _plain({"position": str(record.position), "bytes": len(record.payload), **head._asdict(), **_said(change)})


def _said(change: changes.Record) -> Facts:
    kind = type(change).__name__.removesuffix("Record").lower()
    if isinstance(change, changes.CommitRecord):
        rows = {str(tree): len(written) for tree, written in change.writes.items()}
        return {"kind": kind, "rows": rows, "created": change.created, "adopted": change.adopted, "dropped": change.dropped}
    if isinstance(change, changes.ChunkRecord):
        return {"kind": kind, "rows": {str(change.tree): len(change.rows)}}
    return {"kind": kind, **{name: getattr(change, name) for name in change.__struct_fields__}}


def _plain(facts: Facts) -> Facts:
    """As JSON takes it; bytes as hexadecimal digits."""
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in facts.items()}
