"""Records read from files, as `jetwire_protocol.record_lines` says they are written there."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from typing import Any, NamedTuple

from jetwire.cli.context import Wrong
from jetwire_protocol.data.flags import Coltyp
from jetwire_protocol.record_lines import JSON, NULL, Format

_TEXTS = frozenset({Coltyp.Text, Coltyp.LongText})
_FLOATS = frozenset({Coltyp.IEEESingle, Coltyp.IEEEDouble, Coltyp.DateTime})
_BITS = {"true": True, "1": True, "false": False, "0": False}

csv.field_size_limit(1 << 30)


class Line(NamedTuple):
    """A record, and where it stands in the file: its last line, for a CSV record that has several."""

    number: int
    record: dict[str, Any]


def reader(form: Format, source: Iterable[str], coltyps: Mapping[str, int]) -> Iterator[Line]:
    """The records of a file, one at a time. `Wrong` names the line that is none."""
    return _read_lines(source) if form is Format.JSONL else _read_csv(source, coltyps)


def _read_lines(source: Iterable[str]) -> Iterator[Line]:
    for number, text in enumerate(source, 1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except ValueError as error:
            raise Wrong(f"line {number}: {error}") from None
        except RecursionError:
            raise Wrong(f"line {number}: nested too deep") from None
        if not isinstance(record, dict):
            raise Wrong(f"line {number}: a record is a JSON object")
        yield Line(number, record)


def _read_csv(source: Iterable[str], coltyps: Mapping[str, int]) -> Iterator[Line]:
    rows = csv.reader(source, strict=True)
    try:
        names = next(rows, [])
        unknown = [name for name in names if name not in coltyps]
        if unknown:
            raise Wrong(f"line 1: the table has no column {', '.join(unknown)}; it has {', '.join(coltyps)}")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise Wrong(f"line 1: {', '.join(twice)} is named twice")
        for row in rows:
            if len(row) != len(names):
                raise Wrong(f"line {rows.line_num}: {len(row)} fields where the first line names {len(names)}")
            try:
                record = {name: _value(field, coltyps[name]) for name, field in zip(names, row, strict=True)}
            except ValueError as error:
                raise Wrong(f"line {rows.line_num}: {error}") from None
            except RecursionError:
                raise Wrong(f"line {rows.line_num}: nested too deep") from None
            yield Line(rows.line_num, record)
    except csv.Error as error:
        raise Wrong(f"line {rows.line_num}: {error}") from None


def _value(field: str, coltyp: int) -> Any:
    """A field by its column's type; integers go as they are written, since the protocol takes them so."""
    if field == NULL:
        return None
    if field.startswith(JSON):
        return json.loads(field.removeprefix(JSON))
    if field.startswith("\\\\"):
        return field[1:]
    if coltyp in _TEXTS:
        return field
    if not field and coltyp not in (Coltyp.Binary, Coltyp.LongBinary):
        return None  # other programs' NULL
    if coltyp == Coltyp.Bit:
        if field.lower() not in _BITS:
            raise ValueError(f"{field} is neither true nor false")
        return _BITS[field.lower()]
    if coltyp in _FLOATS:
        return _number(field)
    return field


def _number(field: str) -> Any:
    """A number; what is none may be a date or one of the words for what is no number: the server knows."""
    try:
        number = json.loads(field)
    except ValueError:
        return field
    return number if isinstance(number, int | float) and not isinstance(number, bool) and isfinite(number) else field
