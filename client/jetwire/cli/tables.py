"""`jetwire tables`: what databases and tables there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.table import Table as RichTable

from jetwire._sync.session import Session
from jetwire._sync.table import Table
from jetwire.cli.context import answer, console, in_session, settings
from jetwire_protocol.data.flags import Coltyp, CreateIndexGrbit, IndexKeyDefinition


def attached(session: Session) -> list[str]:
    """The names of the databases that the session's instance has attached."""
    rows = session.connection.GetInstanceInfo()["instances"]
    return [name for row in rows if row["instanceName"] == settings.instance for name in row["databaseFileName"]]


def indexes_of(rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The server's rows, one a column of an index, as one entry an index."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda r: (r["indexname"], r["columnIndex"])):
        bits = CreateIndexGrbit(row["grbitIndex"])
        entry = found.setdefault(
            row["indexname"],
            {
                "name": row["indexname"],
                "key": [],
                "primary": CreateIndexGrbit.IndexPrimary in bits,
                "unique": CreateIndexGrbit.IndexUnique in bits or CreateIndexGrbit.IndexPrimary in bits,
            },
        )
        entry["key"].append(("-" if row["grbitColumn"] & IndexKeyDefinition.KeyDescending else "+") + row["columnname"])
    return sorted(found.values(), key=lambda entry: (not entry["primary"], entry["name"]))


def columns_of(session: Session, table: Table) -> list[dict[str, Any]]:
    rows = session.connection.GetTableColumnInfo(session.id, table.id, infoLevel="List")["rows"]
    ordered = sorted(rows, key=lambda row: row.get("presentationOrder") or row["columnid"])
    return [{"name": row["columnname"], "type": Coltyp(row["coltyp"]).name, "max": row.get("max", 0)} for row in ordered]


def described(session: Session, database: str) -> Iterator[dict[str, Any]]:
    """Every table of a database with its columns, indexes and number of records."""
    db = session.open(database)
    for name in db.tables():
        with db.table(name) as table:
            rows: Any = session.connection.GetTableIndexInfo(session.id, table.id, infoLevel="List")["result"]
            yield {
                "database": database,
                "table": name,
                "records": table.count(),
                "columns": columns_of(session, table),
                "indexes": indexes_of(rows),
            }


def tables(
    database: Annotated[str | None, typer.Argument(help="Only this database; it is attached if need be. Default: all that are.")] = None,
) -> None:
    """Lists tables with their columns, indexes and numbers of records."""
    with in_session() as session:
        found = [one for name in ([database] if database else attached(session)) for one in described(session, name)]
    if settings.for_people:
        console.print(overview(found))
    else:
        answer(found)


def overview(found: list[dict[str, Any]]) -> RichTable:
    table = RichTable(header_style="bold", show_lines=True)
    for heading in ("database", "table", "records", "columns", "indexes"):
        table.add_column(heading, justify="right" if heading == "records" else "left", overflow="fold")
    for one in found:
        columns = "\n".join(f"{c['name']} {c['type']}" for c in one["columns"])
        kinds = {i["name"]: "primary" if i["primary"] else "unique" if i["unique"] else "" for i in one["indexes"]}
        indexes = "\n".join(f"{i['name']} ({', '.join(i['key'])}) {kinds[i['name']]}".rstrip() for i in one["indexes"])
        table.add_row(one["database"], one["table"], str(one["records"]), columns, indexes)
    return table
