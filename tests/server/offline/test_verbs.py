"""`jetwired check`, `recover` and `verify` on real directories: sound ones pass, each kind of damage is named."""

from __future__ import annotations

import asyncio
import errno
import getpass
import json
import os
import pty
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jetwire_protocol.data.flags import OSSnapshotPrepareGrbit
from jetwire_server import failpoints
from jetwire_server.__main__ import app
from jetwire_server.files.directory_lock import DirectoryLock
from jetwire_server.files.local import LocalFiles
from tests.support.hosted import Hosted, copy_of

Damage = Callable[[Path], object]


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


@pytest.fixture
def full_disk() -> Iterator[None]:
    failpoints.arm("files.before_write", full)
    yield
    failpoints.disarm()


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
    "a missing page file": (lambda d: (d / "a.edb").unlink(), "no such database"),
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


def everything(copy: Path) -> dict[str, bytes]:
    return {str(p.relative_to(copy)): p.read_bytes() for p in copy.rglob("*") if p.is_file() and not p.name.endswith("-lock")}


def test_verify_leaves_the_copy_as_it_is_and_notes_each_time_who_when_and_what(frozen: tuple[Path, Path]) -> None:
    copy, manifest = frozen
    before, begun = everything(copy), time.time()
    assert run("verify", copy, "--manifest", manifest)[0] == 0
    flip(copy / "default" / "a.edb", b"7 of 0 xxx")
    assert run("verify", copy, "--manifest", manifest)[0] == 6
    flip(copy / "default" / "a.edb", bytes([ord("7") ^ 0x10]) + b" of 0 xxx")
    assert everything(copy) == before
    records = [json.loads(line) for line in (copy.parent / "copy.verified.jsonl").read_text().splitlines()]
    assert [record["result"] for record in records] == ["good", "bad"]
    for record in records:
        assert begun <= record["time"] <= time.time()
        assert record["who"] == f"{getpass.getuser()}@{socket.gethostname()}"
        assert (record["copy"], record["manifest"]) == (str(copy), str(manifest))
    assert "checksum" in " ".join(records[1]["problems"])
    assert run("verify", copy / "default", "--manifest", manifest)[0] == 0, "a copy of the instance alone"
    assert (copy / "default.verified.jsonl").exists()


async def test_verify_names_each_way_in_which_a_database_differs_from_the_manifest(frozen: tuple[Path, Path]) -> None:
    copy, manifest = frozen
    said = json.loads(manifest.read_text())
    wanted = said[0]["instances"][0]["databases"][0]
    for name, other in (("digest", "0" * len(str(wanted["digest"]))), ("records", 1049), ("tables", 2), ("name", "b.edb")):
        text = json.dumps([{**said[0], "instances": [{**said[0]["instances"][0], "databases": [{**wanted, name: other}]}]}])
        (copy.parent / "other.json").write_text(text)
        code, output = await asyncio.to_thread(run, "verify", copy, "--manifest", copy.parent / "other.json")
        assert (code, str(other) in output) == (6, True), output


def test_verify_names_a_missing_file(frozen: tuple[Path, Path]) -> None:
    copy, manifest = frozen
    for file in ("a.edb", "edb.log", "edb.chk"):
        kept = (copy / "default" / file).read_bytes()
        (copy / "default" / file).unlink()
        code, output = run("verify", copy, "--manifest", manifest)
        assert (code, f"{file} is missing" in output) == (6, True), output
        (copy / "default" / file).write_bytes(kept)
    assert run("verify", copy, "--manifest", manifest)[0] == 0


async def test_verify_without_a_manifest_says_that_nothing_was_compared(frozen: tuple[Path, Path]) -> None:
    copy, _ = frozen
    code, output = await asyncio.to_thread(run, "verify", copy, "--json")
    said = json.loads(output)
    assert (code, said["good"], len(said["notes"])) == (0, True, 1)
    assert "compared with nothing" in said["notes"][0]
    assert said["record"] == str(copy.parent / "copy.verified.jsonl")


async def test_verify_tells_the_copy_of_another_instance(frozen: tuple[Path, Path], tmp_path: Path) -> None:
    _, manifest = frozen
    other = await (await Hosted(tmp_path / "other").start()).create()
    await other.write(10)
    await other.stop()
    code, output = await asyncio.to_thread(run, "verify", other.data, "--manifest", manifest)
    assert (code, "a copy of something else" in output) == (6, True)


@pytest.mark.parametrize("place", ["nowhere", "empty", "a file"])
def test_verify_of_what_is_no_copy_is_never_good(frozen: tuple[Path, Path], tmp_path: Path, place: str) -> None:
    _, manifest = frozen
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").touch()
    code, output = run("verify", tmp_path / place, "--manifest", manifest)
    assert code != 0
    assert "good" not in output.replace("NOT GOOD", "")
    assert run("verify", tmp_path / "empty", "--manifest", tmp_path / "no manifest")[0] == 2


def test_verify_of_a_read_only_copy(frozen: tuple[Path, Path], tmp_path: Path) -> None:
    _, manifest = frozen
    (tmp_path / "home").mkdir()
    if subprocess.run(["mount", "--bind", tmp_path, tmp_path / "home"], capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", tmp_path / "home"], check=True)
        code, output = run("verify", tmp_path / "home" / "copy", "--manifest", manifest)
        assert (code, "not recorded" in output) == (0, True), output
    finally:
        subprocess.run(["umount", "--lazy", tmp_path / "home"], check=False)


def test_verify_shows_progress_on_a_terminal_and_is_quiet_elsewhere(frozen: tuple[Path, Path]) -> None:
    copy, manifest = frozen
    command = [sys.executable, "-m", "jetwire_server", "verify", str(copy), "--manifest", str(manifest), "--json"]
    quiet = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (quiet.returncode, quiet.stderr, len(quiet.stdout.splitlines())) == (0, "", 1)
    ours, theirs = pty.openpty()
    shown = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    text = b""
    with suppress(OSError):  # the other end is closed
        while piece := os.read(ours, 4096):
            text += piece
    os.close(ours)
    out, _ = shown.communicate(timeout=60)
    assert json.loads(out)["good"]
    assert b"edb." in text  # whichever file it last had the time to name


async def test_nothing_is_read_while_a_server_has_the_directory(tmp_path: Path) -> None:
    hosted = await Hosted(tmp_path / "data").start()
    await hosted.stop()
    with DirectoryLock(LocalFiles(hosted.data)):
        for verb in ("check", "recover", "verify"):
            for place in (hosted.data, hosted.directory):
                assert run(verb, place)[0] == 2
    assert run("check", tmp_path / "nowhere")[0] == 2


def test_on_a_full_disk_it_is_said_what_was_found(tmp_path: Path, full_disk: None) -> None:
    """Only the record beside it cannot be made; no room for LMDB's lock file is no fault of a database."""
    (tmp_path / "data/default").mkdir(parents=True)
    (tmp_path / "data/default/edb.log").touch()
    (tmp_path / "data/jetwire.lock").touch()
    code, output = run("verify", tmp_path / "data")
    assert (code, "not recorded" in output) == (6, True), output
    assert (tmp_path / "data.verified.jsonl").read_bytes() == b""
    failpoints.disarm()
    asyncio.run(one_database(tmp_path / "sound"))
    for lock in (tmp_path / "sound/default").glob("*-lock"):
        lock.unlink()
    failpoints.arm("files.before_allocate", full)
    code, output = run("check", tmp_path / "sound")
    assert (code, "JET_errDiskFull" in output) == (2, True), output
    failpoints.disarm()
    assert run("check", tmp_path / "sound")[0] == 0


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def one_database(data: Path) -> None:
    hosted = await (await Hosted(data).start()).create()
    await hosted.stop()
