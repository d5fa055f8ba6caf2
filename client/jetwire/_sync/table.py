# Generated from jetwire/_async by client/twins.py; do not edit.
"""A table as a mapping of records: by key, along a range, in bulk."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from jetwire._sync.transport import leaving
from jetwire.convert import RecordReader, binary_columns, refuse_texts, to_wire
from jetwire.errors import EngineError, HandleDead, JetwireError, ValueCut
from jetwire_protocol.errors import Err, Wrn

if TYPE_CHECKING:
    from jetwire._sync.session import Session

Record = dict[str, Any]
Key = Any  # one value, or a sequence of values for an index of several columns
ColumnSpec = Mapping[str, Any]
Call = dict[str, Any]  # of a Batch
_PAGE_ROWS = 500


def column_create(name: str, column: str | ColumnSpec) -> dict[str, Any]:
    """A JET_COLUMNCREATE; text is Unicode unless the caller says otherwise."""
    spec: dict[str, Any] = {"coltyp": column} if isinstance(column, str) else dict(column)
    if spec.get("coltyp") in ("Text", "LongText"):
        spec.setdefault("cp", 1200)
    return {"name": name, **spec}


def index_create(name: str, key: str | Sequence[str], grbit: list[str]) -> dict[str, Any]:
    parts = [key] if isinstance(key, str) else list(key)
    return {"name": name, "key": [p if p.startswith(("+", "-")) else f"+{p}" for p in parts], "grbit": grbit}


def key_values(key: Key) -> list[Any]:
    return [to_wire(part) for part in key] if isinstance(key, list | tuple) else [to_wire(key)]


def _as_list(key: Key) -> list[Any]:
    return list(key) if isinstance(key, list | tuple) else [key]


_NOTHING = {"records": [], "more": False}


def _range_calls(sesid: int, tableid: int, start: Key | None, stop: Key | None, index: str | None, reverse: bool) -> list[Call]:
    """What puts a cursor on the first record of a range, and ends it behind the last one."""
    calls: list[Call] = []

    def add(method: str, **params: Any) -> None:
        calls.append({"method": method, "params": {"sesid": sesid, "tableid": tableid, **params}})

    def make_key(key: Key, limit: str) -> None:
        values = key_values(key)
        for number, value in enumerate(values, 1):
            flags = {"NewKey": number == 1, limit: number == len(values), "KeyDataZeroLength": value in ("", b"")}
            add("MakeKey", data=value, grbit=[name for name, wanted in flags.items() if wanted])

    first, last = (stop, start) if reverse else (start, stop)
    add("SetCurrentIndex", **({} if index is None else {"indexname": index}))
    if first is None:
        add("Move", numRows="Last" if reverse else "First")
    else:
        make_key(first, "FullColumnEndLimit" if reverse else "FullColumnStartLimit")
        add("Seek", grbit=["SeekLE" if reverse else "SeekGE"])
    if last is not None:
        make_key(last, "FullColumnStartLimit" if reverse else "FullColumnEndLimit")
        add("SetIndexRange", grbit=["RangeInclusive", *([] if reverse else ["RangeUpperLimit"])])
    return calls


class Table:
    """An open cursor on a table. Records are dictionaries by column name; columns that are NULL are left out."""

    def __init__(self, session: Session, tableid: int, name: str, coltyps: Mapping[str, int]) -> None:
        self.session = session
        self.id = tableid
        self.name = name
        self.coltyps = dict(coltyps)
        self._read = RecordReader(coltyps)
        self._binary = binary_columns(coltyps)
        self._open = True
        self._cursors: list[int] = []  # of ranges that are over

    @classmethod
    def opened(cls, session: Session, tableid: int, name: str) -> Self:
        columns = session.connection.GetTableColumnInfo(session.use(), tableid, infoLevel="List")
        return cls(session, tableid, name, {row["columnname"]: row["coltyp"] for row in columns["rows"]})

    def use(self) -> int:
        """The cursor's id, if it is alive."""
        if not self._open:
            raise HandleDead(f"the table {self.name} is closed")
        self.session.use()
        return self.id

    def close(self) -> None:
        if self._open and self.session.alive:
            self._open = False
            for cursor in self._cursors:
                with suppress(EngineError):  # gone with the transaction that it was made in
                    self.session.connection.CloseTable(self.session.id, cursor)
            self.session.connection.CloseTable(self.session.id, self.id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            with leaving(error):
                self.close()
        except (JetwireError, TimeoutError):
            if error is None:
                raise

    # -- reading ----------------------------------------------------------------------------------------------
    def get(self, key: Key, *, index: str | None = None, columns: Sequence[str] | None = None) -> Record | None:
        """The record with this key in an index (default: the primary), or None."""
        try:
            answer = self.session.connection.GetRecord(self.session.id, self.use(), _as_list(key), columns=columns, indexname=index)
        except EngineError as error:
            if error.code == Err.RecordNotFound:
                return None
            raise
        return self._read(answer["record"])

    def range(
        self,
        start: Key | None = None,
        stop: Key | None = None,
        *,
        index: str | None = None,
        columns: Sequence[str] | None = None,
        reverse: bool = False,
        page: int = _PAGE_ROWS,
    ) -> Iterator[Record]:
        """The records from `start` to `stop` (both included) in an index's order.

        Inside a transaction it is one snapshot; outside, each page of `page` records is one of its own. The table can be
        used meanwhile: a range has a cursor of its own.
        """
        read: dict[str, Any] = {"limit": page, "direction": "backward" if reverse else "forward"}
        if columns is not None:
            read["columns"] = columns if isinstance(columns, str) else list(columns)  # a string is refused, not taken apart
        cursor, answer = self._first_page(lambda cursor: _range_calls(self.session.id, cursor, start, stop, index, reverse), read)
        try:
            while True:
                for record in answer["records"]:
                    yield self._read(record)
                if not answer["more"]:
                    return
                self.use()
                answer = self.session.connection.call("GetRecords", sesid=self.session.id, tableid=cursor, **read)
        finally:
            self._cursors.append(cursor)

    def count(self) -> int:
        """How many records there are; costs a walk along the index."""
        connection, sesid, tableid = self.session.connection, self.session.id, self.use()
        connection.SetCurrentIndex(sesid, tableid)
        try:
            connection.Move(sesid, tableid, "First")
        except EngineError as error:
            if error.code == Err.NoCurrentRecord:
                return 0
            raise
        answer = connection.IndexRecordCount(sesid, tableid)
        return answer["numRecords"]

    # -- writing ----------------------------------------------------------------------------------------------
    def insert(self, *records: Mapping[str, Any]) -> int:
        """Inserts records, all or none. `KeyDuplicate` if one is there already."""
        return self._put(records, "insert")

    def replace(self, *records: Mapping[str, Any]) -> int:
        """Sets the given columns of the records with these primary keys."""
        return self._put(records, "replace")

    def upsert(self, *records: Mapping[str, Any]) -> int:
        """Inserts or replaces, each record by whether its primary key is there."""
        return self._put(records, "upsert")

    def delete(self, *records: Mapping[str, Any]) -> int:
        """Deletes by primary key; only the key's columns are looked at."""
        return self._put(records, "delete")

    # -- within -----------------------------------------------------------------------------------------------
    def _put(self, records: Iterable[Mapping[str, Any]], mode: str) -> int:
        if self._binary:
            refuse_texts(records, self._binary)
        answer = self.session.connection.PutRecords(self.session.id, self.use(), list(records), mode=mode)
        if answer.get("wrn") == Wrn.ColumnMaxTruncated:
            warnings.warn(f"table {self.name}: a value was longer than its column and was cut", ValueCut, stacklevel=3)
        return answer["count"]

    def _first_page(self, go: Callable[[int], list[Call]], read: dict[str, Any]) -> tuple[int, Any]:
        """Takes a cursor, moves it to its range and reads the first page: one round trip, where a cursor is left from another range."""
        while True:
            kept = bool(self._cursors)
            sesid = self.session.use()
            cursor = self._cursors.pop() if kept else (self.session.connection.DupCursor(sesid, self.use()))["newTableid"]
            calls = [*go(cursor), {"method": "GetRecords", "params": {"sesid": sesid, "tableid": cursor, **read}}]
            try:
                return cursor, (self.session.connection.Batch(calls))["results"][-1]
            except EngineError as error:
                if kept and error.code == Err.InvalidTableId:
                    continue  # it was made in a transaction that was rolled back, and went with it
                if error.code in (Err.NoCurrentRecord, Err.RecordNotFound):
                    return cursor, _NOTHING
                self._cursors.append(cursor)
                raise
