"""The two calls of the straight road as they stand in a message: each a struct that says in C what the declaration says.

`rpc.straight` itself is compiled when a wheel is built; compiled classes would lose what these tell msgspec.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct


class GetParams(Struct, forbid_unknown_fields=True):
    sesid: int
    tableid: int
    key: list[str | int | float | bool]


class Get(Struct, tag_field="method", tag="GetRecord", forbid_unknown_fields=True):
    jsonrpc: Literal["2.0"]
    id: int
    params: GetParams


class PutParams(Struct, forbid_unknown_fields=True):
    sesid: int
    tableid: int
    records: Raw
    mode: Literal["insert", "replace"] = "insert"
    grbit: Literal[0, 1] = 0


class Put(Struct, tag_field="method", tag="PutRecords", forbid_unknown_fields=True):
    jsonrpc: Literal["2.0"]
    id: int
    params: PutParams


decode_get: Final = msgspec.json.Decoder(Get).decode
decode_put: Final = msgspec.json.Decoder(Put).decode
