"""Steps that come before a call whose arguments are at fault: cursors of other kinds, transactions, other sessions."""

from __future__ import annotations

from typing import Any

from tests.support.calls import BEGIN, Params, Step
from tests.support.calls import D as DATABASE
from tests.support.calls import I as INSTANCE
from tests.support.calls import S as SESSION
from tests.support.calls import T as CURSOR

LONG = {"coltyp": "Long"}
TEXT: dict[str, Any] = {"coltyp": "LongText", "cp": 1200}
ID = {"name": "id", **LONG}
PRIMARY = {"name": "pk", "key": ["+id"], "grbit": ["IndexPrimary"]}

READ_ONLY = (Step("BeginTransaction", {**SESSION, "grbit": ["TransactionReadOnly"]}),)
IN_TRANSACTION = (BEGIN,)
BEFORE_FIRST = (Step("SetCurrentIndex", {**CURSOR, "grbit": ["MoveBeforeFirst"]}),)
INSERTING = (Step("PrepareUpdate", {**CURSOR, "prep": "Insert"}),)
REPLACING = (Step("PrepareUpdate", {**CURSOR, "prep": "Replace"}),)
DELETED = (Step("Delete", CURSOR),)
BY_NAME = (Step("SetCurrentIndex", {**CURSOR, "indexname": "byName"}),)


def reopened(*flags: str) -> tuple[Step, ...]:
    """The world's table under a cursor of another kind; the one that made it had the table to itself."""
    opened = Step("OpenTable", {**DATABASE, "tablename": "$table", "grbit": list(flags)}, {"tableid": "tableid"})
    return (Step("CloseTable", CURSOR), opened)


def made(grbit: tuple[str, ...] = (), columns: list[Params] | None = None, indexes: list[Params] | None = None) -> tuple[Step, ...]:
    """Another table, `$name`, with a cursor as anybody would open it in place of the world's."""
    create = {"name": "$name", "grbit": list(grbit), "columns": columns or [ID], "indexes": indexes or [PRIMARY]}
    return (
        Step("CreateTableColumnIndex", {**DATABASE, "tablecreate": create}, {"made": "tableid"}),
        Step("CloseTable", {**SESSION, "tableid": "$made"}),
        Step("OpenTable", {**DATABASE, "tablename": "$name"}, {"tableid": "tableid"}),
    )


DERIVED = (  # `$tableid` is of a table made after a template
    *made(("TableCreateTemplateTable",), [ID, {"name": "x", **TEXT}], [PRIMARY, {"name": "byX", "key": ["+x"]}]),
    Step("CreateTableColumnIndex", {**DATABASE, "tablecreate": {"name": "d-$name", "templateTableName": "$name"}}, {"tableid": "tableid"}),
)
OTHER_SESSION = (
    Step("BeginSession", INSTANCE, {"other": "sesid"}),
    Step("OpenDatabase", {"sesid": "$other", "database": "world.edb"}, {"otherDbid": "dbid"}),
)
OTHERS = (  # another session has a cursor on the same table
    *reopened(),
    *OTHER_SESSION,
    Step("OpenTable", {"sesid": "$other", "dbid": "$otherDbid", "tablename": "$table"}, {"theirs": "tableid"}),
)
THEIRS = {"sesid": "$other", "tableid": "$theirs"}
OTHER_CHANGED = (  # and has changed the first record, and not committed
    *OTHERS,
    BEGIN,
    Step("BeginTransaction", {"sesid": "$other"}),
    Step("Delete", THEIRS),
)
