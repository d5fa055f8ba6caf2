"""Microseconds per row, and how many times the obvious way (msgpack in, JSON out) that is. Run: python benchmarks/rows_bench.py

Medians over rounds in which every contestant takes its turn, so that a busy machine is unfair to all alike. The ways to make JSON
that the layout was chosen from are measured too: slices by a struct per length shape, split and join, and the template it became.
"""

from __future__ import annotations

import random
import statistics
import struct
import timeit
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from jetwire_protocol.data.flags import Coltyp
from jetwire_server.rows import ColumnSpec, RowCodec

ROUNDS, ROWS = 9, 100
Call = Callable[[], object]
rng = random.Random(1)


def text(length: int) -> str:
    return "".join(rng.choices("abcdefghijklmnop qrstuvwxyz", k=length))


def each(call: Callable[[Any], object], items: Sequence[Any]) -> Call:
    def run() -> None:
        for item in items:
            call(item)

    return run


def measure(calls: dict[str, Call], rows: int) -> dict[str, float]:
    """Microseconds per row."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    number = max(1, 1_000 // rows)
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name].append(timeit.timeit(call, number=number) / number / rows * 1e6)
    return {name: statistics.median(all_times) for name, all_times in times.items()}


def codec_calls(columns: list[ColumnSpec], values: list[dict[int, Any]]) -> dict[str, Call]:
    codec = RowCodec(columns)
    rows = [codec.encode(v) for v in values]
    third, one = [c.id for c in columns[:3]], columns[len(columns) // 2].id
    return {
        "encode": each(codec.encode, values),
        "decode": each(codec.decode, rows),
        "decode_named": each(codec.decode_named, rows),
        "to_json": each(codec.to_json, rows),
        "to_json_many": lambda: codec.to_json_many(rows),
        "to_json, int64 as strings": each(lambda row: codec.to_json(row, int64_strings=True), rows),
        "to_json, three columns": each(lambda row: codec.to_json(row, third), rows),
        "get one column": each(lambda row: codec.get(row, one), rows),
        "patch one column": each(lambda row: codec.patch(row, {one: values[0].get(one)}), rows),
    }


def contenders(values: Iterable[dict[int, Any]]) -> dict[str, Call]:
    """Other ways to the same JSON, each on the layout that suits it best."""
    named = [{f"field{i - 128}": v for i, v in row.items()} for row in values]
    packed = [msgspec.msgpack.encode(row) for row in named]
    unpack, to_json = msgspec.msgpack.Decoder().decode, msgspec.json.Encoder().encode
    names = [b'%b"field%d":' % (b"," if i else b"{", i) for i in range(10)]
    template = b"".join(name + b"%b" for name in names) + b"}"
    lines = [b"\n".join(to_json(v) for v in row.values()) for row in named]
    shape = struct.Struct("<H10H")
    sliced = [shape.pack(shape.size, *(len(to_json(v)) for v in row.values())) + b"".join(map(to_json, row.values())) for row in named]
    plans: dict[bytes, struct.Struct] = {}

    def by_lengths(row: bytes) -> bytes:
        head = row[:22]
        plan = plans.get(head)
        if plan is None:
            plan = plans[head] = struct.Struct("22x" + "".join(f"{n}s" for n in shape.unpack(head)[1:]))
        return template % plan.unpack(row)

    def by_lengths_unseen(row: bytes) -> bytes:
        plans.clear()
        return by_lengths(row)

    return {
        "the obvious way: msgpack, then JSON": each(lambda row: to_json(unpack(row)), packed),
        "a struct per shape of lengths": each(by_lengths, sliced),
        "the same, lengths never seen before": each(by_lengths_unseen, sliced),
        "lines, split and formatted": each(lambda row: template % tuple(row.split(b"\n")), lines),
    }


def main() -> None:
    texts = [ColumnSpec(128 + i, f"field{i}", Coltyp.Text) for i in range(10)]
    mixed = [
        ColumnSpec(1, "id", Coltyp.Long),
        ColumnSpec(2, "size", Coltyp.LongLong),
        ColumnSpec(3, "open", Coltyp.Bit),
        ColumnSpec(4, "changed", Coltyp.DateTime),
        ColumnSpec(5, "guid", Coltyp.GUID),
        ColumnSpec(128, "name", Coltyp.Text),
        ColumnSpec(256, "note", Coltyp.LongText),
        ColumnSpec(257, "picture", Coltyp.LongBinary),
        ColumnSpec(258, "tags", Coltyp.LongText),
    ]
    sparse = [ColumnSpec(256 + i, f"s{i}", Coltyp.LongText) for i in range(300)]
    ids = [c.id for c in texts]
    same = [{i: text(100) for i in ids} for _ in range(ROWS)]
    samples: dict[str, tuple[list[ColumnSpec], list[dict[int, Any]]]] = {
        "ten texts of 100 bytes": (texts, same),
        "ten texts of 50 to 150 bytes, no two rows alike": (texts, [{i: text(rng.randrange(50, 150)) for i in ids} for _ in range(ROWS)]),
        "ten texts of 100 bytes with quotes, %, line feeds": (
            texts,
            [{i: text(48) + '"%\n\\' + text(48) for i in ids} for _ in range(ROWS)],
        ),
        "ten numbers": ([ColumnSpec(1 + i, f"n{i}", Coltyp.Long) for i in range(10)], [{1 + i: n for i in range(10)} for n in range(ROWS)]),
        "nine columns of mixed types": (
            mixed,
            [
                {1: n, 2: n << 40, 3: True, 4: 45_000.5 + n, 5: UUID(int=n), 128: text(20), 256: text(100), 257: bytes(60), 258: ["a", "b"]}
                for n in range(ROWS)
            ],
        ),
        "ten of 300 sparse columns, every shape new": (
            sparse,
            [{i: text(20) for i in sorted(rng.sample(range(256, 556), 10))} for _ in range(4_000)],
        ),
    }
    floor = 0.0
    for title, (columns, values) in samples.items():
        calls = codec_calls(columns, values)
        if not floor:
            calls |= contenders(values)
        spent = measure(calls, len(values))
        floor = floor or spent["the obvious way: msgpack, then JSON"]
        print(title)
        for name, us in spent.items():
            print(f"    {name:38}{us:8.2f} us{us / floor:8.2f} x")


if __name__ == "__main__":
    main()
