"""A caller of the streaming backup: reads everything there is into a directory."""

from __future__ import annotations

from pathlib import Path

from jetwire_protocol.data.flags import BackupGrbit
from jetwire_server.backup.service import BackupService
from jetwire_server.engine.instance import Instance

INCREMENTAL = int(BackupGrbit.BackupIncremental)


async def fetch(backups: BackupService, instance: Instance, name: str, target: Path, size: int = 65_536) -> None:
    handle, whole = await backups.open(instance, name)
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while data := await backups.read(instance, handle, size):
            file.write(data)
        assert file.tell() == whole
    await backups.close(instance, handle)


async def take(backups: BackupService, instance: Instance, target: Path, grbit: int = 0, *, truncate: bool = True) -> None:
    """A whole backup, full or incremental."""
    await backups.begin(instance, grbit)
    if not grbit:
        for name in backups.get_attach_info(instance):
            await fetch(backups, instance, name, target)
    for name in (await backups.get_log_info(instance))[0]:
        await fetch(backups, instance, name, target)
    if truncate:
        await backups.truncate(instance)
    await backups.end(instance)
