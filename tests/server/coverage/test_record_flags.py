"""What the flags of the calls that read and write records do."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import pytest

from tests.server.coverage.flags import Player
from tests.server.coverage.steps import LONG, OTHERS, PRIMARY, TEXT, made
from tests.support.bench import SUCCESS, Bench
from tests.support.shown import shows

pytestmark = pytest.mark.asyncio(loop_scope="module")
BIG = b64encode(b"x" * 5_000).decode()
LIKE_A_TABLE = made(
    (),
    [
        {"name": "id", **LONG},
        {"name": "name", **TEXT},
        {"name": "blob", "coltyp": "LongBinary"},
        {"name": "tags", **TEXT, "grbit": ["ColumnTagged", "ColumnMultiValued"]},
        {"name": "size", **LONG, "defaultValue": 7},
        {"name": "word", **TEXT, "defaultValue": "none"},
    ],
    [PRIMARY, {"name": "byName", "key": ["+name"]}, {"name": "pieces", "key": ["+word"], "grbit": ["IndexTuples"]}],
)
RECORD = {"id": 1, "name": "one", "tags": ["x", "y"]}


async def set_one(play: Player, columnid: str, data: Any, grbit: list[str], *, many: bool, **info: Any) -> None:
    """By SetColumn, or by SetColumns with one entry."""
    if many:
        await play("SetColumns", setcolumns=[{"columnid": columnid, "data": data, "grbit": grbit, **info}])
    else:
        await play("SetColumn", columnid=columnid, data=data, grbit=grbit, setinfo=info or None)


async def refused_one(play: Player, columnid: str, data: Any, grbit: list[str], *, many: bool, **info: Any) -> str:
    one = {"columnid": columnid, "data": data, "grbit": grbit}
    if many:
        return await play.answer("SetColumns", setcolumns=[{**one, **info}])
    return await play.answer("SetColumn", **one, setinfo=info)


SET_BITS = [
    f"JET_bitSet{bit}"
    for bit in (
        *("AppendLV", "OverwriteLV", "SizeLV", "ZeroLength", "SeparateLV", "IntrinsicLV", "RevertToDefaultValue"),
        *("UniqueMultiValues", "UniqueNormalizedMultiValues", "Compressed", "Uncompressed"),
    )
]


@shows("SetColumn", *SET_BITS)
@shows("SetColumns", *SET_BITS, "JET_bitSetContiguousLV")
async def test_how_a_column_is_set(bench: Bench) -> None:
    for many in (False, True):
        play = await Player(bench, await bench.world()).play(*LIKE_A_TABLE)
        await play.insert(**RECORD, blob=b64encode(b"0123456789").decode(), size=5)
        await play("Move", numRows="First")

        async def blob(play: Player = play) -> bytes:
            return b64decode(await play.value("blob", grbit=["RetrieveCopy"]))

        await play("PrepareUpdate")
        for data, bits, info, expected in (
            (b"AB", ["SetAppendLV"], {}, b"0123456789AB"),
            (b"xy", ["SetOverwriteLV"], {"offset": 2}, b"01xy456789AB"),
        ):
            await set_one(play, "blob", b64encode(data).decode(), bits, many=many, **info)
            assert await blob() == expected
        await set_one(play, "blob", 4, ["SetSizeLV"], many=many)
        assert await blob() == b"01xy"
        for bits in (["SetCompressed"], ["SetUncompressed"], *([["SetContiguousLV"]] if many else [])):  # how it is stored: as it is
            await set_one(play, "blob", "AAAA", bits, many=many)
            assert await blob() == bytes(3)
        await set_one(play, "name", "", ["SetZeroLength"], many=many)
        assert await play.value("name", grbit=["RetrieveCopy"]) == ""
        await set_one(play, "size", None, ["SetRevertToDefaultValue"], many=many)
        assert await play.value("size", grbit=["RetrieveCopy"]) == 7
        for text, bits, answer in (
            ("x", ["SetUniqueMultiValues"], "JET_errMultiValuedDuplicate"),
            ("X", ["SetUniqueNormalizedMultiValues"], "JET_errMultiValuedDuplicate"),
        ):
            assert await refused_one(play, "tags", text, bits, many=many, itagSequence=0) == answer
            await set_one(play, "tags", f"new {bits[0]}", bits, many=many, itagSequence=0)
        await play("Update")
        for column, bits, beside in (("blob", ["SetSeparateLV"], 1), ("blob", ["SetIntrinsicLV"], 0)):
            await play("PrepareUpdate")
            await set_one(play, column, "AAAA" if beside else b64encode(b"y" * 1_500).decode(), bits, many=many)
            await play("Update")
            assert (await play("GetRecordSize"))["recsize"]["longValues"] == beside


async def retrieve(play: Player, columnid: Any, grbit: list[str], *, many: bool, itag: int = 1) -> Any:
    """What RetrieveColumn, or RetrieveColumns with one entry, finds."""
    if many:
        entry = {"columnid": columnid, "grbit": grbit, "itagSequence": itag}
        return (await play("RetrieveColumns", retrievecolumns=[entry]))["retrievecolumns"][0]
    found = await play("RetrieveColumn", columnid=columnid, grbit=grbit, retinfo={"itagSequence": itag})
    return {**found, **found["retinfo"]}


RETRIEVE_BITS = [f"JET_bitRetrieve{bit}" for bit in ("Copy", "FromIndex", "FromPrimaryBookmark", "Tag", "Null", "IgnoreDefault", "Tuple")]


@shows("RetrieveColumn", *RETRIEVE_BITS, "JET_bitRetrieveLongId", "JET_bitRetrieveLongValueRefCount")
@shows("RetrieveColumns", *RETRIEVE_BITS)
async def test_from_where_a_column_is_read(bench: Bench) -> None:
    for many in (False, True):
        play = await Player(bench, await bench.world()).play(*LIKE_A_TABLE)
        await play.insert(**RECORD, blob=BIG, word="word")
        await play.insert(id=2, name="TWO")
        await play("Move", numRows="First")
        await play("PrepareUpdate")
        await play("SetColumn", columnid="name", data="changed")
        assert (await retrieve(play, "name", ["RetrieveCopy"], many=many))["data"] == "changed"
        await play("PrepareUpdate", prep="Cancel")
        assert (await retrieve(play, "id", ["RetrieveFromPrimaryBookmark"], many=many))["data"] == 1
        await play("SetCurrentIndex", indexname="byName")
        assert (await retrieve(play, "name", ["RetrieveFromIndex"], many=many))["data"] == "one"
        await play("SetCurrentIndex", indexname="pieces")
        await play("Move", numRows="First")
        assert await play.value("id") == 2
        await play("Move", numRows="Last")
        tuple_of = await retrieve(play, "word", ["RetrieveFromIndex", "RetrieveTuple"], many=many)
        assert tuple_of["data"]
        await play("SetCurrentIndex", indexname=None)
        assert (await retrieve(play, "size", [], many=many))["data"] == 7
        assert (await retrieve(play, "size", ["RetrieveIgnoreDefault"], many=many))["data"] is None
        tag = await retrieve(play, "tags", ["RetrieveTag"], many=many, itag=2)
        assert (tag["data"], tag["itagSequence"]) == ("y", 2)
        await play("PrepareUpdate")
        await play("SetColumn", columnid="word", data=None)
        await play("Update")
        stored = [(await retrieve(play, 0, bits, many=many, itag=9))["columnidNextTagged"] for bits in ([], ["RetrieveNull"])]
        assert stored == [0, 0]
        counts = {False: 0, True: 0}
        for null in counts:
            bits = ["RetrieveNull"] if null else []
            while (await retrieve(play, 0, bits, many=many, itag=counts[null] + 1))["columnidNextTagged"]:
                counts[null] += 1
        assert counts[True] == counts[False] + 1
        if not many:
            identity = (await retrieve(play, "blob", ["RetrieveLongId"], many=many))["data"]
            assert len(b64decode(identity)) == 8
            refs = (await retrieve(play, "blob", ["RetrieveLongValueRefCount"], many=many))["data"]
            assert b64decode(refs) == (1).to_bytes(4, "little")


@shows(
    "EnumerateColumns",
    *(
        f"JET_bitEnumerate{bit}"
        for bit in ("CompressOutput", "Copy", "IgnoreDefault", "IgnoreUserDefinedDefault", "PresenceOnly", "TaggedOnly", "InRecordOnly")
    ),
)
async def test_what_is_enumerated(play: Player) -> None:
    await play.play(*LIKE_A_TABLE)
    await play.insert(**RECORD, blob=BIG)
    await play("Move", numRows="First")
    names = {row["columnid"]: row["columnname"] for row in (await play("GetTableColumnInfo", infoLevel="List"))["rows"]}

    async def found(*bits: str) -> dict[str, Any]:
        rows = (await play("EnumerateColumns", grbit=list(bits)))["columnValues"]
        return {names[row["columnid"]]: row for row in rows}

    every = await found()
    assert every.keys() == {"id", "name", "blob", "tags", "size", "word"}
    assert every["id"]["values"][0]["data"] == 1
    assert (await found("EnumerateCompressOutput"))["id"]["data"] == 1
    assert (await found("EnumerateIgnoreDefault")).keys() == every.keys() - {"size", "word"}
    assert (await found("EnumerateIgnoreUserDefinedDefault")).keys() <= every.keys()
    assert all(not row["values"] and row["err"] for row in (await found("EnumeratePresenceOnly")).values())
    assert (await found("EnumerateTaggedOnly")).keys() == every.keys() - {"id", "size"}
    (not_here,) = (await found("EnumerateInRecordOnly"))["blob"]["values"]
    assert (not_here["err"], not_here["data"]) == (1539, None)  # JET_wrnColumnNotInRecord
    await play("PrepareUpdate")
    await play("SetColumn", columnid="name", data="pending")
    assert (await found("EnumerateCopy"))["name"]["values"][0]["data"] == "pending"
    assert (await found())["name"]["values"][0]["data"] == "one"


@shows("GetRecordSize", *(f"JET_bitRecordSize{bit}" for bit in ("InCopyBuffer", "RunningTotal", "Local")))
async def test_how_big_a_record_is(play: Player) -> None:
    await play.play(*LIKE_A_TABLE)
    await play.insert(**RECORD, blob=BIG)
    await play("Move", numRows="First")
    size = (await play("GetRecordSize"))["recsize"]
    assert size["longValueData"] == 5_000
    assert (await play("GetRecordSize", grbit=["RecordSizeLocal"]))["recsize"]["longValueData"] == 0
    twice = (await play("GetRecordSize", recsize=size, grbit=["RecordSizeRunningTotal"]))["recsize"]
    assert twice["longValueData"] == 10_000
    await play("PrepareUpdate")
    await play("SetColumn", columnid="name", data="much longer than one")
    assert (await play("GetRecordSize", grbit=["RecordSizeInCopyBuffer"]))["recsize"]["data"] > size["data"]


@shows(
    "PrepareUpdate",
    *(f"JET_prep{prep}" for prep in ("Insert", "Replace", "ReplaceNoLock", "InsertCopy", "InsertCopyDeleteOriginal", "Cancel")),
)
async def test_kinds_of_updates(play: Player) -> None:
    await play.play(*OTHERS)
    for prep, number, left in (
        ("Insert", 7, [1, 2, 3, 7]),
        ("InsertCopy", 8, [1, 2, 3, 7, 8]),
        ("InsertCopyDeleteOriginal", 9, [2, 3, 7, 8, 9]),
    ):
        await play("Move", numRows="First")
        await play("PrepareUpdate", prep=prep)
        await play("SetColumn", columnid="id", data=number)
        await play("Update")
        assert await play.walk() == left
    await play("Move", numRows="Last")
    assert await play.value("name") == "one"
    theirs = {"sesid": play.kept["other"], "tableid": play.kept["theirs"]}
    for sesid in (play.kept["sesid"], play.kept["other"]):
        await play("BeginTransaction", sesid=sesid)
    await play("Move", numRows="First")
    await play("Move", **theirs, numRows="First")
    await play("PrepareUpdate", prep="ReplaceNoLock")
    await play("PrepareUpdate", **theirs, prep="Replace")
    await play("PrepareUpdate", prep="Cancel")
    assert await play.answer("PrepareUpdate", prep="Replace") == "JET_errWriteConflict"
    assert await play.answer("Update") == "JET_errUpdateNotPrepared"
    await play("EndSession", sesid=play.kept["other"])
    await play("Rollback")


@shows("Update", "JET_bitUpdateCheckESE97Compatibility")
async def test_a_check_that_every_record_passes(play: Player) -> None:
    """ESE97 had smaller records; there is no such engine to hand a database back to."""
    await play.ready("Update")
    await play("Update", grbit=["UpdateCheckESE97Compatibility"])


@shows("EscrowUpdate", "JET_bitEscrowNoRollback")
async def test_a_sum_that_no_rollback_undoes(play: Player) -> None:
    for undone in ("Rollback", "EndSession"):
        await play.play(*OTHERS)
        await play("BeginTransaction")
        await play("EscrowUpdate", delta=5)
        await play("BeginTransaction")
        await play("EscrowUpdate", delta=2, grbit=["EscrowNoRollback"])
        await play("Rollback")
        assert await play.value("sum") - 5 in (2, 4)
        await play(undone)
        theirs = {"sesid": play.kept["other"], "tableid": play.kept["theirs"]}
        await play("Move", **theirs, numRows="First")
        assert await play.value("sum", **theirs) == (2 if undone == "Rollback" else 4)
        await play("EndSession", sesid=theirs["sesid"])
    # committed it is no different from any other
    again = Player(play.bench, await play.bench.world())
    await again("BeginTransaction")
    await again("EscrowUpdate", delta=2, grbit=["EscrowNoRollback"])
    await again("CommitTransaction")
    assert await again.value("sum") == 2


@shows("GetLock", "JET_bitReadLock", "JET_bitWriteLock")
async def test_locks(play: Player) -> None:
    await play.play(*OTHERS)
    theirs = {"sesid": play.kept["other"], "tableid": play.kept["theirs"]}
    for bit, reading in (("ReadLock", SUCCESS), ("WriteLock", "JET_errWriteConflict")):
        await play("BeginTransaction")
        await play("BeginTransaction", sesid=theirs["sesid"])
        await play("GetLock", grbit=[bit])
        assert await play.answer("GetLock", **theirs, grbit=["ReadLock"]) == reading
        assert await play.answer("GetLock", **theirs, grbit=["WriteLock"]) == "JET_errWriteConflict"
        await play("Rollback")
        await play("Rollback", sesid=theirs["sesid"])
    await play("EndSession", sesid=theirs["sesid"])
