"""System parameters: every one known, typed and ranged, of the whole server or of one instance.

An instance starts with the server's values of that moment. What JET calls advanced is accepted and forgotten while
EnableAdvanced is off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jetwire_protocol.data.codes import NAMES
from jetwire_protocol.data.parameters import PARAMETERS, Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits

# Where a network server needs more than a library inside one program; and what this engine measures otherwise.
RAISED: Mapping[int, Any] = {
    Param.MaxSessions: 1024,
    Param.MaxInstances: 64,
    Param.MaxCursors: 65_536,
    Param.MaxOpenTables: 8192,
    Param.CacheSize: 1,
    Param.KeyMost: limits.KEY_BYTES_MAX,
    Param.MaxColtyp: 19,
}

# Those that change what this server does. All others are checked, kept and reported, and have no further effect.
EFFECTIVE = frozenset(
    {
        Param.BaseName,
        Param.LogFilePath,
        Param.MaxSessions,
        Param.MaxOpenTables,
        Param.MaxCursors,
        Param.MaxVerPages,
        Param.MaxTemporaryTables,
        Param.MaxInstances,
        Param.LogFileSize,
        Param.CommitDefault,
        Param.CircularLog,
        Param.DatabasePageSize,
        Param.OneDatabasePerSession,
        Param.OSSnapshotTimeout,
        Param.UnicodeIndexDefault,
        Param.IndexTuplesLengthMin,
        Param.IndexTuplesLengthMax,
        Param.IndexTuplesToIndexMax,
        Param.IndexTupleIncrement,
        Param.IndexTupleStart,
        Param.NoInformationEvent,
        Param.EventLoggingLevel,
        Param.ErrorToString,
        Param.LVChunkSizeMost,
        Param.DisableCallbacks,
        Param.DbScanThrottle,
        Param.DbScanIntervalMinSec,
    }
)

_PATHS = frozenset({Param.SystemPath, Param.TempPath, Param.LogFilePath, Param.AlternateDatabaseRecoveryPath, Param.RBSFilePath})
_PAGE_SIZES = frozenset({2048, 4096, 8192, 16384, 32768})
_TUPLES = (Param.IndexTuplesLengthMin, Param.IndexTuplesLengthMax)
_MAX_UNSIGNED = (1 << 64) - 1


def default_of(paramid: int) -> Any:
    return RAISED.get(paramid, PARAMETERS[paramid][1])


class Parameters:
    """The values of one scope. Those of an instance answer the server-wide ones from the server's."""

    def __init__(self, server: Parameters | None = None) -> None:
        self._server = server
        self._values: dict[int, Any] = {}
        if server is not None:
            self._values = {k: v for k, v in server._values.items() if PARAMETERS[k][4] == "instance"}

    def get(self, paramid: int) -> Any:
        """The value: an int, bool, str, or what was set for the object and callback ones."""
        if paramid not in PARAMETERS:
            raise JetError(Err.InvalidParameter, f"no parameter {paramid}")
        if self._server is not None and PARAMETERS[paramid][4] == "global":
            return self._server.get(paramid)
        if paramid in self._values:
            return self._values[paramid]
        return default_of(paramid)

    def number(self, paramid: int) -> int:
        return int(self.get(paramid) or 0)

    def chosen(self, paramid: int) -> int | None:
        """The number that somebody has set; None where the default holds."""
        return int(self._values[paramid]) if paramid in self._values else None

    def text(self, paramid: int) -> str:
        return str(self.get(paramid) or "")

    def given(self) -> Mapping[int, Any]:
        """What was set here, or before at the server for those who come later."""
        return self._values

    def take(self, values: Mapping[int, Any]) -> None:
        """What `given` answered once, for a scope that is to be as that one was."""
        self._values = dict(values)

    def error_text(self, error: int) -> str:
        """JET_paramErrorToString: a name and a text for an error number."""
        name = NAMES.get(error)
        if name is None:
            raise JetError(Err.InvalidParameter, f"no error {error}")
        return f"{name}, {error}"

    def set(self, paramid: int, value: Any, *, running: bool = False) -> None:
        """Sets one parameter; `running` says that the scope has been initialised, when most are fixed."""
        if paramid not in PARAMETERS:
            raise JetError(Err.InvalidParameter, f"no parameter {paramid}")
        kind, _, low, high, scope, mutable, advanced = PARAMETERS[paramid]
        if mutable == "read_only":
            raise JetError(Err.InvalidParameter, f"{Param(paramid).name} is read only")
        if running and mutable == "before_init":
            raise JetError(Err.AlreadyInitialized, f"{Param(paramid).name} is fixed once the instance runs")
        if self._server is not None and scope == "global":
            self._server.set(paramid, value, running=running)
            return
        if advanced and not self.get(Param.EnableAdvanced):
            return
        self._values[paramid] = self._checked(paramid, kind, low, high, value)

    def _checked(self, paramid: int, kind: str, low: int | None, high: int | None, value: Any) -> Any:
        if kind == "string":
            if not isinstance(value, str):
                raise JetError(Err.InvalidParameter, f"{Param(paramid).name} is a string")
            if len(value) < (low or 0) or (high is not None and len(value) > high):
                raise JetError(
                    Err.InvalidPath if paramid in _PATHS else Err.InvalidParameter, f"{Param(paramid).name}: length {len(value)}"
                )
            if paramid in _PATHS and (".." in value.replace("\\", "/").split("/") or "\0" in value):
                raise JetError(Err.InvalidPath, f"{Param(paramid).name} may not leave the instance's directory")
            return value
        if kind in ("int", "bool"):
            if isinstance(value, str) or value is None:
                raise JetError(Err.InvalidParameter, f"{Param(paramid).name} is a number")
            number = int(value)
            if kind == "bool":
                return bool(number)
            if number < (low or 0) or number > (_MAX_UNSIGNED if high is None else high):
                wrong = Err.IndexTuplesInvalidLimits if paramid in _TUPLES else Err.InvalidParameter
                raise JetError(wrong, f"{Param(paramid).name}: {low or 0} to {high}")
            if paramid == Param.DatabasePageSize and number not in _PAGE_SIZES:
                raise JetError(Err.InvalidParameter, "a page size is a power of two")
            return number
        return value  # an object or a callback: whoever registered it keeps its meaning
