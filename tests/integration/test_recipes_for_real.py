"""The recipes of docs/ with the real tools, where they are installed and the machine lets us; what they made is verified."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.test_freeze import create_database, is_open
from tests.support.server_process import ServerProcess
from tests.support.volumes import mounted

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"


def needs(tool: str) -> str:
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"no {tool} here")
    return path


def do(*command: str | Path, **more: str) -> str:
    """What it printed; an AssertionError with what it complained of if it fails."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, env={**os.environ, **more}, check=False
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def take(server: ServerProcess, base: Path, recipe: str, *arguments: str | Path, **more: str) -> Path:
    """A whole run with that recipe as its provider; its manifest."""
    manifest = base / "m.json"
    run = [sys.executable, "-m", "jetwire", "--json", "--url", server.addresses["tcp"], "snapshot", "run", "--manifest", str(manifest)]
    report = json.loads(do(*run, "--exec", RECIPES / recipe, *arguments, **more))
    assert report["servers"][0]["verdict"]["held"]
    assert is_open(server)
    return manifest


def verify(copy: Path, manifest: Path) -> None:
    facts = json.loads(do(sys.executable, "-m", "jetwire", "--json", "snapshot", "verify", copy, "--manifest", manifest))
    assert facts["good"], facts
    assert facts["notes"] == []
    assert facts["instances"][0]["databases"][0]["name"] == "load.edb"


@contextmanager
def serving(data: Path) -> Iterator[ServerProcess]:
    with ServerProcess(data) as server:
        create_database(server)
        yield server


def test_btrfs(tmp_path: Path) -> None:
    needs("btrfs")
    with mounted("btrfs", tmp_path) as home:
        do("btrfs", "subvolume", "create", home / "jetwire")
        with serving(home / "jetwire") as server:
            manifest = take(server, tmp_path, "btrfs.sh", home / "jetwire", home)
            (copy,) = home.glob("jetwire-*")
            with pytest.raises(OSError, match="Read-only"):
                (copy / "x").touch()
            verify(copy, manifest)


def test_restic(tmp_path: Path) -> None:
    needs("restic")
    environment = {
        "RESTIC_REPOSITORY": str(tmp_path / "repository"),
        "RESTIC_PASSWORD": "secret",
        "RESTIC_CACHE_DIR": str(tmp_path / "cache"),
    }
    do("restic", "init", **environment)
    with serving(tmp_path / "data") as server:
        take(server, tmp_path, "restic.sh", server.data, **environment)
    do("restic", "check", **environment)
    do("restic", "restore", "latest", "--target", tmp_path / "restored", **environment)
    restored = tmp_path / "restored" / tmp_path.relative_to("/")
    # The manifest that went into the backup: of the freeze, before the digests were known.
    done = do(sys.executable, "-m", "jetwire", "--json", "snapshot", "verify", restored / "data", "--manifest", restored / "m.json")
    assert json.loads(done)["good"]
    verify(restored / "data", tmp_path / "m.json")


def test_zfs(tmp_path: Path) -> None:
    needs("zpool")
    image = tmp_path / "zfs.img"
    with image.open("wb") as file:
        file.truncate(300 << 20)
    pool = f"jetwire{os.getpid()}"
    made = subprocess.run(["zpool", "create", "-m", str(tmp_path / "tank"), pool, str(image)], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"zpool create: {made.stderr.strip()}")
    try:
        do("zfs", "create", f"{pool}/jetwire")
        with serving(tmp_path / "tank" / "jetwire") as server:
            manifest = take(server, tmp_path, "zfs.sh", f"{pool}/jetwire")
        snapshot = do("zfs", "list", "-H", "-t", "snapshot", "-o", "name").strip()
        do("zfs", "clone", snapshot, f"{pool}/clone")
        verify(tmp_path / "tank" / "clone", manifest)
    finally:
        subprocess.run(["zpool", "destroy", "-f", pool], check=False)


def test_lvm(tmp_path: Path) -> None:
    needs("lvcreate")
    if subprocess.run(["dmsetup", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("the kernel has no device mapper")
    image, group = tmp_path / "lvm.img", f"jetwire{os.getpid()}"
    with image.open("wb") as file:
        file.truncate(600 << 20)
    device = do("losetup", "--find", "--show", image).strip()
    mounts = [tmp_path / "origin", tmp_path / "copy"]
    try:
        do("vgcreate", group, device)
        do("lvcreate", "--size", "300M", "--name", "data", group)
        do("mkfs.ext4", "-q", f"/dev/{group}/data")
        for point in mounts:
            point.mkdir()
        do("mount", f"/dev/{group}/data", mounts[0])
        with serving(mounts[0] / "data") as server:
            manifest = take(server, tmp_path, "lvm.sh", f"{group}/data", "100M")
            name = next(line for line in do("lvs", "--noheadings", "-o", "lv_name", group).split() if line.startswith("jetwire-"))
            do("mount", f"/dev/{group}/{name}", mounts[1])
            verify(mounts[1] / "data", manifest)
    finally:
        for command in (["umount", "-l", *map(str, mounts)], ["vgremove", "-f", group], ["losetup", "-d", device]):
            subprocess.run(command, capture_output=True, check=False)


# -- what can be said of them without running them ----------------------------------------------------------------
@pytest.mark.parametrize("recipe", [path.name for path in sorted(RECIPES.iterdir()) if path.read_bytes().startswith(b"#!")])
def test_shellcheck(recipe: str) -> None:
    do(needs("shellcheck"), RECIPES / recipe)


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    analyze = needs("systemd-analyze")
    for unit in ("jetwire-snapshot.service", "jetwire-snapshot.timer"):
        (tmp_path / unit).write_text((RECIPES / unit).read_text().replace("/usr/bin/jetwire", "/bin/true"))
    assert do(analyze, "verify", "--man=no", tmp_path / "jetwire-snapshot.timer", tmp_path / "jetwire-snapshot.service") == ""
    (tmp_path / "jetwire-snapshot.service").write_text("[Service]\nType=never\n")
    control = subprocess.run([analyze, "verify", "--man=no", tmp_path / "jetwire-snapshot.service"], capture_output=True, check=False)
    assert control.returncode != 0 or control.stderr


def as_kubernetes_reads_it(text: str) -> dict[str, dict[str, dict[str, str]]]:
    needs("kubectl")
    done = subprocess.run(
        ["kubectl", "annotate", "--local", "-f", "-", "read=yes", "-o", "json"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, dict[str, dict[str, str]]] = json.loads(done.stdout)
    return read


def test_kubernetes_reads_the_velero_annotations() -> None:
    annotations = as_kubernetes_reads_it((RECIPES / "velero-annotations.yaml").read_text())["metadata"]["annotations"]
    assert json.loads(annotations["pre.hook.backup.velero.io/command"]) == ["jetwire-hook", "freeze", "60000"]
    assert json.loads(annotations["post.hook.backup.velero.io/command"]) == ["jetwire-hook", "thaw"]
    with pytest.raises(AssertionError):
        as_kubernetes_reads_it("apiVersion: v1\nkind: Pod\n  metadata: {")


def test_kubernetes_reads_the_volume_snapshot(tmp_path: Path) -> None:
    """What the recipe hands to `kubectl apply`, caught by a stand-in."""
    needs("kubectl")
    (tmp_path / "kubectl").write_text(f'#!/bin/sh\n[ "$1" != apply ] || cat > {tmp_path}/said\n')
    (tmp_path / "kubectl").chmod(0o755)
    do(RECIPES / "csi-snapshot.sh", "prod", "data", "fast", PATH=f"{tmp_path}:{os.environ['PATH']}")
    read = as_kubernetes_reads_it((tmp_path / "said").read_text())
    assert read["spec"] == {"source": {"persistentVolumeClaimName": "data"}, "volumeSnapshotClassName": "fast"}
