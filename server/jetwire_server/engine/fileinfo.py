"""GetDatabaseFileInfo: what can be told of a database file, attached or not; also of a real ESE database that lies among ours.

Of those the header says what it says; nothing else of them is read here (`jetwired import` does that).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jetwire_protocol.data.flags import DbInfo, Dbstate, Filetype
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.database import Database, safe_path
from jetwire_server.store.interface import FileFacts

if TYPE_CHECKING:
    from jetwire_server.engine.instance import Instance

FORMAT_VERSION, FORMAT_UPDATE = 0x620, 20  # of the databases whose behaviour is followed
UNAVAILABLE = frozenset({DbInfo.Connect, DbInfo.Country, DbInfo.Cp, DbInfo.Collate, DbInfo.Isam, DbInfo.Upgrade})
_ESE_MAGIC = 0x89ABCDEF
_ESE_START = struct.Struct("<III")  # checksum, magic, format version
_ESE_STATE_AT, _ESE_UPDATE_AT = 52, 232  # the state; the format's update and the page size
_UPDATE = struct.Struct("<II")
_ESE_BYTES = 240
_KINDS = {"database": Filetype.Database, "log": Filetype.Log, "checkpoint": Filetype.Checkpoint}


def misc(instance: Instance, state: Dbstate) -> dict[str, Any]:
    """JET_DBINFOMISC of a database of this server: what this engine has of it."""
    return {
        "version": FORMAT_VERSION,
        "update": FORMAT_UPDATE,
        "dbstate": int(state),
        "shadowingDisabled": True,
        "upgradeDb": False,
        "pageSize": instance.parameters.number(Param.DatabasePageSize),
        "repairCount": 0,
        "badChecksum": 0,
    }


def database_misc(instance: Instance, database: Database) -> dict[str, Any]:
    return misc(instance, Dbstate.CleanShutdown if database.read_only else Dbstate.DirtyShutdown)


def _ese_header(facts: FileFacts) -> tuple[int, int, int, int] | None:
    """Format version, its update, state and page size of a real ESE database."""
    start = facts.start
    if facts.kind or len(start) < _ESE_BYTES or _ESE_START.unpack_from(start)[1] != _ESE_MAGIC:
        return None
    state: int = struct.unpack_from("<I", start, _ESE_STATE_AT)[0]
    update, page = _UPDATE.unpack_from(start, _ESE_UPDATE_AT)
    return _ESE_START.unpack_from(start)[2], update, state, page


def _file_misc(instance: Instance, facts: FileFacts, database: Database | None) -> dict[str, Any]:
    if database is not None:
        return database_misc(instance, database)
    found = _ese_header(facts)
    if found is None:
        return misc(instance, Dbstate.CleanShutdown)  # detaching writes everything; what was attached at a crash is attached again
    version, update, state, page = found
    return {**misc(instance, Dbstate.CleanShutdown), "version": version, "update": update, "dbstate": state, "pageSize": page}


def _page_size(instance: Instance, facts: FileFacts, database: Database | None) -> int:
    return int(_file_misc(instance, facts, database)["pageSize"])


def _file_type(instance: Instance, facts: FileFacts, database: Database | None) -> int:
    return int(Filetype.Database if _ese_header(facts) else _KINDS.get(facts.kind, Filetype.Unknown))


_LEVELS: dict[int, Callable[[Instance, FileFacts, Database | None], Any]] = {
    DbInfo.Filesize: lambda instance, facts, database: facts.size,
    DbInfo.FilesizeOnDisk: lambda instance, facts, database: facts.on_disk,
    DbInfo.Misc: _file_misc,
    DbInfo.DBInUse: lambda instance, facts, database: database is not None,
    DbInfo.PageSize: _page_size,
    DbInfo.FileType: _file_type,
}
_OF_DATABASES = frozenset({DbInfo.Misc, DbInfo.PageSize})


def database_file_info(instance: Instance, path: str, level: int) -> Any:
    """The answer of a `DbInfo` level for a file of the instance; sizes are bytes here. It must have been initialised."""
    if level in UNAVAILABLE:
        raise JetError(Err.FeatureNotAvailable, f"level {level}")
    answer = _LEVELS.get(level)
    if answer is None:
        raise JetError(Err.InvalidParameter, f"level {level}")
    wanted = safe_path(path, any_file=True)
    instance.check_serving()
    facts = instance.store.file_facts(wanted)
    database = next((d for d in instance.databases.values() if d.path == wanted), None)
    if level in _OF_DATABASES and facts.kind != "database" and _ese_header(facts) is None:
        raise JetError(Err.DatabaseCorrupted, f"{path} is no database")
    return answer(instance, facts, database)
