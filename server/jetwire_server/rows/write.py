"""Values on their way into a row: a plan for rows whose values are ordinary, and the careful way for one value of any kind."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from jetwire_protocol.errors import Err, JetError
from jetwire_server.rows.columns import CompiledColumn, LongRef
from jetwire_server.rows.plans import picker
from jetwire_server.rows.shape import SLOT_KINDS, Kind, pack_shape
from jetwire_server.rows.text import encode_piece

Entry = tuple[int, bytes]  # a stored column's kind, and its bytes: a slot's, or a piece of the text
Change = Callable[[Any], Any]


def _bit(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError("not a bool")
    return value


def _guid(value: Any) -> bytes:
    if not isinstance(value, UUID):
        raise TypeError("not a UUID")
    return value.bytes_le


def _text_or_texts(value: Any) -> Any:
    if type(value) is list and len(value) > 1:
        "".join(value)  # only to see that they are texts
    elif type(value) is not str:
        raise TypeError("not a str")
    return value


_SLOT_CHANGES: dict[str, Change] = {"?": _bit, "16s": _guid}  # struct itself checks the numbers


@dataclass(frozen=True, slots=True)
class WritePlan:
    """How rows that store just these columns are encoded, if none is NULL or separated, and only texts are multi-valued.

    A value that is not ordinary makes one of the plan's steps raise TypeError, ValueError, ArithmeticError or struct.error.
    """

    shape: bytes
    slots: struct.Struct | None
    slot_values: Callable[[Any], tuple[Any, ...]]
    slot_changes: tuple[tuple[int, Change], ...]
    pieces: Callable[[Any], tuple[Any, ...]] | None  # the values of the row's text; None if there are none
    changes: tuple[tuple[int, Change], ...]  # which of them are no single texts, and how JSON says them
    texts: Callable[[Any], tuple[Any, ...]]  # those that are

    @classmethod
    def of(cls, ids: tuple[int, ...], columns: dict[int, CompiledColumn]) -> WritePlan:
        slots: list[CompiledColumn] = []
        pieces: list[CompiledColumn] = []
        shape: list[tuple[int, int]] = []
        for column_id in sorted(ids):
            column = columns.get(column_id)
            if column is None:
                raise JetError(Err.ColumnNotFound, f"column {column_id}")
            if column.slot is not None:
                slots.append(column)
                shape.append((column_id, SLOT_KINDS[column.slot.size]))
            else:
                pieces.append(column)
                shape.append((column_id, Kind.TEXT))
        return cls(
            shape=pack_shape(shape),
            slots=struct.Struct("<" + "".join(c.type.code for c in slots)) if slots else None,
            slot_values=picker([c.id for c in slots]),
            slot_changes=tuple((i, _SLOT_CHANGES[c.type.code]) for i, c in enumerate(slots) if c.type.code in _SLOT_CHANGES),
            pieces=picker([c.id for c in pieces]) if pieces else None,
            changes=tuple((i, _text_or_texts if c.is_text else c.type.encode) for i, c in enumerate(pieces) if c.tagged or not c.is_text),
            texts=picker([c.id for c in pieces if c.is_text and not c.tagged]),
        )


def make_entry(column: CompiledColumn, value: Any) -> Entry:
    """How any value is stored in a column. Raises InvalidParameter if the column cannot hold it."""
    if type(value) is list and len(value) < 2:
        value = value[0] if value else None
    if value is None:
        return Kind.NULL, b""
    try:
        if column.slot is not None:
            change = _SLOT_CHANGES.get(column.type.code)
            return SLOT_KINDS[column.slot.size], column.slot.pack(change(value) if change else value)
        if type(value) is list:
            if not column.tagged:
                raise TypeError("only a tagged column has multi-values")
            refs = any(type(v) is LongRef for v in value)
        else:
            refs = type(value) is LongRef
        return Kind.TEXT_WITH_REFS if refs else Kind.TEXT, encode_piece(column, value)
    except (TypeError, ValueError, ArithmeticError, struct.error) as error:
        raise JetError(Err.InvalidParameter, f"column {column.name}: {error}", column=column.name) from error
