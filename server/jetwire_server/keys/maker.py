"""Whole keys: a `KeyMaker` is compiled once per index, and makes the keys of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import prod
from operator import call
from typing import Any

from jetwire_protocol.data.flags import Coltyp, CreateIndexGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.keys import fixed
from jetwire_server.keys.binary import chunked, raw
from jetwire_server.keys.decode import NOT_DECODABLE, decode, decode_start
from jetwire_server.keys.sortkey import sort_keys, utf16_units
from jetwire_server.keys.spec import KeySpec, SegmentSpec, Value
from jetwire_server.keys.text import code_page_key, code_page_segment, unicode_segment
from jetwire_server.limits import KEY_BYTES_DEFAULT

# From a value and the room left in the key: its segment, and whether lack of room cut it.
Encoder = Callable[[Any, int], tuple[bytes, bool]]


def _check_count(keys: int) -> None:
    """ESE keeps a version of each entry, and has no room for more of them either."""
    if keys > limits.KEYS_OF_A_RECORD_MAX:
        raise JetError(Err.VersionStoreOutOfMemory, f"a record has more than {limits.KEYS_OF_A_RECORD_MAX} keys in one index")


class KeyMaker:
    """The keys of one index. Values come in the order of its segments, each as plain Python (see the package)."""

    def __init__(self, spec: KeySpec) -> None:
        self.spec = spec
        grbit = spec.grbit
        self.key_most = spec.key_most
        # a VarSegMac that is not set must never be the reason for a cut, so it is one more than the whole key
        self.part_most = spec.key_most + 1 if spec.var_seg_mac in (0, spec.key_most) else spec.var_seg_mac
        self.no_nulls = bool(grbit & CreateIndexGrbit.IndexDisallowNull)
        self.nulls_high = bool(grbit & CreateIndexGrbit.IndexSortNullsHigh) and not self.no_nulls
        self.dot_net_guid = bool(grbit & CreateIndexGrbit.IndexDotNetGuid)
        self.disallow_truncation = bool(grbit & CreateIndexGrbit.IndexDisallowTruncation)
        self.nested = bool(grbit & CreateIndexGrbit.IndexNestedTable)
        # which rows are in the index; a row's keys always are while all three hold
        some = not grbit & (CreateIndexGrbit.IndexDisallowNull | CreateIndexGrbit.IndexIgnoreAnyNull)
        first = some and not grbit & CreateIndexGrbit.IndexIgnoreFirstNull
        self.allows_some_nulls, self.allows_first_null = some, first
        self.allows_all_nulls = first and not grbit & CreateIndexGrbit.IndexIgnoreNull
        self.encoders = tuple(self._encoder(s) for s in spec.segments)
        self.first_number = self._first_number()
        self.varying = self._varying_segments()
        self._plain = not any(s.tagged or s.multi_valued for s in spec.segments) and spec.tuples is None and not spec.conditions_null
        self.key_of_one: Callable[[Any], bytes] | None = None  # of an index of one plain column, the key of its value
        self.key: Callable[[Sequence[Any]], bytes] = self._compile_key()

    # -- compiling

    def null(self, segment: SegmentSpec) -> bytes:
        null = fixed.PREFIX_NULL_HIGH if self.nulls_high else fixed.PREFIX_NULL
        return null.translate(fixed.COMPLEMENT) if segment.descending else null

    def _encoder(self, segment: SegmentSpec) -> Encoder:
        if segment.coltyp in fixed.BODY_SIZE:
            encode = fixed.encoder(segment.coltyp, segment.descending, self.null(segment), self.dot_net_guid)

            def of_one_size(value: Any, room: int) -> tuple[bytes, bool]:
                whole = encode(value)
                return (whole, False) if len(whole) <= room else (whole[:room], True)

            return of_one_size
        return self._variable_encoder(segment)

    def _variable_encoder(self, segment: SegmentSpec) -> Encoder:
        body = self.body_encoder(segment)
        null = self.null(segment)
        if not segment.descending:

            def ascending(value: Any, room: int) -> tuple[bytes, bool]:
                if value is None:
                    return null, False
                return body(value, room) if value else (fixed.PREFIX_EMPTY, False)

            return ascending

        def descending(value: Any, room: int) -> tuple[bytes, bool]:
            if value is None:
                return null, False
            part, cut = body(value, room) if value else (fixed.PREFIX_EMPTY, False)
            return part.translate(fixed.COMPLEMENT), cut

        return descending

    def body_encoder(self, segment: SegmentSpec) -> Encoder:
        """The ascending segments of values that are neither NULL nor empty."""
        if segment.unicode:
            return unicode_segment(sort_keys(self.spec.lcmap_flags), self.key_most, self.part_most)
        if segment.text:
            return code_page_segment(self.part_most)
        if not segment.binary:
            raise JetError(Err.InvalidColumnType, repr(segment.coltyp))
        cut, part_most = (raw if segment.fixed else chunked), self.part_most
        return lambda value, room: cut(value, room, part_most)

    def _varying_segments(self) -> tuple[int, ...]:
        """The multi-valued segments whose values all get keys: the first only, unless the index asks for more."""
        multi = tuple(i for i, s in enumerate(self.spec.segments) if s.multi_valued)
        every = self.nested or self.spec.grbit & CreateIndexGrbit.IndexCrossProduct
        return multi if every else multi[:1]

    def _compile_key(self) -> Callable[[Sequence[Any]], bytes]:
        if any(s.tagged or s.multi_valued for s in self.spec.segments):
            return self._checked_key
        fast = self._compile_fast()
        if not self.no_nulls:
            return fast

        self.key_of_one = None  # a NULL is to be refused first

        def without_nulls(values: Sequence[Any]) -> bytes:
            if None in values:
                raise JetError(Err.NullKeyDisallowed)
            return fast(values)

        return without_nulls

    def _compile_fast(self) -> Callable[[Sequence[Any]], bytes]:
        """Keys of single values, which may be NULL."""
        segments, room = self.spec.segments, self.key_most
        alone = [self._alone(s, e) for s, e in zip(segments, self.encoders, strict=True)]
        fits = sum(1 + fixed.BODY_SIZE.get(s.coltyp, room) for s in segments) <= room
        if len(alone) == 1:
            only = alone[0]
            cuts_itself = segments[0].coltyp not in fixed.BODY_SIZE and not self.disallow_truncation
            if not (fits or cuts_itself):
                return self._checked_key
            self.key_of_one = only
            return lambda values: only(values[0])
        if fits and len(alone) == 2:
            left, right = alone
            return lambda values: left(values[0]) + right(values[1])
        build = self.build

        def joined(values: Sequence[Any]) -> bytes:
            """Segments made as if each had all the room are right if together they fit; else they are cut, one by one."""
            key = b"".join(map(call, alone, values))
            return key if len(key) <= room else build(values)[0]

        return joined

    def _alone(self, segment: SegmentSpec, encode: Encoder) -> fixed.Encode:
        """A segment with the whole key for itself."""
        if segment.coltyp in fixed.BODY_SIZE:
            return fixed.encoder(segment.coltyp, segment.descending, self.null(segment), self.dot_net_guid)
        room = self.key_most
        if segment.text and not segment.unicode and not segment.descending:
            return code_page_key(self.null(segment), room, self.part_most)
        return lambda value: encode(value, room)[0]

    def _first_number(self) -> fixed.Encode | None:
        """Of an index that begins with a column of one size: that segment's encoder."""
        segment = self.spec.segments[0]
        size = fixed.BODY_SIZE.get(segment.coltyp)
        return self._alone(segment, self.encoders[0]) if size is not None and size < self.key_most and self.spec.tuples is None else None

    # -- using

    def _checked_key(self, values: Sequence[Any]) -> bytes:
        firsts = self._first_values(values)
        if self.no_nulls and None in firsts:
            raise JetError(Err.NullKeyDisallowed)
        return self.build(firsts)[0]

    def _first_values(self, values: Sequence[Any]) -> list[Any]:
        return [(v[0] if v else None) if type(v) is list else v for v in values]

    def build(self, values: Sequence[Value]) -> tuple[bytes, bool]:
        """The key of these values (one for each segment), and whether it was cut at the limit.

        Raises KeyTruncated if it would be cut and the index disallows it.
        """
        room, cut, parts = self.key_most, False, []
        for encode, value in zip(self.encoders, values, strict=True):
            if not room:
                cut = True
                break
            part, cut = encode(value, room)
            parts.append(part)
            room -= len(part)
            if cut:
                break
        if cut and self.disallow_truncation:
            raise JetError(Err.KeyTruncated, f"the key is longer than {self.key_most} bytes")
        return b"".join(parts), cut

    def data_most(self, segment: int) -> int | None:
        """How many characters or bytes of a value its key can depend on, so that no more of a long value need be read.

        None: a Unicode key of more than 255 bytes reads on while characters weigh nothing. `key_most` bytes, doubled until
        there is no room for more, are what it sees.
        """
        spec = self.spec.segments[segment]
        if segment == 0 and self.spec.tuples is not None:
            tuples = self.spec.tuples
            return tuples.start + (tuples.total - 1) * tuples.step + tuples.max
        return None if spec.unicode and self.key_most != KEY_BYTES_DEFAULT else self.key_most

    def has_room_for_more(self, segment: int, start: str | None) -> bool:
        """Whether a Unicode text that begins like this has a key that depends on what follows, too."""
        return len(self.encoders[segment](start, self.key_most)[0]) < min(self.key_most, self.part_most)

    def decode(self, key: bytes) -> list[Any]:
        """The values of a key (`decode.py` says which come back). Raises ValueError if it is no key of this index."""
        return decode(self.spec, key, self.nulls_high, self.dot_net_guid)

    def value_in(self, key: bytes, segment: int) -> Any:
        """One of the values of a key; NOT_DECODABLE behind Unicode text too, as in ESE: under some flags its end is not certain."""
        before = self.spec.segments[: segment + 1]
        if any(s.unicode for s in before):
            return NOT_DECODABLE
        return decode_start(before, self.spec, key, self.nulls_high, self.dot_net_guid)[0][segment]

    def keys(self, values: Sequence[Any], conditions: Sequence[Any] = ()) -> list[bytes]:
        """All keys of a row in this index, without repeats: none if the row is not in it.

        A multi-valued column's value is a list. `conditions` are the values of the conditional columns.
        """
        if self._plain:
            return [self.key(values)] if None not in values or self._present(values) else []
        for must_be_null, value in zip(self.spec.conditions_null, conditions, strict=True):
            if must_be_null != (value is None or value == []):
                return []
        return list(dict.fromkeys([key for _, key in self._made(values)]))

    def sources(self, values: Sequence[Any]) -> list[tuple[bytes, Sequence[int | None]]]:
        """The keys of a row that is in this index, repeats too, and for each which of its columns' values (from 1) it was made of."""
        numbers = self._combinations([list(range(1, len(v) + 1)) if type(v) is list else 1 for v in values])
        return [(key, numbers[place]) for place, key in self._made(values)]

    def _made(self, values: Sequence[Any]) -> Iterator[tuple[int, bytes]]:
        """Keys in ESE's order, and which of the combinations each is of."""
        count = 0
        for place, combination in enumerate(self._combinations(values)):
            pieces = combination[:1] if self.spec.tuples is None else self._tuples(combination[0])
            if not pieces:
                continue
            if None in combination and not self._present(combination):
                break  # ESE stops at the first that is not to be indexed
            count += len(pieces)
            _check_count(count)
            for piece in pieces:
                yield place, self.build((piece, *combination[1:]))[0]

    def _combinations(self, values: Sequence[Any]) -> list[Sequence[Any]]:
        """One sequence of single values for each key the row has before tuples."""
        firsts = self._first_values(values)
        if not self.varying:
            return [firsts]
        lists = {i: v if type(v := values[i]) is list and v else [firsts[i]] for i in self.varying}
        if not self.nested:
            _check_count(prod(map(len, lists.values())))
            return list(product(*(lists.get(i, [first]) for i, first in enumerate(firsts))))
        rows: list[Sequence[Any]] = []
        for n in range(max(map(len, lists.values()))):
            row = list(firsts)
            for i, members in lists.items():
                row[i] = members[n] if n < len(members) else None
            rows.append(row)
        return rows

    def _present(self, values: Sequence[Any]) -> bool:
        """Whether values with a NULL among them are indexed."""
        if self.no_nulls:
            raise JetError(Err.NullKeyDisallowed)
        if all(v is None for v in values):
            return self.allows_all_nulls
        return self.allows_first_null if values[0] is None else self.allows_some_nulls

    def _tuples(self, value: Any) -> list[Any]:
        """The pieces of a tuple index's first column. Lengths count characters, of one UTF-16 unit each."""
        tuples, segment = self.spec.tuples, self.spec.segments[0]
        assert tuples is not None
        if value is None:
            return []
        # a short type is read only as far as the key is long, a long one from the piece's own offset
        most = self.key_most if segment.coltyp in (Coltyp.Text, Coltyp.Binary) else None
        pieces: list[Any] = []
        if not segment.text:
            whole: Any = value[:most]
        elif segment.unicode and not value.isascii():
            whole = "".join(map(chr, utf16_units(value)[: most and most // 2]))
        else:
            whole = value[: most and (most // 2 if segment.unicode else most)]
        for n in range(tuples.total):
            start = tuples.start + n * tuples.step
            piece = whole[start : start + tuples.max]
            if len(piece) < tuples.min:
                break
            pieces.append(piece)
        return pieces
