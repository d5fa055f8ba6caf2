"""Normalised keys: bytes that compare as the indexed values do, byte for byte as ESE stores them.

    maker = KeyMaker(KeySpec((SegmentSpec(Coltyp.Long), SegmentSpec(Coltyp.Text, descending=True, cp=1200))))
    maker.key([7, "Creep"])              # a row's one key: a primary index, or values known to be single
    maker.keys([7, "Creep"], conditions) # all its keys in a secondary index, none if the row is not in it
    maker.build([7, "Creep"])            # (key, was it cut at the limit); `key` and `keys` forget the second
    maker.decode(key)                    # the values back, NOT_DECODABLE for text and for what was cut
    search = SearchKey(maker)            # what JetMakeKey builds
    search.add(7, MakeKeyGrbit.NewKey)
    search.data, search.limit

Values, in the order of the segments: bool, int, float (also DateTime, OLE days), str for text, bytes for binary, a UUID or its 16
stored bytes for a GUID, None for NULL; Currency is its integer. A multi-valued column's value is a list of them (the empty list is
NULL). A value of another type or out of its type's range raises TypeError, ValueError, OverflowError or struct.error: check it
before. `KeySpec.tuples` takes `engine.schema.TupleLimits`.

`preload()` at start keeps the first Unicode index from stopping the event loop for 80 ms. `maker.data_most(i)` says how much of a
long value a key needs.

JetErrors: KeyTruncated (the index disallows it), NullKeyDisallowed, InvalidLCMapStringFlags (when compiling).
Keys are pure functions of their arguments. What stored keys prove, and what only the published algorithm says: see `sortkey`.
"""

from jetwire_server.keys.decode import NOT_DECODABLE, NotDecodable
from jetwire_server.keys.maker import KeyMaker
from jetwire_server.keys.search import SearchKey
from jetwire_server.keys.sortkey import check_lcmap_flags, preload
from jetwire_server.keys.spec import LCMAP_DEFAULT, KeySpec, SegmentSpec, TupleLimits, Value

__all__ = [
    "LCMAP_DEFAULT",
    "NOT_DECODABLE",
    "KeyMaker",
    "KeySpec",
    "NotDecodable",
    "SearchKey",
    "SegmentSpec",
    "TupleLimits",
    "Value",
    "check_lcmap_flags",
    "preload",
]
