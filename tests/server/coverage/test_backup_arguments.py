"""What backups, restores and snapshots answer to wrong arguments: a table of calls and their errors."""

from __future__ import annotations

from pathlib import Path

from tests.support.bench import Bench, name_of
from tests.support.calls import NO_BACKUP, NO_SNAPSHOT
from tests.support.shown import Case, failures, shows, shows_cases

UNKNOWN = 1 << 30
BACKUPS = [
    Case("Backup", "JET_errInvalidGrbit", {"grbit": UNKNOWN}),
    Case("Backup", "JET_errInvalidPath", {"destination": "default/../../x"}),
    Case("BackupInstance", "JET_errInvalidGrbit", {"grbit": UNKNOWN}),
    Case("BackupInstance", "JET_errInvalidPath", {"destination": "../x"}),
    Case("BeginExternalBackup", "JET_errInvalidGrbit", {"grbit": UNKNOWN}),
    Case("BeginExternalBackupInstance", "JET_errInvalidGrbit", {"grbit": UNKNOWN}),
    Case("EndExternalBackupInstance", "JET_errInvalidGrbit", {"grbit": UNKNOWN}, after=NO_BACKUP),
    *(
        case
        for name in ("OpenFile", "OpenFileInstance")
        for case in (
            Case(name, "JET_errInvalidPath", {"file": "../x"}),
            Case(name, "JET_errInvalidParameter", {"file": ""}),
        )
    ),
    *(
        case
        for name in ("ReadFile", "ReadFileInstance")
        for case in (Case(name, "JET_errInvalidParameter", {"handle": 999}), Case(name, "JET_errInvalidParameter", {"bufferSize": 0}))
    ),
    *(Case(name, "JET_errInvalidParameter", {"handle": 999}) for name in ("CloseFile", "CloseFileInstance")),
]
SNAPSHOTS = [
    Case("OSSnapshotPrepare", "JET_errInvalidParameter", {"grbit": UNKNOWN}),
    Case("OSSnapshotPrepareInstance", "JET_errInvalidParameter", {"grbit": UNKNOWN}),
    Case("OSSnapshotFreeze", "JET_errInvalidParameter", {"grbit": UNKNOWN}),
    Case("OSSnapshotThaw", "JET_errInvalidParameter", {"grbit": UNKNOWN}),
    Case("OSSnapshotAbort", "JET_errInvalidParameter", {"grbit": UNKNOWN}, after=NO_SNAPSHOT),
    Case("OSSnapshotEnd", "JET_errInvalidGrbit", {"grbit": UNKNOWN}, after=NO_SNAPSHOT),
    Case("OSSnapshotGetFreezeInfo", "JET_errInvalidGrbit", {"grbit": UNKNOWN}),
    Case("OSSnapshotTruncateLog", "JET_errInvalidGrbit", {"grbit": UNKNOWN}),
    Case("OSSnapshotTruncateLogInstance", "JET_errInvalidGrbit", {"grbit": UNKNOWN}),
    Case("OSSnapshotTruncateLogInstance", "JET_errInvalidInstance", {"instance": 999}),
]
CASES = [*BACKUPS, *SNAPSHOTS]


@shows_cases(CASES)
async def test_wrong_arguments(tmp_path: Path) -> None:
    assert await failures(tmp_path, CASES) == []


INCREMENTAL = {"grbit": ["BackupIncremental"]}


@shows("Backup", "JET_errInvalidBackup")
@shows("BackupInstance", "JET_errInvalidBackup")
@shows("BeginExternalBackup", "JET_errInvalidBackup")
@shows("BeginExternalBackupInstance", "JET_errInvalidBackup")
async def test_circular_logging_keeps_no_logs_for_an_increment(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        instance = (await bench.line.must("CreateInstance", {"name": "ring"}))["instance"]
        await bench.line.must("SetSystemParameter", {"instance": instance, "paramid": "CircularLog", "paramValue": 1})
        await bench.line.must("Init", {"instance": instance})
        await bench.line.must("BackupInstance", {"instance": instance, "destination": "full"})
        await bench.line.must("Term", {"instance": bench.instance})
        for method, params in (
            ("BackupInstance", {"instance": instance, "destination": "full"}),
            ("BeginExternalBackupInstance", {"instance": instance}),
            ("Backup", {"destination": "ring/full"}),
            ("BeginExternalBackup", {}),
        ):
            assert name_of(await bench.line.ask(method, {**params, **INCREMENTAL})) == "JET_errInvalidBackup"
