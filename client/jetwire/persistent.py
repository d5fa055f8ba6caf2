"""A dictionary that outlives the program, as ManagedEsent's PersistentDictionary: sorted by key, durable at each change."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, ItemsView, Iterator, MutableMapping, ValuesView
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from jetwire._sync.server import Server
from jetwire._sync.session import Database, Session
from jetwire._sync.table import Table, column_create, index_create
from jetwire.errors import (
    EngineError,
    JetwireError,
    KeyDuplicate,
    ObjectNotFound,
    RecordNotFound,
    TableDuplicate,
    TableLocked,
    WriteConflict,
)
from jetwire_protocol.data.flags import Coltyp
from jetwire_protocol.errors import Err

K = TypeVar("K")
V = TypeVar("V")

_TABLE = "data"
_KEY_TYPES = {str: "Text", int: "LongLong", float: "IEEEDouble", datetime: "DateTime", UUID: "GUID", bytes: "Binary", bool: "Bit"}
_VALUE_TYPES = _KEY_TYPES | {str: "LongText", bytes: "LongBinary"}
_KEY_BYTES_MAX = 255  # of a Text or Binary column; what is longer would be cut, and two keys become one
_INT_END = 1 << 63
_CLEARED_AT_ONCE = 1000
_ATTEMPTS = 50
_PAUSE_SECONDS = 0.005
_INDEX_KEY_BYTES = 1000  # what the index may make of a key: 255 bytes of text at their worst


class PersistentDict(MutableMapping[K, V], Generic[K, V]):
    """A `MutableMapping` in a database of the server.

        with PersistentDict("settings.edb", str, str) as settings:
            settings["colour"] = "green"
            for name in settings.keys_between("a", "d"): ...

    Each change is a durable transaction; `with settings.transaction(): ...` makes many changes one. Text keys compare
    as the engine compares them, without regard to case. A key has at most 255 bytes: 127 characters of text.
    """

    def __init__(
        self, database: str, key: type[K], value: type[V], *, url: str | None = None, instance: str = "default", **options: Any
    ) -> None:
        for kind, types in ((key, _KEY_TYPES), (value, _VALUE_TYPES)):
            if kind not in types:
                raise TypeError(f"{kind.__name__} is not one of {', '.join(t.__name__ for t in types)}")
        self._key, self._value = key, value
        self._server = Server(url, **options)
        self._server.connection.open()
        try:
            self._session = self._server.begin_session(instance)
            self._table = self._open(self._session, database, key, value)
        except BaseException:
            self._server.connection.close()
            raise
        self.transaction = self._session.transaction

    @staticmethod
    def _open(session: Session, database: str, key: type[Any], value: type[Any]) -> Table:
        db = session.open(database, create=True)
        table = _table(db, key, value)
        wanted = [_KEY_TYPES[key], _VALUE_TYPES[value]]
        if [table.coltyps.get("key"), table.coltyps.get("value")] != [_coltyp(name) for name in wanted]:
            raise JetwireError(f"{database} holds other types than {key.__name__} and {value.__name__}")
        return table

    def close(self) -> None:
        try:
            self._session.close()
        finally:
            self._server.connection.close()

    def __enter__(self) -> PersistentDict[K, V]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, key: K) -> V:
        record = self._table.get(key) if self._problem(key) is None else None
        if record is None:
            raise KeyError(key)
        return cast("V", record.get("value"))

    def __setitem__(self, key: K, value: V) -> None:
        problem = self._problem(key)
        if problem is not None:
            raise problem
        if value is not None and not _is_a(self._value, value):
            raise TypeError(f"a value of this dictionary is {self._value.__name__}, not {type(value).__name__}")
        self._change(lambda: self._table.upsert({"key": key, "value": value}))

    def __delitem__(self, key: K) -> None:
        if self._problem(key) is not None:
            raise KeyError(key)
        try:
            self._change(lambda: self._table.delete({"key": key}))
        except EngineError as error:
            if error.code == Err.RecordNotFound:
                raise KeyError(key) from None
            raise

    def clear(self) -> None:
        """Removes all there is, in pieces."""
        while keys := list(islice(self, _CLEARED_AT_ONCE)):
            with suppress(RecordNotFound):  # another was quicker with one of them: look again
                self._change(partial(self._table.delete, *({"key": key} for key in keys)))

    def _change(self, work: Callable[[], int]) -> None:
        """Outside a transaction, whoever meets another's change of the same key comes after it; within one it is a conflict."""
        attempts = 1 if self._session.depth else _ATTEMPTS
        for attempt in range(1, attempts + 1):
            try:
                work()
                return
            except (WriteConflict, KeyDuplicate):  # the latter of a key that another is just putting in
                if attempt == attempts:
                    raise
                time.sleep(_PAUSE_SECONDS * attempt * random.random())

    def __contains__(self, key: object) -> bool:
        return self._problem(key) is None and self._table.get(key) is not None

    def _problem(self, key: object) -> Exception | None:
        """Why this can be no key here, if it cannot."""
        if not _is_a(self._key, key):
            return TypeError(f"a key of this dictionary is {self._key.__name__}, not {type(key).__name__}")
        if isinstance(key, int) and not -_INT_END <= key < _INT_END and self._key is int:
            return ValueError(f"a key has at most 64 bits, this one {key.bit_length() + 1}")
        try:
            size = len(key.encode("utf-16-le")) if isinstance(key, str) else len(key) if isinstance(key, bytes) else 0
        except UnicodeEncodeError as error:
            return error
        if size > _KEY_BYTES_MAX:
            return ValueError(f"a key has at most {_KEY_BYTES_MAX} bytes (of text: {_KEY_BYTES_MAX // 2} characters), this one {size}")
        return None

    def __iter__(self) -> Iterator[K]:
        return self.keys_between()

    def __len__(self) -> int:
        return self._table.count()

    def __reversed__(self) -> Iterator[K]:
        return (cast("K", record["key"]) for record in self._table.range(columns=["key"], reverse=True))

    def items(self) -> ItemsView[K, V]:
        return _Items(self)

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def keys_between(self, first: K | None = None, last: K | None = None) -> Iterator[K]:
        """The keys from `first` to `last`, both included, in order."""
        return (cast("K", record["key"]) for record in self._table.range(first, last, columns=["key"]))

    def items_between(self, first: K | None = None, last: K | None = None) -> Iterator[tuple[K, V]]:
        """The pairs from key `first` to key `last`, both included, in order."""
        return ((cast("K", record["key"]), cast("V", record.get("value"))) for record in self._table.range(first, last))


class _Items(ItemsView[K, V]):
    """Read in pages, not key by key."""

    _mapping: PersistentDict[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return self._mapping.items_between()


class _Values(ValuesView[V]):
    _mapping: PersistentDict[Any, V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping.items_between())


def _is_a(kind: type[Any], value: object) -> bool:
    """Whether the engine takes and gives back a value as one of this type: no `True` among numbers, no text among bytes."""
    return isinstance(value, int | float if kind is float else kind) and (kind is bool or not isinstance(value, bool))


def _table(db: Database, key: type[Any], value: type[Any]) -> Table:
    """The table, made if need be; whoever makes it has it for himself for a moment."""
    for attempt in range(_ATTEMPTS):
        try:
            return db.table(_TABLE)
        except ObjectNotFound:
            with suppress(TableDuplicate):
                _create(db, key, value)
        except TableLocked:
            time.sleep(_PAUSE_SECONDS * attempt)
    return db.table(_TABLE)


def _create(db: Database, key: type[Any], value: type[Any]) -> None:
    """The table: two keys that differ are two records, whatever the index would make of their last characters."""
    columns = {"key": _KEY_TYPES[key], "value": _VALUE_TYPES[value]}
    flags = ["IndexPrimary", "IndexDisallowNull", "IndexDisallowTruncation", "IndexKeyMost"]
    spec = {
        "name": _TABLE,
        "columns": [column_create(name, kind) for name, kind in columns.items()],
        "indexes": [{**index_create("primary", "key", flags), "keyMost": _INDEX_KEY_BYTES}],
    }
    connection, sesid = db.session.connection, db.session.id
    connection.CloseTable(sesid, connection.CreateTableColumnIndex(sesid, db.id, spec)["tableid"])


def _coltyp(name: str) -> int:
    return int(Coltyp[name])
