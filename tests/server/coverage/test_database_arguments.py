"""What calls on databases, instances, sessions and transactions answer to wrong arguments: a table of calls and their errors."""

from __future__ import annotations

from pathlib import Path

from tests.server.coverage.steps import IN_TRANSACTION, LONG, OTHER_SESSION, READ_ONLY
from tests.support.bench import SUCCESS, Bench
from tests.support.bench import name_of as named
from tests.support.calls import BEGIN, DETACHED, OWN_DATABASE, D, S, Step
from tests.support.shown import Case, failures, shows, shows_cases

LOCKED = (  # another session has `$name.edb` to itself
    *OWN_DATABASE,
    *OTHER_SESSION,
    Step("OpenDatabase", {"sesid": "$other", "database": "$name.edb", "grbit": ["DbExclusive"]}, {"theirs": "dbid"}),
)
FREE = (Step("CloseDatabase", {"sesid": "$other", "dbid": "$theirs"}),)
READ_ONLY_DATABASE = (
    *DETACHED,
    Step("AttachDatabase", {**S, "database": "$name.edb", "grbit": ["DbReadOnly"]}),
    Step("OpenDatabase", {**S, "database": "$name.edb"}, {"dbid": "dbid"}),
)
DEFRAGMENTING = (Step("Defragment", {**D, "grbit": ["DefragmentBatchStart"]}),)
CREATED = (Step("CreateInstance", {"name": "$name"}, {"other": "instance"}),)
OF_OTHER = {"instance": "$other"}

DATABASES = [
    Case("CreateDatabase", "JET_errDatabaseDuplicate", {"database": "world.edb"}),
    Case("CreateDatabase", "JET_errDatabaseInUse", {"database": "world.edb", "grbit": ["DbOverwriteExisting"]}),
    Case("CreateDatabase", "JET_errDatabaseInvalidPages", {"maxPages": 0x7FFFFFFF}),
    Case("CreateDatabase", "JET_errDatabaseInvalidPath", {"database": "../a.edb"}),
    Case("CreateDatabase", "JET_errInTransaction", before=IN_TRANSACTION),
    Case("CreateDatabase", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case("AttachDatabase", "JET_errDatabaseInvalidPath", {"database": "/etc/passwd"}),
    Case("AttachDatabase", "JET_errFileNotFound", {"database": "nowhere.edb"}),
    Case("AttachDatabase", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case("AttachDatabase", "JET_wrnDatabaseAttached", {"database": "world.edb"}),
    Case("AttachDatabase", "JET_errDatabaseSharingViolation", before=LOCKED, bare=True),
    Case("OpenDatabase", "JET_errDatabaseInUse", {"database": "world.edb", "grbit": ["DbExclusive"]}, OTHER_SESSION),
    Case("OpenDatabase", "JET_errDatabaseInvalidPath", {"database": ""}),
    Case("OpenDatabase", "JET_errDatabaseLocked", {"database": "$name.edb"}, LOCKED),
    Case("OpenDatabase", "JET_errDatabaseNotFound", {"database": "nowhere.edb"}),
    Case("OpenDatabase", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case("OpenDatabase", "JET_wrnFileOpenReadOnly", {"database": "$name.edb"}, READ_ONLY_DATABASE),
    Case("CloseDatabase", "JET_errInvalidDatabaseId", {"dbid": 999_999}),
    Case("DetachDatabase", "JET_errDatabaseInUse", {"database": "world.edb"}, bare=True),
    Case("DetachDatabase", "JET_errDatabaseNotFound", {"database": "nowhere.edb"}),
    Case("DetachDatabase", "JET_errInTransaction", before=IN_TRANSACTION),
    Case("DetachDatabase", "JET_errForceDetachNotAllowed", {"grbit": ["ForceDetach"]}),
    Case("SetDatabaseSize", "JET_errDatabaseInvalidPath", {"database": ""}),
    Case("SetDatabaseSize", "JET_errFileNotFound", {"database": "nowhere.edb"}),
    Case("SetDatabaseSize", "JET_errInvalidParameter", {"desiredPages": 255}),
    Case("SetDatabaseSize", "JET_errDatabaseInUse", bare=True, before=OWN_DATABASE),
    Case("GetDatabaseInfo", "JET_errFeatureNotAvailable", {"infoLevel": "Isam"}),
    Case("GetDatabaseInfo", "JET_errInvalidParameter", {"infoLevel": 99}),
    Case("GetDatabaseFileInfo", "JET_errFeatureNotAvailable", {"infoLevel": "Isam"}),
    Case("GetDatabaseFileInfo", "JET_errInvalidParameter", {"infoLevel": 99}),
    Case("Compact", "JET_errInTransaction", before=IN_TRANSACTION),
    Case("Compact", "JET_errFeatureNotAvailable", {"grbit": ["CompactRepair"]}),
    Case("Defragment", "JET_errDatabaseFileReadOnly", before=READ_ONLY_DATABASE),
    Case("Defragment", "JET_errInvalidDatabaseId", {"dbid": 999_999}),
    Case("Defragment", "JET_errTransReadOnly", before=READ_ONLY),
    Case("Defragment", "JET_wrnDefragAlreadyRunning", before=DEFRAGMENTING, drop=("passes",)),
    Case(
        "Defragment",
        "JET_wrnDefragNotRunning",
        {"grbit": ["DefragmentBatchStop"]},
        (*OWN_DATABASE, Step("OpenDatabase", {**S, "database": "$name.edb"}, {"dbid": "dbid"})),
    ),
    Case("ResizeDatabase", "JET_errInvalidParameter", {"desiredPages": 0}),
    Case("Idle", "JET_errInvalidParameter", {"grbit": 1 << 12}),
]
INSTANCES = [
    Case("CreateInstance", "JET_errInstanceNameInUse", {"name": "default"}),
    Case("CreateInstance", "JET_errInvalidParameter", {"name": "a/b"}),
    Case("CreateInstance", "JET_errInvalidGrbit", {"grbit": 1}),
    Case("Init", "JET_errAlreadyInitialized", {"instance": "$instance"}, bare=True),
    Case("Term", "JET_errInvalidParameter", {"grbit": ["TermComplete", "TermAbrupt"]}),
    Case(
        "Term",
        "JET_errTooManyActiveUsers",
        {"grbit": ["TermComplete"]},
        (Step("BeginSession", OF_OTHER, {"theirs": "sesid"}), Step("BeginTransaction", {"sesid": "$theirs"})),
    ),
    Case("Term", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case("StopServiceInstance", "JET_errInvalidParameter", {"grbit": ["StopServiceResume"]}),
    Case("GetInstanceMiscInfo", "JET_errInvalidParameter", {"infoLevel": 99}),
    Case("GetErrorInfo", "JET_errInvalidParameter", {"infoLevel": 99}),
    Case("GetSystemParameter", "JET_errInvalidParameter", {"paramid": 9999}),
    Case("GetSystemParameter", "JET_errInvalidInstance", {"instance": 999_999}),
    Case("GetSystemParameter", "JET_errInvalidSesid", {"instance": None, "sesid": 999_999}),
    Case("SetSystemParameter", "JET_errInvalidParameter", {"paramid": 9999}),
    Case("SetSystemParameter", "JET_errInvalidInstance", {"instance": 999_999}),
    Case("SetSystemParameter", "JET_errInvalidSesid", {"instance": None, "sesid": 999_999}),
    Case("SetSystemParameter", "JET_errAlreadyInitialized", {"paramid": "LogFileSize", "paramValue": 128}),
    Case(
        "SetSystemParameter", "JET_errIndexTuplesInvalidLimits", {"paramid": "IndexTuplesLengthMin", "paramValue": 1, **OF_OTHER}, CREATED
    ),
    Case(
        "SetSystemParameter",
        "JET_errInvalidPath",
        {"paramid": "LogFilePath", "paramString": "../x", **OF_OTHER},
        CREATED,
        drop=("paramValue",),
    ),
    Case("SetSessionParameter", "JET_errInvalidParameter", {"value": 0x1000}),
    Case("SetSessionParameter", "JET_errInvalidSesid", {"sesid": 999_999}),
    Case("SetSessionContext", "JET_errInvalidParameter", {"context": -1}),
    Case("SetSessionContext", "JET_errSessionContextAlreadySet", before=(Step("SetSessionContext", {**S, "context": 7}),)),
    Case("ResetSessionContext", "JET_errSessionContextNotSetByThisThread", bare=True),
    Case("EndSession", "JET_errInvalidSesid", {"sesid": 999_999}),
    Case("EndSession", "JET_errInvalidParameter", {"grbit": 2}),
    Case("EndSession", "JET_errSessionInUse", before=(Step("SetSessionContext", {**S, "context": 7}),)),
    Case("BeginTransaction", "JET_errTransTooDeep", before=(BEGIN,) * 7),
    Case("BeginTransaction", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case("CommitTransaction", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case("CommitTransaction", "JET_errNotInTransaction", bare=True),
    Case("Rollback", "JET_errNotInTransaction", bare=True),
    Case("Rollback", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
]
CASES = [*DATABASES, *INSTANCES]


@shows_cases(CASES)
async def test_wrong_arguments(tmp_path: Path) -> None:
    assert await failures(tmp_path, CASES) == []


async def small(bench: Bench, paramid: str, value: int) -> tuple[int, int]:
    """Another instance in which there may be so many of something; a session of it and a database."""
    instance = (await bench.line.must("CreateInstance", {"name": paramid}))["instance"]
    await bench.line.must("SetSystemParameter", {"instance": instance, "paramid": paramid, "paramValue": value})
    await bench.line.must("Init", {"instance": instance})
    sesid = (await bench.line.must("BeginSession", {"instance": instance}))["sesid"]
    return sesid, (await bench.line.must("CreateDatabase", {"sesid": sesid, "database": "a.edb"}))["dbid"]


async def name_of(bench: Bench, method: str, **params: object) -> str:
    return named(await bench.line.ask(method, params))


@shows("OpenTable", "JET_errOutOfCursors")
@shows("DupCursor", "JET_errOutOfCursors")
@shows("OpenTempTable", "JET_errOutOfCursors")
@shows("OpenTemporaryTable", "JET_errOutOfCursors")
async def test_only_so_many_cursors(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        sesid, dbid = await small(bench, "MaxCursors", 2)
        one = (await bench.line.must("CreateTable", {"sesid": sesid, "dbid": dbid, "tablename": "t"}))["tableid"]
        await bench.line.must("DupCursor", {"sesid": sesid, "tableid": one})
        for method, params in (
            ("OpenTable", {"dbid": dbid, "tablename": "t"}),
            ("DupCursor", {"tableid": one}),
            ("OpenTempTable", {"columns": [LONG]}),
            ("OpenTemporaryTable", {"temporarytable": {"columns": [LONG]}}),
        ):
            assert await name_of(bench, method, sesid=sesid, **params) == "JET_errOutOfCursors"
        await bench.line.must("CloseTable", {"sesid": sesid, "tableid": one})
        assert await name_of(bench, "OpenTable", sesid=sesid, dbid=dbid, tablename="t") == SUCCESS


@shows("OpenTable", "JET_errTooManyOpenTables")
async def test_only_so_many_open_tables(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        sesid, dbid = await small(bench, "MaxOpenTables", 1)
        for name in "ab":
            made = await bench.line.must("CreateTable", {"sesid": sesid, "dbid": dbid, "tablename": name})
            await bench.line.must("CloseTable", {"sesid": sesid, "tableid": made["tableid"]})
        await bench.line.must("OpenTable", {"sesid": sesid, "dbid": dbid, "tablename": "a"})
        assert await name_of(bench, "OpenTable", sesid=sesid, dbid=dbid, tablename="b") == "JET_errTooManyOpenTables"
        assert await name_of(bench, "OpenTable", sesid=sesid, dbid=dbid, tablename="a") == SUCCESS


@shows("OpenTempTable", "JET_errTooManySorts")
@shows("OpenTemporaryTable", "JET_errTooManySorts")
async def test_only_so_many_temporary_tables(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        sesid, _ = await small(bench, "MaxTemporaryTables", 1)
        opened = await bench.line.must("OpenTempTable", {"sesid": sesid, "columns": [LONG]})
        assert await name_of(bench, "OpenTempTable", sesid=sesid, columns=[LONG]) == "JET_errTooManySorts"
        assert await name_of(bench, "OpenTemporaryTable", sesid=sesid, temporarytable={"columns": [LONG]}) == "JET_errTooManySorts"
        await bench.line.must("CloseTable", {"sesid": sesid, "tableid": opened["tableid"]})
        assert await name_of(bench, "OpenTempTable", sesid=sesid, columns=[LONG]) == SUCCESS


@shows("BeginSession", "JET_errOutOfSessions")
@shows("DupSession", "JET_errOutOfSessions")
async def test_only_so_many_sessions(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        sesid, _ = await small(bench, "MaxSessions", 1)
        instance = next(
            i["instanceId"] for i in (await bench.line.must("GetInstanceInfo", {}))["instances"] if i["instanceName"] == "MaxSessions"
        )
        assert await name_of(bench, "DupSession", sesid=sesid) == "JET_errOutOfSessions"
        assert await name_of(bench, "BeginSession", instance=instance) == "JET_errOutOfSessions"
        await bench.line.must("EndSession", {"sesid": sesid})
        assert await name_of(bench, "BeginSession", instance=instance) == SUCCESS


@shows("CreateDatabase", "JET_errOneDatabasePerSession")
@shows("OpenDatabase", "JET_errOneDatabasePerSession")
async def test_one_database_a_session(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        sesid, _ = await small(bench, "OneDatabasePerSession", 1)
        assert await name_of(bench, "CreateDatabase", sesid=sesid, database="b.edb") == "JET_errOneDatabasePerSession"
        other = (await bench.line.must("DupSession", {"sesid": sesid}))["newSesid"]
        await bench.line.must("CreateDatabase", {"sesid": other, "database": "b.edb"})
        assert await name_of(bench, "OpenDatabase", sesid=sesid, database="b.edb") == "JET_errOneDatabasePerSession"


@shows("CreateDatabase", "JET_errTooManyAttachedDatabases")
@shows("AttachDatabase", "JET_errTooManyAttachedDatabases")
async def test_only_so_many_databases(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        sesid = bench.keeper
        dbid = (await bench.line.must("CreateDatabase", {"sesid": sesid, "database": "late.edb"}))["dbid"]
        await bench.line.must("CloseDatabase", {"sesid": sesid, "dbid": dbid})
        await bench.line.must("DetachDatabase", {"sesid": sesid, "database": "late.edb"})
        for n in range(5):
            await bench.line.must("CreateDatabase", {"sesid": sesid, "database": f"{n}.edb"})
        assert await name_of(bench, "CreateDatabase", sesid=sesid, database="more.edb") == "JET_errTooManyAttachedDatabases"
        assert await name_of(bench, "AttachDatabase", sesid=sesid, database="late.edb") == "JET_errTooManyAttachedDatabases"


@shows("CreateInstance", "JET_errTooManyInstances")
async def test_only_so_many_instances(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.line.must("SetSystemParameter", {"paramid": "MaxInstances", "paramValue": 1})
        assert await name_of(bench, "CreateInstance", name="b") == "JET_errTooManyInstances"


@shows("EnableMultiInstance", "JET_errIndexTuplesInvalidLimits", "JET_errInvalidPath", "JET_errSystemParamsAlreadySet")
async def test_parameters_for_the_whole_server(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        for paramid, value, answer in (
            ("IndexTuplesLengthMin", {"paramValue": 1}, "JET_errIndexTuplesInvalidLimits"),
            ("SystemPath", {"paramString": "../x"}, "JET_errInvalidPath"),
        ):
            assert await name_of(bench, "EnableMultiInstance", sysParams=[{"paramid": paramid, **value}]) == answer
        await bench.line.must("CreateInstance", {"name": "b"})
        assert await name_of(bench, "EnableMultiInstance", sysParams=[]) == "JET_errSystemParamsAlreadySet"
