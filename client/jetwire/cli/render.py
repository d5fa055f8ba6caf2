"""Answers as people like them: lists of rows as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

_CELL_CHARACTERS = 60


def rows_of(value: Any) -> list[Mapping[str, Any]] | None:
    """The rows in an answer: a list of objects, or an answer of which one member is one and nothing else matters as much."""
    if isinstance(value, list):
        return value if value and all(isinstance(row, dict) for row in value) else None
    if isinstance(value, dict):
        lists = [rows for rows in map(rows_of, value.values()) if rows]
        plain = [one for one in value.values() if isinstance(one, dict) and one]
        return lists[0] if len(lists) == 1 and not plain else None
    return None


def table_of(value: Any, title: str | None = None) -> Table | None:
    """A table of the rows in an answer, if there are any; columns in the order in which they first appear."""
    rows = rows_of(value)
    if rows is None:
        return None
    table = Table(title=title, title_justify="left", header_style="bold", row_styles=["", "dim"])
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(name, justify="right" if all(_is_number(row.get(name)) for row in rows) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell(row[name]) if name in row else Text("-", style="dim") for name in names))
    return table


def cell(value: Any) -> Text:
    """One value: NULL told from empty text, long ones cut with their length said."""
    if value is None:
        return Text("-", style="dim")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) > _CELL_CHARACTERS:
        return Text(f"{text[:_CELL_CHARACTERS]}... ({len(text)})")
    return Text(text)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def grid(rows: Sequence[tuple[str, Any]]) -> Table:
    """Facts, one a line."""
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name, style="bold"), cell(value))
    return table
