"""Rows: values to bytes and back, or straight on to JSON.

    row  =  shape                                    | slots                   | text
            which columns are stored, and how        | fixed numeric values    | all other values, as a JSON template

    shape   length (1 byte, or 255 and 4 bytes), then for each stored column a varint (id - previous id) * 8 + kind
    kind    0 NULL, 1 in the text, 2 in the text with references to long values, 3-7 a slot of 1, 2, 4, 8, 16 bytes
    slots   little-endian values in order of their columns' ids
    text    %b value %b value ... %b    each value as JSON: "text", "base64", 12, ["multi", "value"], {"long": id, "size": n}

docs/row-format.md explains it with examples. Pure functions: nothing here does I/O or knows the engine.
"""

from jetwire_server.rows.codec import EMPTY_ROW, RowCodec
from jetwire_server.rows.columns import ABSENT, ColumnSpec, LongRef, Scalar, Value
from jetwire_server.rows.json_view import JsonView

__all__ = ["ABSENT", "EMPTY_ROW", "ColumnSpec", "JsonView", "LongRef", "RowCodec", "Scalar", "Value"]
