"""A table as a mapping of records: by key, along a range, in bulk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from jetwire.convert import RecordReader, record_to_wire, to_wire
from jetwire.errors import EngineError, HandleDead
from jetwire_protocol.errors import Err

if TYPE_CHECKING:
    from jetwire._async.session import Session

Record = dict[str, Any]
Key = Any  # one value, or a sequence of values for an index of several columns
ColumnSpec = Mapping[str, Any]
_PAGE_ROWS = 500


def column_create(name: str, column: str | ColumnSpec) -> dict[str, Any]:
    """A JET_COLUMNCREATE; text is Unicode unless the caller says otherwise."""
    spec: dict[str, Any] = {"coltyp": column} if isinstance(column, str) else dict(column)
    if spec["coltyp"] in ("Text", "LongText"):
        spec.setdefault("cp", 1200)
    return {"name": name, **spec}


def index_create(name: str, key: str | Sequence[str], grbit: list[str]) -> dict[str, Any]:
    parts = [key] if isinstance(key, str) else list(key)
    return {"name": name, "key": [p if p[0] in "+-" else f"+{p}" for p in parts], "grbit": grbit}


def key_values(key: Key) -> list[Any]:
    return [to_wire(part) for part in key] if isinstance(key, list | tuple) else [to_wire(key)]


class Table:
    """An open cursor on a table. Records are dictionaries by column name; columns that are NULL are left out."""

    def __init__(self, session: Session, tableid: int, name: str, coltyps: Mapping[str, int]) -> None:
        self.session = session
        self.id = tableid
        self.name = name
        self.coltyps = dict(coltyps)
        self._read = RecordReader(coltyps)
        self._open = True

    @classmethod
    async def opened(cls, session: Session, tableid: int, name: str) -> Self:
        columns = await session.connection.GetTableColumnInfo(session.use(), tableid, infoLevel="List")
        return cls(session, tableid, name, {row["columnname"]: row["coltyp"] for row in columns["rows"]})

    def use(self) -> int:
        """The cursor's id, if it is alive."""
        if not self._open:
            raise HandleDead(f"the table {self.name} is closed")
        self.session.use()
        return self.id

    async def close(self) -> None:
        if self._open and self.session.alive:
            self._open = False
            await self.session.connection.CloseTable(self.session.id, self.id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- reading ----------------------------------------------------------------------------------------------
    async def get(self, key: Key, *, index: str | None = None, columns: Sequence[str] | None = None) -> Record | None:
        """The record with this key in an index (default: the primary), or None."""
        try:
            answer = await self.session.connection.GetRecord(self.session.id, self.use(), key_values(key), columns=columns, indexname=index)
        except EngineError as error:
            if error.code == Err.RecordNotFound:
                return None
            raise
        return self._read(answer["record"])

    async def range(
        self,
        start: Key | None = None,
        stop: Key | None = None,
        *,
        index: str | None = None,
        columns: Sequence[str] | None = None,
        reverse: bool = False,
        page: int = _PAGE_ROWS,
    ) -> AsyncIterator[Record]:
        """The records from `start` to `stop` (both included) in an index's order.

        Inside a transaction it is one snapshot; outside, each page of `page` records is one of its own. The cursor is
        in use meanwhile: open the table twice to do something else with it.
        """
        connection, sesid, tableid = self.session.connection, self.session.id, self.use()
        await connection.SetCurrentIndex(sesid, tableid, indexname=index)
        first, last = (stop, start) if reverse else (start, stop)
        if not await self._go_to(first, reverse):
            return
        if last is not None:
            await self._make_key(last, "FullColumnStartLimit" if reverse else "FullColumnEndLimit")
            try:
                await connection.SetIndexRange(
                    sesid, tableid, grbit=["RangeInclusive"] if reverse else ["RangeInclusive", "RangeUpperLimit"]
                )
            except EngineError as error:
                if error.code == Err.NoCurrentRecord:
                    return
                raise
        while True:
            answer = await connection.GetRecords(
                sesid, tableid, limit=page, columns=columns, direction="backward" if reverse else "forward"
            )
            for record in answer["records"]:
                yield self._read(record)
            if not answer["more"]:
                return

    async def count(self) -> int:
        """How many records there are; costs a walk along the index."""
        connection, sesid, tableid = self.session.connection, self.session.id, self.use()
        await connection.SetCurrentIndex(sesid, tableid)
        try:
            await connection.Move(sesid, tableid, "First")
        except EngineError as error:
            if error.code == Err.NoCurrentRecord:
                return 0
            raise
        answer = await connection.IndexRecordCount(sesid, tableid)
        return answer["numRecords"]

    # -- writing ----------------------------------------------------------------------------------------------
    async def insert(self, *records: Mapping[str, Any]) -> int:
        """Inserts records, all or none. `KeyDuplicate` if one is there already."""
        return await self._put(records, "insert")

    async def replace(self, *records: Mapping[str, Any]) -> int:
        """Sets the given columns of the records with these primary keys."""
        return await self._put(records, "replace")

    async def upsert(self, *records: Mapping[str, Any]) -> int:
        """Inserts or replaces, each record by whether its primary key is there."""
        return await self._put(records, "upsert")

    async def delete(self, *records: Mapping[str, Any]) -> int:
        """Deletes by primary key; only the key's columns are looked at."""
        return await self._put(records, "delete")

    # -- within -----------------------------------------------------------------------------------------------
    async def _put(self, records: Iterable[Mapping[str, Any]], mode: str) -> int:
        answer = await self.session.connection.PutRecords(
            self.session.id, self.use(), [record_to_wire(record) for record in records], mode=mode
        )
        return answer["count"]

    async def _make_key(self, key: Key, limit: str) -> None:
        *head, last = key_values(key)
        for number, value in enumerate(head):
            await self.session.connection.MakeKey(self.session.id, self.id, value, grbit=["NewKey"] if number == 0 else 0)
        await self.session.connection.MakeKey(self.session.id, self.id, last, grbit=([limit] if head else ["NewKey", limit]))

    async def _go_to(self, key: Key | None, reverse: bool) -> bool:
        """Puts the cursor on the first record of a range; False if there is none."""
        try:
            if key is None:
                await self.session.connection.Move(self.session.id, self.id, "Last" if reverse else "First")
            else:
                await self._make_key(key, "FullColumnEndLimit" if reverse else "FullColumnStartLimit")
                await self.session.connection.Seek(self.session.id, self.id, grbit=["SeekLE" if reverse else "SeekGE"])
        except EngineError as error:
            if error.code in (Err.NoCurrentRecord, Err.RecordNotFound):
                return False
            raise
        return True
