"""`jetwired check`, `recover` and `verify` on real directories: sound ones pass, each kind of damage is named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jetwire_protocol.data.flags import OSSnapshotPrepareGrbit
from jetwire_server.__main__ import app
from jetwire_server.files.directory_lock import DirectoryLock
from jetwire_server.files.local import LocalFiles
from tests.support.hosted import Hosted, copy_of

Damage = Callable[[Path], object]


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


@pytest.fixture
async def frozen(tmp_path: Path) -> tuple[Path, Path]:
    """A copy taken during a freeze, and its manifest."""
    hosted = await (await Hosted(tmp_path / "data").start()).create()
    for _ in range(5):
        await hosted.write(200)
    await hosted.instance.store.checkpoint()
    await hosted.write(50)
    snapshots = hosted.hosting.snapshots
    snap = snapshots.prepare(int(OSSnapshotPrepareGrbit.ContinueAfterThaw))
    await snapshots.freeze(snap, lease_ms=60_000)
    copy = copy_of(hosted.data, tmp_path / "copy")
    await snapshots.thaw(snap)
    for _ in range(200):
        manifest = snapshots.status().manifest
        assert manifest is not None
        if all(db.digest for row in manifest.instances for db in row.databases):
            break
        await asyncio.sleep(0.02)
    path = tmp_path / "manifest.json"
    assert manifest is not None
    path.write_text(json.dumps([{"url": "tcp://there", **manifest.to_wire()}]))
    await hosted.write(1)
    await hosted.stop()
    return copy, path


def flip(path: Path, needle: bytes) -> None:
    """Everywhere: a page file has older pages too, which nobody reads."""
    data = path.read_bytes()
    assert needle in data
    path.write_bytes(data.replace(needle, bytes([needle[0] ^ 0x10]) + needle[1:]))


def test_a_sound_copy_is_sound_recovers_and_verifies(frozen: tuple[Path, Path]) -> None:
    copy, manifest = frozen
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and not p.name.endswith("-lock")}
    for place in (copy, copy / "default"):
        code, output = run("check", place)
        assert code == 0, output
    assert before == {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and not p.name.endswith("-lock")}
    code, output = run("verify", copy, "--manifest", manifest, "--json")
    assert code == 0, output
    record = json.loads((copy.parent / "copy.verified.jsonl").read_text())
    assert record["result"] == "good"
    assert record["instances"][0]["databases"][0]["records"] == 1050
    code, output = run("recover", copy)
    assert code == 0
    assert "a.edb" in output


DAMAGE: dict[str, tuple[Damage, str]] = {
    "a value": (lambda d: flip(d / "a.edb", b"7 of 0 xxx"), "checksum"),
    "a log record": (lambda d: flip(d / "edb.log", b"203 of 1"), "damaged"),
    "a log header": (lambda d: flip(d / "edb.log", b"JETWLOG"), "header"),
    "the checkpoint file": (lambda d: flip(d / "edb.chk", b"JETWCHK"), "edb.chk"),
    "a cut page file": (lambda d: (d / "a.edb").write_bytes((d / "a.edb").read_bytes()[:20_000]), "truncated"),
    "a missing page file": (lambda d: (d / "a.edb").unlink(), "missing"),
    "a missing log": (lambda d: (d / "edb.log").unlink(), "missing"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_check_names_each_kind_of_damage(frozen: tuple[Path, Path], damage: str) -> None:
    copy, manifest = frozen
    inflict, word = DAMAGE[damage]
    inflict(copy / "default")
    code, output = run("check", copy)
    assert code == 1, output
    assert word in output
    assert run("verify", copy, "--manifest", manifest)[0] == 6


async def test_verify_refuses_a_copy_that_is_not_what_was_frozen(frozen: tuple[Path, Path]) -> None:
    copy, manifest = frozen
    later = await Hosted(copy_of(copy, copy.parent / "later")).start()
    await later.session.create_database("b.edb")
    await later.stop()
    code, output = await asyncio.to_thread(run, "verify", later.data, "--manifest", manifest)
    assert code == 6
    assert "beyond the frozen position" in output


def test_verify_tells_another_digest_and_another_snapshot(frozen: tuple[Path, Path]) -> None:
    copy, manifest = frozen
    said = json.loads(manifest.read_text())
    said[0]["instances"][0]["databases"][0]["records"] += 1
    manifest.write_text(json.dumps(said))
    code, output = run("verify", copy, "--manifest", manifest)
    assert (code, "1051 records" in output) == (6, True)
    said[0]["marker"] = "0" * 16
    manifest.write_text(json.dumps(said))
    code, output = run("verify", copy, "--manifest", manifest)
    assert (code, "something else" in output) == (6, True)


async def test_nothing_is_read_while_a_server_has_the_directory(tmp_path: Path) -> None:
    hosted = await Hosted(tmp_path / "data").start()
    await hosted.stop()
    with DirectoryLock(LocalFiles(hosted.data)):
        for verb in ("check", "recover", "verify"):
            for place in (hosted.data, hosted.directory):
                assert run(verb, place)[0] == 2
    assert run("check", tmp_path / "nowhere")[0] == 2
