"""What an index is, as far as its keys are concerned: the engine says it once, and a `KeyMaker` is compiled from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from jetwire_protocol.data.flags import Coltyp, CreateIndexGrbit
from jetwire_server.limits import KEY_BYTES_DEFAULT

Value = bool | int | float | str | bytes | UUID | None

CODE_PAGE_UNICODE = 1200
LCMAP_DEFAULT = 0x00030401  # LCMAP_SORTKEY | NORM_IGNORECASE | NORM_IGNOREKANATYPE | NORM_IGNOREWIDTH
TEXT = frozenset({Coltyp.Text, Coltyp.LongText})
BINARY = frozenset({Coltyp.Binary, Coltyp.LongBinary})


@dataclass(frozen=True, slots=True)
class SegmentSpec:
    """One part of a key: what its column holds, and its direction."""

    coltyp: Coltyp
    descending: bool = False
    cp: int = 0  # of text: 1200 is Unicode, anything else is one byte a character
    fixed: bool = False  # a fixed column: its Binary is not chunked, its Text is padded with spaces
    multi_valued: bool = False
    max: int = 0  # bytes; needed for fixed Binary and fixed Text only
    tagged: bool = False  # may have several values; unless it is multi-valued too, the first alone gets a key

    @property
    def text(self) -> bool:
        return self.coltyp in TEXT

    @property
    def binary(self) -> bool:
        return self.coltyp in BINARY

    @property
    def unicode(self) -> bool:
        return self.coltyp in TEXT and self.cp == CODE_PAGE_UNICODE


class TupleLimits(Protocol):
    """How a tuple index cuts its first column: `engine.schema.TupleLimits` fits."""

    @property
    def min(self) -> int: ...
    @property
    def max(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def start(self) -> int: ...


@dataclass(frozen=True, slots=True)
class KeySpec:
    segments: tuple[SegmentSpec, ...]
    grbit: CreateIndexGrbit = CreateIndexGrbit(0)
    key_most: int = KEY_BYTES_DEFAULT
    var_seg_mac: int = 0  # 0: as key_most
    locale: str = "en-US"
    lcmap_flags: int = LCMAP_DEFAULT
    conditions_null: tuple[bool, ...] = ()  # per conditional column: True if it must be NULL, False if it must not
    tuples: TupleLimits | None = None
