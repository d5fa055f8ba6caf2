"""The command line's pieces that need no server: words, files of records, completion, rendering."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jetwire.cli import words
from jetwire.cli.complete import proposals
from jetwire.cli.context import Wrong
from jetwire.cli.load import _chunks
from jetwire.cli.metrics import address_of, parse
from jetwire.cli.render import table_of
from jetwire.cli.rows import Line, reader
from jetwire.cli.shell import COMMANDS
from jetwire.cli.top import Look, since
from jetwire_protocol.data.flags import Coltyp
from jetwire_protocol.declarations import METHODS
from jetwire_protocol.record_lines import Format, writer


# -- words --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["a=1", "b=x y", "c=true", "d=null", 'e=["A"]', "f=1e3", "g=007", "h="], None),
        (['{"a": 1}'], {"a": 1}),
        (['[1, "x"]'], [1, "x"]),
        ([], {}),
        (["q=a=b"], {"q": "a=b"}),
    ],
)
def test_parameters(line: list[str], expected: Any) -> None:
    if expected is None:
        expected = {"a": 1, "b": "x y", "c": True, "d": None, "e": ["A"], "f": 1000.0, "g": "007", "h": ""}
    assert words.params(line) == expected


@pytest.mark.parametrize("line", [["a"], ["=1"], ["a=1", "a=2"], ["{"], ["[1", "2]"]])
def test_parameters_that_are_none(line: list[str]) -> None:
    with pytest.raises(Wrong):
        words.params(line)


def test_a_line_splits_as_in_a_shell_but_json_stays_whole() -> None:
    assert words.split("""OpenTable tablename='my table' grbit='["ReadOnly"]'""") == [
        "OpenTable",
        "tablename=my table",
        'grbit=["ReadOnly"]',
    ]
    assert words.split("""Batch  {"calls": [{"method": "x y"}]} """) == ["Batch", '{"calls": [{"method": "x y"}]}']
    assert words.split("Ping") == ["Ping"]
    with pytest.raises(Wrong):
        words.split("X a='")


def test_parameters_by_position() -> None:
    assert words.by_name(METHODS["EndSession"], [5, 0]) == {"sesid": 5, "grbit": 0}
    with pytest.raises(Wrong):
        words.by_name(METHODS["Ping"], [1])
    with pytest.raises(Wrong):
        words.by_name(None, [1])


# -- files of records ---------------------------------------------------------------------------------------------
COLTYPS = {"id": int(Coltyp.LongLong), "text": int(Coltyp.LongText), "real": int(Coltyp.IEEEDouble), "bit": int(Coltyp.Bit)}
COLTYPS |= {"bytes": int(Coltyp.LongBinary), "guid": int(Coltyp.GUID)}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["", "\\N", "\\", "\\\\N", "\\J[1]", "a\r\nb", '"', ","]
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "id": st.integers(-(2**63), 2**63 - 1),
    "text": texts | st.lists(texts, min_size=2, max_size=3) | st.just({"base64": "AAE="}),
    "real": st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(["NaN", "Infinity", "-Infinity"]),
    "bit": st.booleans(),
    "bytes": st.sampled_from(["", "AAE=", "/+8="]),
    "guid": st.uuids().map(str),
}
records = st.fixed_dictionaries({}, optional={name: st.none() | value for name, value in VALUES.items()})


@pytest.mark.parametrize("form", list(Format))
@given(st.lists(records, max_size=8))
def test_what_is_written_is_read(form: Format, many: list[dict[str, Any]]) -> None:
    out = io.StringIO(newline="")
    write = writer(form, out, list(COLTYPS))
    for record in many:
        write(record)
    back = [line.record for line in reader(form, io.StringIO(out.getvalue(), newline=""), COLTYPS)]
    if form is Format.JSONL:
        assert back == many
    else:  # every column is named: what was left out is NULL, integers are as they are written
        assert [{**r, "id": r["id"] and int(r["id"])} for r in back] == [{name: r.get(name) for name in COLTYPS} for r in many]


def test_other_programs_csv() -> None:
    text = "id,text,real,bit\r\n1,,,\r\n2,x,NaN,TRUE\r\n"
    assert [line.record for line in reader(Format.CSV, io.StringIO(text, newline=""), COLTYPS)] == [
        {"id": "1", "text": "", "real": None, "bit": None},
        {"id": "2", "text": "x", "real": "NaN", "bit": True},
    ]


@pytest.mark.parametrize(
    ("form", "text", "where"),
    [
        (Format.JSONL, '{"id": 1}\n\n{"id": }\n', "line 3"),
        (Format.JSONL, '{"id": 1}\n[2]\n', "line 2"),
        (Format.CSV, "id,nope\n1,2\n", "line 1.*nope"),
        (Format.CSV, "id,text\n1,a\n2\n", "line 3"),
        (Format.CSV, 'id,text\n1,"a\nb"\n2,"x"y\n', "line 4"),
        (Format.CSV, "id,bit\n1,perhaps\n", "line 2"),
        (Format.CSV, "id,text\n1,\\J{\n", "line 2"),
    ],
)
def test_lines_that_cannot_be_read_are_named(form: Format, text: str, where: str) -> None:
    with pytest.raises(Wrong, match=where):
        list(reader(form, io.StringIO(text, newline=""), COLTYPS))


def test_chunks_fit_into_a_call_and_lose_nothing() -> None:
    many = [Line(n, {"id": n, "text": "x" * (n % 7) * 100_000, "more": list(range(n % 900))}) for n in range(300)]
    chunks = list(_chunks(iter(many)))
    assert [line for chunk in chunks for line in chunk] == many
    for chunk in chunks:
        assert len(json.dumps([line.record for line in chunk])) < 8 << 20
        assert sum(3 + len(line.record["more"]) for line in chunk) < 100_000
    assert max(map(len, _chunks(Line(n, {"id": n}) for n in range(2500)))) == 1000
    one_big = [Line(1, {"text": "x" * (5 << 20)}), Line(2, {"id": 1})]
    assert [len(chunk) for chunk in _chunks(iter(one_big))] == [1, 1]


def test_what_stands_before_a_bad_line_is_not_lost() -> None:
    source = io.StringIO('{"id": 1}\n{"id": 2}\nrubbish\n')
    chunks = _chunks(reader(Format.JSONL, source, COLTYPS))
    assert [line.number for line in next(chunks)] == [1, 2]
    with pytest.raises(Wrong, match="line 3"):
        next(chunks)


# -- completion ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "some", "none"),
    [
        ("Beg", {"BeginSession", "BeginTransaction"}, {"Ping"}),
        ("ossnapshotpre", {"OSSnapshotPrepare"}, set()),
        (".t", {".tables"}, {".open"}),
        ("OpenTable ", {"sesid=", "tablename=", "grbit="}, set()),
        ("OpenTable sesid=1 ", {"tablename="}, {"sesid="}),
        ("OpenTable tablename=peo", {"people"}, {"pets"}),
        ("JetOpenTable tablename=", {"people", "pets"}, set()),
        ("BeginTransaction grbit=", {'["TransactionReadOnly"]'}, set()),
        ("Move numRows=F", {"First"}, {"Last"}),
        ("GetSystemParameter paramid=CacheS", {"CacheSizeMax"}, set()),
        ("Batch transaction=", {"true", "false"}, set()),
        (".use p", {"people", "pets"}, set()),
        ('Batch {"ca', set(), {"calls="}),
        ("Nonsense ", set(), {"sesid="}),
    ],
)
def test_completion(line: str, some: set[str], none: set[str]) -> None:
    found = list(proposals(line, COMMANDS, lambda: ["people", "pets"]))
    texts = {one.text for one in found}
    assert some <= texts
    assert not none & texts
    for one in found:
        assert line[len(line) - one.length :].lower() == one.text[: one.length].lower(), "what is replaced is what it begins with"


# -- rendering, metrics -------------------------------------------------------------------------------------------
def shown(value: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=100).print(table_of(value))
    return out.getvalue()


def test_rows_are_shown_as_tables() -> None:
    assert table_of({"state": "none", "holders": []}) is None
    assert table_of({"columndef": {"a": 1}, "rows": [{"x": 1}]}) is None, "something else matters too"
    text = shown({"records": [{"id": 1, "name": "[red]"}, {"id": 2, "note": None}], "more": False})
    assert "[red]" in text, "no markup is taken from data"
    assert all(word in text for word in ("id", "name", "note"))
    assert "(500)" in shown([{"long": "x" * 500}])


def test_metrics_are_parsed_and_turned_into_rates() -> None:
    text = '# HELP a b\n# TYPE a counter\na_total 5\nh_bucket{le="1"} 3\nh_sum 0.5\nh_count 3\ng 7\n'
    assert parse(text) == {"a_total": 5.0, "h_sum": 0.5, "h_count": 3.0, "g": 7.0}
    before = Look(0.0, "", [], {}, {"logRecord": 10}, {"a_total": 5.0, "g": 7.0, "fell_total": 9.0})
    now = since(before, Look(2.0, "", [], {}, {"logRecord": 30}, {"a_total": 25.0, "g": 9.0, "fell_total": 1.0, "new_total": 3.0}))
    assert now.rates == {"a_total": 10.0, "threadstats.logRecord": 10.0}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("tcp://10.0.0.1:99", "http://10.0.0.1:3730/metrics"),
        ("tcps://[::1]:99", "https://[::1]:3730/metrics"),
        ("ws://h:5/rpc", "http://h:5/metrics"),
        ("unix:///run/jetwire/jetwire.sock", "http://127.0.0.1:3730/metrics"),
    ],
)
def test_where_the_metrics_are(url: str, expected: str) -> None:
    assert address_of(url) == expected
