"""What must not be opened is refused with a named error that says what to do, and nothing on disk is changed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lmdb
import msgspec
import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.files.directory_lock import refuse_network_file_system
from jetwire_server.files.local import LocalFiles
from jetwire_server.redo import checkpoint, generation
from jetwire_server.redo.names import LogNames
from jetwire_server.redo.position import SECTOR_BYTES
from jetwire_server.store.embedded import contents, structure
from jetwire_server.store.embedded.layout import seal, tree_prefix
from jetwire_server.store.interface import tree_id
from tests.crash.rig import abandon, started

ROOT = Path(__file__).parents[2]
ROWS = 40
WIDE = b"-" * 1_000  # ends each key: the rows need more than one leaf


async def make(root: Path, *, path: str = "a.edb") -> None:
    """A directory whose log reaches over several generations behind the checkpoint; its process was killed."""
    LocalFiles(root).make_directory("")
    store = await started(LocalFiles(root), root, circular=False)
    tree = tree_id(await store.create_database(path), 1)
    for number in range(ROWS):
        writer = await store.begin()
        writer.put(tree, b"%03d" % number + WIDE, bytes(5_000))
        await writer.commit()
        if number == 4:
            await store.checkpoint()
    await abandon(store)


def fingerprint(root: Path) -> dict[str, str]:
    """Every name with the hash of its content; LMDB's lock files mean nothing."""
    files = [path for path in sorted(root.rglob("*")) if not path.name.endswith("-lock")]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in files}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good") / "data"
    asyncio.run(make(root))
    return root


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("other") / "data"
    asyncio.run(make(root))
    return root


# -- harms: (directory, another instance's directory) ------------------------------------------------------------------
def newer_log(root: Path, _: Path) -> None:
    data = (root / "edb.log").read_bytes()
    header = generation.decode_header(data[:SECTOR_BYTES], "edb.log")
    known, generation.FORMAT = generation.FORMAT, 99
    try:
        (root / "edb.log").write_bytes(header.encode() + data[SECTOR_BYTES:])
    finally:
        generation.FORMAT = known


def newer_checkpoint(root: Path, _: Path) -> None:
    files, names = LocalFiles(root), LogNames()
    found = checkpoint.load_checkpoint(files, names)
    assert found is not None
    known, checkpoint.FORMAT = checkpoint.FORMAT, 99
    try:
        checkpoint.save_checkpoint(files, names, found)
    finally:
        checkpoint.FORMAT = known


def newer_pages(root: Path, _: Path) -> None:
    with lmdb.open(str(root / "a.edb"), subdir=False, lib_version=1, map_size=1 << 40) as env, env.begin(write=True) as txn:
        head = msgspec.msgpack.decode(bytes(txn.get(contents.HEAD) or b"")[8:-4], type=contents.Head)
        txn.put(contents.HEAD, seal(contents.HEAD, 0, msgspec.msgpack.encode(msgspec.structs.replace(head, format=99))))


def foreign_current_log(root: Path, other: Path) -> None:
    shutil.copy(other / "edb.log", root / "edb.log")


def foreign_generation(root: Path, other: Path) -> None:
    shutil.copy(other / "edb00000002.log", root / "edb00000002.log")


def foreign_pages(root: Path, other: Path) -> None:
    shutil.copy(other / "a.edb", root / "a.edb")


def foreign_checkpoint(root: Path, other: Path) -> None:
    shutil.copy(other / "edb.chk", root / "edb.chk")


def other_program(root: Path, _: Path) -> None:
    (root / "edb.log").write_bytes(b"this is the log of a very different program\n" * 2_000)


def remove(name: str) -> Callable[[Path, Path], None]:
    def harm(root: Path, _: Path) -> None:
        (root / name).unlink()

    return harm


def cut(name: str) -> Callable[[Path, Path], None]:
    def harm(root: Path, _: Path) -> None:
        os.truncate(root / name, 12_288)

    return harm


def flip(name: str) -> Callable[[Path, Path], None]:
    def harm(root: Path, _: Path) -> None:
        data = bytearray((root / name).read_bytes())
        data[20] ^= 4
        (root / name).write_bytes(data)

    return harm


def leaf_out_of_order(root: Path, _: Path) -> None:
    """A page of rows that neither LMDB's opening nor recovery reads: met later, it could end the process."""
    data = bytearray((root / "a.edb").read_bytes())
    for page in range(2, len(data) // 4096):
        number, _, _, flags, lower, upper = structure._PAGE.unpack_from(data, page * 4096)
        nodes = page * 4096 + structure.HEAD
        first = nodes + int.from_bytes(data[nodes : nodes + 2], "little") + structure._NODE.size
        if number == page and flags & 2 and data[first : first + 2] == tree_prefix(1) + b"0":  # the head lies on another
            struct.pack_into("<HH", data, page * 4096 + 20, upper, lower)
    (root / "a.edb").write_bytes(data)


HARMS = [
    (leaf_out_of_order, Err.DatabaseCorrupted, "jetwired check"),
    (newer_log, Err.BadLogVersion, "start the version"),
    (newer_checkpoint, Err.BadLogVersion, "start the version"),
    (newer_pages, Err.InvalidDatabaseVersion, "newer server"),
    (foreign_current_log, Err.BadLogSignature, "another instance"),
    (foreign_generation, Err.BadLogSignature, "another instance"),
    (foreign_checkpoint, Err.BadLogSignature, "another instance"),
    (foreign_pages, Err.AttachedDatabaseMismatch, "put the right file back"),
    (other_program, Err.LogFileCorrupt, "restore"),
    (remove("edb.log"), Err.MissingLogFile, "restore"),
    (remove("edb00000002.log"), Err.MissingPreviousLogFile, "restore"),
    (remove("a.edb"), Err.AttachedDatabaseMismatch, "put it back"),
    (cut("a.edb"), Err.DatabaseCorrupted, "truncated"),
    (cut("edb.log"), Err.LogFileCorrupt, "restore"),
    (cut("edb00000002.log"), Err.LogFileCorrupt, "restore"),
    (flip("edb.chk"), Err.CheckpointCorrupt, "restore"),
]


@pytest.mark.parametrize(("harm", "code", "advice"), HARMS)
async def test_a_bad_directory_is_refused_and_left_alone(
    good: Path, other: Path, tmp_path: Path, harm: Callable[[Path, Path], None], code: int, advice: str
) -> None:
    root = tmp_path / "data"
    shutil.copytree(good, root)
    harm(root, other)
    before = fingerprint(root)
    with pytest.raises(JetError) as caught:
        await started(LocalFiles(root), root, circular=False)
    assert (caught.value.code, advice in caught.value.detail) == (code, True), str(caught.value)
    assert fingerprint(root) == before


async def test_the_control_without_a_look_at_the_structure(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a server starts on pages that may end it later."""
    root = tmp_path / "data"
    shutil.copytree(good, root)
    leaf_out_of_order(root, root)
    monkeypatch.setattr(limits, "STRUCTURE_PAGES_MAX", 0)
    await abandon(await started(LocalFiles(root), root, circular=False))


async def test_the_control_a_good_directory_is_opened(good: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(good, root)
    store = await started(LocalFiles(root), root, circular=False)
    assert await store.count(tree_id(1, 1)) == ROWS
    await store.stop()


async def test_an_old_copy_of_the_pages_is_refused(tmp_path: Path) -> None:
    """Its log is no longer there: what lies between would be missing without a word."""
    root = tmp_path / "data"
    LocalFiles(root).make_directory("")
    store = await started(LocalFiles(root), root)
    tree = tree_id(await store.create_database("a.edb"), 1)
    for number in range(2):
        writer = await store.begin()
        writer.put(tree, b"%d" % number, b"")
        await writer.commit()
        await store.checkpoint()
        if number == 0:
            shutil.copy(root / "a.edb", tmp_path / "old.edb")
    await abandon(store)
    shutil.copy(tmp_path / "old.edb", root / "a.edb")
    before = fingerprint(root)
    with pytest.raises(JetError) as caught:
        await started(LocalFiles(root), root)
    assert (caught.value.code, "older" in caught.value.detail) == (Err.DatabaseCorrupted, True)
    assert fingerprint(root) == before


async def test_after_a_clean_stop_the_end_of_the_log_may_be_lost(good: Path, tmp_path: Path) -> None:
    """The pages have it all: a log without its end is refused, or everything is there."""
    root = tmp_path / "data"
    shutil.copytree(good, root)
    store = await started(LocalFiles(root), root, circular=False)
    await store.stop()
    data = (root / "edb.log").read_bytes()
    end = len(data.rstrip(b"\0"))
    refused: set[int] = set()
    for lost in (10, 30, 512, 5_100):
        (root / "edb.log").write_bytes(data[: end - lost] + bytes(len(data) - end + lost))
        try:
            store = await started(LocalFiles(root), root, circular=False)
        except JetError as error:
            refused.add(error.code)
        else:
            assert await store.count(tree_id(1, 1)) == ROWS
            await abandon(store)
    assert refused <= {Err.CommittedLogFileCorrupt, Err.RequiredLogFilesMissing}


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p"])
def test_a_network_file_system_is_refused(good: Path, tmp_path: Path, kind: str) -> None:
    shutil.copytree(good, tmp_path / "data")
    before = fingerprint(tmp_path)
    mounts = f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:9 / {tmp_path} rw - {kind} server:/share rw\n"
    with pytest.raises(JetError) as caught:
        refuse_network_file_system(str(tmp_path / "data"), mounts)
    assert (caught.value.code, "local disk" in caught.value.detail) == (Err.FileAccessDenied, True)
    assert fingerprint(tmp_path) == before
    refuse_network_file_system("/elsewhere", mounts)


# -- real mounts: in a name space of their own ------------------------------------------------------------------------
_START = """
import asyncio, sys
from jetwire_protocol.errors import JetError
from jetwire_server.files.local import LocalFiles
from jetwire_server.store.interface import tree_id
from tests.crash.rig import abandon, started

async def main(root):
    done = 0
    try:
        store = await started(LocalFiles(root), root, circular=False)
        for number in range(int(sys.argv[2])):
            writer = await store.begin()
            writer.put(tree_id(1, 1), b"more%05d" % number, bytes(5000))
            await writer.commit()
            done += 1
        await abandon(store)
    except JetError as error:
        print(error)
    print(done, "committed")

asyncio.run(main(sys.argv[1]))
"""


def in_a_mount(script: str, root: Path, then: str = "") -> str:
    """Runs `script` (a shell's, with $DIR), then a store that commits until it cannot; what that said."""
    command = f"{script}\ncd {ROOT}; {sys.executable} -c '{_START}' $DIR 2000\n{then}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", command], env={**os.environ, "DIR": str(root)}, capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no mounts of one's own here")
    return done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_a_read_only_directory_is_refused(good: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(good, root)
    before = fingerprint(root)
    said = in_a_mount('mount --bind "$DIR" "$DIR"; mount -o remount,ro,bind "$DIR"', root)
    assert "JET_errFileAccessDenied" in said
    assert fingerprint(root) == before


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_a_full_disk_is_named_and_loses_nothing(good: Path, tmp_path: Path) -> None:
    """Commits go on until the log cannot; once there is room, all that was acknowledged is there."""
    root, kept = tmp_path / "data", tmp_path / "kept"
    root.mkdir()
    fill = "dd if=/dev/zero of=$DIR/filler bs=4k 2>/dev/null || true; truncate -s -400k $DIR/filler"
    mount = f"mount -t tmpfs -o size=64m tmpfs $DIR; cp -a --sparse=always {good}/. $DIR; {fill}"
    said = in_a_mount(mount, root, f"rm $DIR/filler; cp -a --sparse=always $DIR {kept}")
    assert "JET_errLogDiskFull" in said or "JET_errDiskFull" in said
    acknowledged = int(said.splitlines()[-1].split()[0])
    assert 0 < acknowledged < 2000
    assert asyncio.run(_count(kept)) >= ROWS + acknowledged


async def _count(root: Path) -> int:
    store = await started(LocalFiles(root), root, circular=False)
    try:
        return await store.count(tree_id(1, 1))
    finally:
        await store.stop()
