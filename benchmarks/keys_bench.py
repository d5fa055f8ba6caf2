"""Microseconds per key, and how many times a bare `struct.pack` of a Long that is. Run: python benchmarks/keys_bench.py"""

from __future__ import annotations

import struct
import timeit
from collections.abc import Callable
from uuid import UUID

from jetwire_protocol.data.flags import Coltyp, MakeKeyGrbit
from jetwire_server.keys import KeyMaker, KeySpec, SearchKey, SegmentSpec

CALLS, ROUNDS = 20_000, 5
TEXT = "Customer00 Invoice42"
C = Coltyp


def maker(*segments: SegmentSpec) -> KeyMaker:
    return KeyMaker(KeySpec(segments))


def microseconds(call: Callable[[], object]) -> float:
    call()
    return min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


def main() -> None:
    long, ansi, wide = SegmentSpec(C.Long), SegmentSpec(C.Text, cp=1252), SegmentSpec(C.Text, cp=1200)
    down = SegmentSpec(C.Text, descending=True, cp=1200)
    rows = {
        "Long": (maker(long), [123456]),
        "Long, Long descending": (maker(long, SegmentSpec(C.Long, descending=True)), [5, 7]),
        "IEEEDouble": (maker(SegmentSpec(C.IEEEDouble)), [3.5]),
        "GUID": (maker(SegmentSpec(C.GUID)), [UUID(int=12345)]),
        "Text 1252, 20 ASCII": (maker(ansi), [TEXT]),
        "Text 1252, 20 with accents": (maker(ansi), [TEXT.replace("o", "ô")]),
        "Text 1200, 20 ASCII": (maker(wide), [TEXT]),
        "Text 1200, 20 ASCII, a hyphen": (maker(wide), [TEXT.replace(" ", "-")]),
        "Text 1200, 20 with accents": (maker(wide), [TEXT.replace("o", "ô")]),
        "Text 1200 descending, 20 ASCII": (maker(down), [TEXT]),
        "Text 1200 ASCII, 1,000 (cut)": (maker(wide), [TEXT * 50]),
        "LongBinary, 20": (maker(SegmentSpec(C.LongBinary)), [TEXT.encode()]),
        "Text 1200, Long, Long": (maker(wide, long, long), [TEXT, 1, 2]),
    }
    pack = struct.Struct(">I").pack
    floor = microseconds(lambda: pack(123456))
    print(f"{'bare struct.pack':36}{floor:8.2f} us")
    for name, (made, values) in rows.items():
        for call, how in ((made.key, ""), (made.keys, " (keys)")):
            spent = microseconds(lambda call=call, values=values: call(values))  # type: ignore[misc]
            print(f"{name + how:36}{spent:8.2f} us{spent / floor:8.1f} x")
    search = SearchKey(rows["Long"][0])
    spent = microseconds(lambda: search.add(7, MakeKeyGrbit.NewKey))
    print(f"{'SearchKey.add of a Long':36}{spent:8.2f} us{spent / floor:8.1f} x")


if __name__ == "__main__":
    main()
