"""ExternalRestore: databases and log files that a client has put in place are recovered there ("hard recovery").

What was put there stays as it is until the very end: the databases are copied into a working directory, checked against
the backup's manifest on the way, recovered there by the backup's log files and those that go on after them, detached,
and only then moved to where they are wanted. A detached database needs no log; any instance may attach it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server.backup.following import Following, check_linked, find_following, open_log
from jetwire_server.backup.manifest import BackupFile, BackupManifest, load_chain
from jetwire_server.backup.restore import copy_file, copy_following, live_again
from jetwire_server.backup.swap import remove_tree
from jetwire_server.clock import Clock
from jetwire_server.engine.instance import Instance, State
from jetwire_server.files.interface import Files
from jetwire_server.files.local import LocalFiles
from jetwire_server.files.paths import components, plain
from jetwire_server.redo.names import LogNames
from jetwire_server.redo.position import Position
from jetwire_server.redo.reader import LogFile
from jetwire_server.store.embedded.assemble import SCRATCH_DIRECTORY, Storage
from jetwire_server.store.embedded.check import check_database

WORK = "restore.work"
Status = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What the client says; paths from the data directory on. Generation 0: as the files are."""

    checkpoint_path: str
    log_path: str
    backup_log_path: str
    databases: list[tuple[str, str]]  # its name in the backup, where the client has put it
    gen_low: int = 0
    gen_high: int = 0
    base_name: str = ""
    target_log_path: str = ""
    target_checkpoint_path: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    gen_low: int
    gen_high: int
    base_name: str
    target_runs: bool


class ExternalRestore:
    """One for the server. `instances` lists those that there are, `storage_of` what a running one stands on."""

    def __init__(
        self, root: LocalFiles, clock: Clock, instances: Callable[[], list[Instance]], storage_of: Callable[[Instance], Storage]
    ) -> None:
        self._root = root
        self._clock = clock
        self._instances = instances
        self._storage_of = storage_of
        self._working: set[str] = set()

    async def run(self, request: Request, status: Status) -> Done:
        if bool(request.target_log_path) != bool(request.target_checkpoint_path):
            raise JetError(Err.InvalidParameter, "a target's log path and checkpoint path come together")
        checkpoint, log_path, source = (
            _directory(path) for path in (request.checkpoint_path, request.log_path, request.backup_log_path or request.log_path)
        )
        target = self._target(request)
        self._refuse_running(checkpoint)
        if not self._root.exists(source):
            raise JetError(Err.InvalidPath, f"{source} is not there", path=source)
        work = f"{checkpoint}/{WORK}"
        if work in self._working:
            raise JetError(Err.RestoreInProgress, work)
        self._working.add(work)
        task = asyncio.get_running_loop().create_task(self._run(request, log_path, source, work, target, status))
        task.add_done_callback(lambda _: self._working.discard(work))  # it goes on if its caller goes away
        return await asyncio.shield(task)

    async def _run(self, request: Request, log_path: str, source: str, work: str, target: Instance | None, status: Status) -> Done:
        plan = await asyncio.to_thread(self._plan, request, source)
        for _, place in plan.databases:
            self._refuse_attached(place)
        names = LogNames(plan.chain[0].log_directory, plan.chain[0].base_name)
        files = LocalFiles(f"{self._root.root}/{work}")
        await asyncio.to_thread(remove_tree, self._root, work)
        try:
            await asyncio.to_thread(self._copy, plan, files, names, status)
            following = await self._follow(plan, log_path, target)
            await asyncio.to_thread(self._end, following, files, names, max(plan.logs))
            wanted = {name for name, _ in plan.databases}
            left_out = frozenset(name for manifest in plan.chain for name in manifest.databases if name not in wanted)
            await live_again(files, names, self._clock, left_out=left_out, detach=True)
            for name, place in plan.databases:
                await asyncio.to_thread(self._put, f"{work}/{name}", place)
        finally:
            await asyncio.to_thread(remove_tree, self._root, work)
        status(plan.bytes, plan.bytes)
        return Done(min(plan.logs), max(plan.logs), names.base, target is not None)

    # -- what is asked for ----------------------------------------------------------------------------------------
    def _target(self, request: Request) -> Instance | None:
        """The running instance whose log files are to be replayed too."""
        if not request.target_log_path:
            return None
        wanted = _directory(request.target_log_path)
        for instance in self._running():
            names = self._storage_of(instance).log.names
            if plain(f"{instance.name}/{names.directory}") == wanted:
                if request.base_name and request.base_name != names.base:
                    break
                return instance
        raise JetError(Err.BadRestoreTargetInstance, f"no running instance has its log in {wanted}", path=wanted)

    def _running(self) -> list[Instance]:
        return [one for one in self._instances() if one.state in (State.RUNNING, State.STOPPED)]

    def _refuse_running(self, directory: str) -> None:
        for instance in self._running():
            if directory.split("/")[0].lower() == instance.name.lower():
                raise JetError(Err.LogFilePathInUse, f"{directory} is part of the running instance {instance.name}", path=directory)

    def _refuse_attached(self, place: str) -> None:
        owner, _, path = place.partition("/")
        for instance in self._running():
            if instance.name.lower() == owner.lower() and any(one.path == path for one in instance.databases.values()):
                raise JetError(Err.DatabaseSharingViolation, f"{place} is attached", path=place)

    def _plan(self, request: Request, source: str) -> _Plan:
        files = LocalFiles(self._root.real_path(source))
        try:
            chain = load_chain(files)
        except JetError as error:
            if error.code != Err.MissingFullBackup:
                raise
            self._refuse_empty(files, source)
            raise JetError(Err.RestoreOfNonBackupDatabase, f"{source} holds no backup.json: no streaming backup left these files") from None
        first, last = chain[0], chain[-1]
        base = request.base_name or first.base_name
        low, high = request.gen_low or first.gen_low, request.gen_high or last.gen_high
        if low > high:
            raise JetError(Err.InvalidParameter, f"generations {low} to {high}")
        if low > first.gen_low:
            raise JetError(Err.StartingRestoreLogTooHigh, f"the databases need the log from generation {first.gen_low:X} on")
        if high < (needed := int(first.consistent.partition(":")[0], 16)):
            raise JetError(Err.EndingRestoreLogTooLow, f"the databases need the log up to generation {needed:X}")
        logs = _logs(files, LogNames("", base), low, high, chain, source)
        return _Plan(chain, files, logs, self._databases(request.databases, first))

    @staticmethod
    def _refuse_empty(files: Files, source: str) -> None:
        if not any(name.endswith(".log") for name in files.list()):
            raise JetError(Err.FileNotFound, f"there is no log file in {source}", path=source)

    def _databases(self, asked: list[tuple[str, str]], manifest: BackupManifest) -> list[tuple[str, str]]:
        """Names as the backup has them, and where the files are. None asked for: all, in the places they came from."""
        known = {name.lower(): name for name in manifest.databases}
        if not asked:
            return [(name, f"{manifest.instance}/{name}") for name in manifest.databases]
        found: dict[str, str] = {}
        for name, place in asked:
            short = plain(name).lower().removeprefix(f"{manifest.instance.lower()}/")
            if short not in known:
                raise JetError(Err.RestoreOfNonBackupDatabase, f"the backup has no database {name}", path=name)
            if known[short] in found:
                raise JetError(Err.InvalidParameter, f"{name} stands twice in the map")
            found[known[short]] = _file(place)
        if len({place.lower() for place in found.values()}) < len(found):
            raise JetError(Err.InvalidParameter, "two databases are mapped to one place")
        return list(found.items())

    # -- putting it together ----------------------------------------------------------------------------------------
    def _copy(self, plan: _Plan, files: LocalFiles, names: LogNames, status: Status) -> None:
        files.make_directory("")
        done = 0
        for name, place in plan.databases:
            status(done, plan.bytes)
            if not self._root.exists(place):
                raise JetError(Err.FileNotFound, f"{place} is not there", path=place)
            wanted = plan.files_of_backup[name]
            if copy_file(self._root, place, files, name) != wanted.sha256:
                self._name_difference(files, name, place)
            done += wanted.size
        for number, log in plan.logs.items():
            status(done, plan.bytes)
            expected = plan.files_of_backup.get(names.archived(number))
            if copy_file(plan.files, log.path, files, names.archived(number)) != (expected.sha256 if expected else None) and expected:
                raise JetError(Err.LogCorruptDuringHardRestore, f"{log.path} is not what was backed up", path=log.path)
            done += expected.size if expected else 0
        chk = plan.files_of_backup[names.checkpoint]
        path = _as_placed(plan.files, names.checkpoint)
        if copy_file(plan.files, path, files, names.checkpoint) != chk.sha256:
            raise JetError(Err.CheckpointCorrupt, f"{path} is not what was backed up", path=path)

    @staticmethod
    def _name_difference(files: LocalFiles, name: str, place: str) -> None:
        """It is not the file of the backup: is it another sound database, or a damaged one?"""
        fault = next((fault for fault in check_database(files, name) if fault is not None), None)
        if fault is not None:
            raise JetError(Err.DatabaseCorrupted, f"{place}: {fault}", path=place)
        raise JetError(Err.RestoreOfNonBackupDatabase, f"{place} is a database, but not the one that was backed up", path=place)

    async def _follow(self, plan: _Plan, log_path: str, target: Instance | None) -> Following | None:
        base = plan.chain[0].base_name
        if target is None:
            return await asyncio.to_thread(find_following, self._root, LogNames(log_path, base), plan.logs)
        storage = self._storage_of(target)
        if target.parameters.get(Param.CircularLog):  # its log files would be missing anyway
            return None
        with storage.log.pin(Position.at(max(plan.logs) + 1, 0)):
            end = await storage.log.roll()
            return await asyncio.to_thread(_full_logs, storage, plan.logs[max(plan.logs)], end.generation)

    @staticmethod
    def _end(following: Following | None, files: LocalFiles, names: LogNames, last: int) -> None:
        """The newest generation becomes the current one of the working directory."""
        if following:
            copy_following(following, files, names)
            last = max([last, *(log.number for log in following.logs)])
        if not files.exists(names.current):
            files.rename(names.archived(last), names.current)
        files.sync_directory(names.directory)

    def _put(self, source: str, place: str) -> None:
        owner = next((one for one in self._running() if one.name.lower() == place.split("/")[0].lower()), None)
        if owner is None:
            self._root.rename(source, place)
        else:
            with self._storage_of(owner).gate.permit("restore"):
                self._root.rename(source, place)
        self._root.sync_directory(place.rpartition("/")[0])


@dataclass(frozen=True, slots=True)
class _Plan:
    """The backup as it was put in place."""

    chain: list[BackupManifest]
    files: LocalFiles
    logs: dict[int, LogFile]
    databases: list[tuple[str, str]]

    @property
    def files_of_backup(self) -> dict[str, BackupFile]:
        return {file.path: file for manifest in self.chain for file in manifest.files}

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files_of_backup.values())


def _directory(path: str) -> str:
    """A directory of the data directory, or below: nothing hidden, nothing of the server's own."""
    found = plain(path)
    names = components(found)
    if not names or names[0].startswith(".") or SCRATCH_DIRECTORY in names[1:2]:
        raise JetError(Err.InvalidPath, f"{path!r} is no directory for a restore", path=path)
    return found


def _file(path: str) -> str:
    found = _directory(path)
    if "/" not in found:
        raise JetError(Err.InvalidPath, f"{path!r} lies in no instance's directory", path=path)
    return found


def _as_placed(files: Files, path: str) -> str:
    """Clients put all log files into one directory, whatever directory the backup's instance had them in."""
    name = path.rpartition("/")[2]
    return path if files.exists(path) else name


def _logs(files: Files, names: LogNames, low: int, high: int, chain: list[BackupManifest], source: str) -> dict[int, LogFile]:
    signature = bytes.fromhex(chain[0].signature)
    logs: dict[int, LogFile] = {}
    directory = chain[0].log_directory
    for number in range(low, high + 1):
        path = _as_placed(files, f"{directory}/{names.archived(number)}" if directory else names.archived(number))
        if not files.exists(path):
            code = Err.MissingRestoreLogFiles if any(name.endswith(".log") for name in files.list()) else Err.FileNotFound
            raise JetError(code, f"{path} is missing in {source}", path=path)
        log = open_log(files, path)
        if log.header.signature != signature:
            raise JetError(Err.GivenLogFileHasBadSignature, f"{path} is of another log", path=path)
        if log.number != number:
            raise JetError(Err.GivenLogFileIsNotContiguous, f"{path} is generation {log.number:X}", path=path)
        if number - 1 in logs:
            try:
                check_linked(logs[number - 1], log)
            except JetError as error:
                raise JetError(Err.GivenLogFileIsNotContiguous, error.detail, path=path) from error
        logs[number] = log
    return logs


def _full_logs(storage: Storage, last: LogFile, end: int) -> Following:
    """What a running instance has beyond the backup, up to the generation that was just ended."""
    files, names = storage.files, storage.log.names
    logs = []
    for number in range(last.number + 1, end):
        if not files.exists(names.archived(number)):
            raise JetError(Err.MissingRestoreLogFiles, f"{names.archived(number)} is gone: it was truncated", path=names.archived(number))
        log = open_log(files, names.archived(number))
        if log.header.signature != last.header.signature:
            raise JetError(Err.ExistingLogFileHasBadSignature, f"{log.path} is of another log than the backup", path=log.path)
        check_linked(last, log)
        logs.append(log)
        last = log
    return Following(files, logs)
