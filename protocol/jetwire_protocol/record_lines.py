"""Records as lines of text: JSON lines and CSV, both so that what was dumped loads as exactly what it was.

A record is the wire's: binary as base64, dates as the stored number of days, several values of a column as a list.

In CSV a field is the value's text. NULL is `\\N`; a text that begins with a backslash has it doubled; `\\J` begins a value
that only JSON can say (several values of a column, bytes that are no text).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, TextIO

NULL = "\\N"
JSON = "\\J"


class Format(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"

    @classmethod
    def of(cls, name: str | None) -> Format:
        """By a file's name; JSON lines where that says nothing."""
        return cls.CSV if name is not None and name.endswith(".csv") else cls.JSONL


def writer(form: Format, out: TextIO, columns: Sequence[str]) -> Callable[[Mapping[str, Any]], object]:
    """A function that writes one record."""
    if form is Format.JSONL:
        return lambda record: out.write(json.dumps(record, ensure_ascii=False) + "\n")
    rows = csv.writer(out)  # with the CRLF of RFC 4180, without which a lone CR would not be quoted
    rows.writerow(columns)
    return lambda record: rows.writerow([_field(record.get(name)) for name in columns])


def _field(value: Any) -> str:
    if value is None:
        return NULL
    if isinstance(value, str):
        return "\\" + value if value.startswith("\\") else value
    return (JSON if isinstance(value, list | dict) else "") + json.dumps(value, ensure_ascii=False)
