# ruff: noqa: E501
"""What a server must answer to odd, wrong and hostile messages: one table, run against the decoder and over every transport.

A case is (name, message, answer). The answer is None (nothing comes back), `ok(...)`, `error(...)`, or a list of them for
a batch, in the order of the requests. `error` compares code, message and id, and `member` where the answer must name one.
A server on which no session was begun gives these answers whatever was sent to it before.
"""

from __future__ import annotations

import json
from typing import Any

Case = tuple[str, bytes, Any]

MESSAGES = {
    -32700: "Parse error",
    -32600: "Invalid Request",
    -32601: "Method not found",
    -32602: "Invalid params",
    -32003: "Too many",
    -32004: "Too large",
    -1104: "JET_errInvalidSesid",
}


def ok(result: Any, id: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "result": result}


def error(code: int, id: Any = 1, member: str | None = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": MESSAGES[code]}, "member": member}


def call(method: Any, params: Any = None, id: Any = 1, **more: Any) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "id": id, **more}
    if params is not None:
        message["params"] = params
    return json.dumps(message).encode()


def fits(answer: Any, expected: Any) -> bool:
    """Whether an answer (decoded JSON, or None for silence) is the expected one."""
    if isinstance(expected, list):
        return isinstance(answer, list) and len(answer) == len(expected) and all(map(fits, answer, expected))
    if expected is None or not isinstance(answer, dict):
        return answer is None and expected is None
    if set(answer) != set(expected) - {"member"} or answer["jsonrpc"] != "2.0":
        return False
    if answer["id"] != expected["id"] or type(answer["id"]) is not type(expected["id"]):
        return False
    if "result" in expected:
        return bool(answer["result"] == expected["result"])
    wrong = answer["error"]
    if (wrong["code"], wrong["message"]) != (expected["error"]["code"], expected["error"]["message"]):
        return False
    return expected["member"] is None or wrong["data"]["member"] == expected["member"]


PARSE, INVALID, METHOD, PARAMS = (error(code, None) for code in (-32700, -32600, -32601, -32602))
DEAD = error(-1104)


def no_json() -> list[Case]:
    """Nothing that is not JSON gets past the parser."""
    texts = {
        "empty": b"",
        "blank": b"   ",
        "word": b"Ping",
        "half object": b"{",
        "half array": b"[",
        "half call": b'{"jsonrpc": "2.0", "method": "Ping", "params": "bar", "baz]',
        "half batch": b'[{"jsonrpc": "2.0", "method": "Ping", "id": 1},{"jsonrpc": "2.0", "method"]',
        "single quotes": b"{'jsonrpc': '2.0', 'method': 'Ping', 'id': 1}",
        "trailing comma": b'{"jsonrpc":"2.0","method":"Ping","id":1,}',
        "trailing comma in a batch": b'[{"jsonrpc":"2.0","method":"Ping","id":1},]',
        "leading comma": b'{,"jsonrpc":"2.0","method":"Ping","id":1}',
        "two values": b'{"jsonrpc":"2.0","method":"Ping","id":1}{"jsonrpc":"2.0","method":"Ping","id":2}',
        "rubbish after": b'{"jsonrpc":"2.0","method":"Ping","id":1} x',
        "comment": b'{"jsonrpc":"2.0","method":"Ping","id":1} // hello',
        "unquoted key": b'{jsonrpc:"2.0"}',
        "leading zero": b'{"jsonrpc":"2.0","method":"Ping","id":01}',
        "plus sign": b'{"jsonrpc":"2.0","method":"Ping","id":+1}',
        "lone minus": b'{"jsonrpc":"2.0","method":"Ping","id":-}',
        "number ends in a point": b'{"jsonrpc":"2.0","method":"Ping","id":1.}',
        "number begins with a point": b'{"jsonrpc":"2.0","method":"Ping","id":.5}',
        "number without exponent": b'{"jsonrpc":"2.0","method":"Ping","id":1e}',
        "hexadecimal": b'{"jsonrpc":"2.0","method":"Ping","id":0x10}',
        "NaN": b'{"jsonrpc":"2.0","method":"Ping","id":NaN}',
        "Infinity": b'{"jsonrpc":"2.0","method":"Ping","params":[Infinity],"id":1}',
        "True": b'{"jsonrpc":"2.0","method":"Ping","params":[True],"id":1}',
        "nul": b'{"jsonrpc":"2.0","method":"Ping","id":nul}',
        "bad escape": b'{"jsonrpc":"2.0","method":"Pi\\qng","id":1}',
        "short unicode escape": b'{"jsonrpc":"2.0","method":"Pi\\u12","id":1}',
        "tab in a string": b'{"jsonrpc":"2.0","method":"Pi\tng","id":1}',
        "NUL in a string": b'{"jsonrpc":"2.0","method":"Pi\x00ng","id":1}',
        "NUL after": b'{"jsonrpc":"2.0","method":"Ping","id":1}\x00',
        "unclosed string": b'{"jsonrpc":"2.0","method":"Ping',
        "byte order mark": b'\xef\xbb\xbf{"jsonrpc":"2.0","method":"Ping","id":1}',
        "missing colon": b'{"jsonrpc" "2.0"}',
        "missing comma": b'{"jsonrpc":"2.0" "method":"Ping"}',
        "mismatched brackets": b'{"jsonrpc":"2.0","method":"Ping","params":[}],"id":1}',
        "closing only": b"]",
        "lone surrogate in params": b'{"jsonrpc":"2.0","method":"Ping","params":["\\ud800"],"id":1}',
    }
    return [(f"no JSON: {name}", text, PARSE) for name, text in texts.items()]


def no_text() -> list[Case]:
    """Bytes that are no UTF-8, wherever they stand. A WebSocket closes such a frame itself, so these are for byte streams."""
    texts = {
        "in the method": b'{"jsonrpc":"2.0","method":"Pi\xffng","id":1}',
        "in the id": b'{"jsonrpc":"2.0","method":"Ping","id":"\xff"}',
        "in an ignored member": b'{"jsonrpc":"2.0","method":"Ping","id":1,"x":"\xc3"}',
        "in params": b'{"jsonrpc":"2.0","method":"Ping","params":["\xed\xa0\x80"],"id":1}',
        "overlong": b'{"jsonrpc":"2.0","method":"Ping","id":"\xc0\xaf"}',
        "nothing else": b"\xff\xfe\xfd",
        "UTF-16": '{"id":1}'.encode("utf-16"),
    }
    return [(f"no UTF-8: {name}", text, PARSE) for name, text in texts.items()]


def no_request() -> list[Case]:
    """JSON that is no request."""
    out: list[Case] = [(f"no request: {text}", text.encode(), INVALID) for text in ("1", "-1.5", '"Ping"', "null", "true", "false", "{}")]
    out += [
        ("no request: an empty batch", b"[]", INVALID),
        ("no request: an empty batch with blanks", b" [ ] ", INVALID),
        ("no request: [1]", b"[1]", [INVALID]),
        ("no request: [1,2,3]", b"[1,2,3]", [INVALID] * 3),
        ("no request: [[]]", b"[[]]", [INVALID]),
        ("no request: [[1],{}]", b"[[1],{}]", [INVALID] * 2),
        ("no request: [null,true]", b"[null,true]", [INVALID] * 2),
        ("no request: a response", b'{"jsonrpc":"2.0","result":{},"id":1}', error(-32600)),
        ("no request: only an id", b'{"id":7}', error(-32600, 7)),
        ("no request: only a version", b'{"jsonrpc":"2.0"}', INVALID),
        ("no request: version and id", b'{"jsonrpc":"2.0","id":"x"}', error(-32600, "x")),
    ]
    versions = ("2", "1.0", "", "2.0 ", "2.1", 2.0, 2, None, True, ["2.0"], {"v": "2.0"})
    out += [(f"version {v!r}", json.dumps({"jsonrpc": v, "method": "Ping", "id": 1}).encode(), error(-32600)) for v in versions]
    out += [("version missing", b'{"method":"Ping","id":1}', error(-32600)), ("JSONRPC", b'{"JSONRPC":"2.0","method":"Ping"}', INVALID)]
    out += [(f"method {m!r}", call(m), error(-32600)) for m in (1, 1.5, None, True, [], {}, ["Ping"], {"method": "Ping"})]
    out += [(f"params {p!r}", call("Ping", p), error(-32600)) for p in (1, 0, 1.5, "x", "", True, False)]
    out += [
        ("params null", b'{"jsonrpc":"2.0","method":"Ping","params":null,"id":1}', error(-32600)),
        ("params null, no id", b'{"jsonrpc":"2.0","method":"Ping","params":null}', INVALID),
        ("method number, no id", b'{"jsonrpc":"2.0","method":1,"params":"bar"}', INVALID),
        ("no version, no id", b'{"method":"Ping"}', INVALID),
        ("method null, id string", b'{"jsonrpc":"2.0","method":null,"id":"q"}', error(-32600, "q")),
    ]
    bad_ids = ("true", "false", "[]", "{}", "[1]", '{"a":1}')
    out += [(f"id {raw}", f'{{"jsonrpc":"2.0","method":"Ping","id":{raw}}}'.encode(), INVALID) for raw in bad_ids]
    return out


def good_requests() -> list[Case]:
    """What must be taken, and its id echoed exactly."""
    ids = (
        0,
        1,
        -1,
        1.5,
        -0.5,
        1e3,
        1e-3,
        2**53,
        2**53 + 1,
        2**63,
        2**64,
        10**30,
        "",
        "1",
        "a b",
        "\u00e9",
        "\u4f60",
        "\U0001f600",
        "\n",
        "\\",
        '"',
        None,
    )
    out: list[Case] = [(f"id {i!r}", call("Ping", id=i), ok({}, i)) for i in ids]
    out += [
        ("id 1.0 stays a float", b'{"jsonrpc":"2.0","method":"Ping","id":1.0}', ok({}, 1.0)),
        ("id 1e2 stays a float", b'{"jsonrpc":"2.0","method":"Ping","id":1e2}', ok({}, 100.0)),
        ("escaped id", b'{"jsonrpc":"2.0","method":"Ping","id":"\\u0041\\n"}', ok({}, "A\n")),
        ("non-ASCII as it is", '{"jsonrpc":"2.0","method":"Ping","id":"\u00e9"}'.encode(), ok({}, "\u00e9")),
        ("surrogate pair", b'{"jsonrpc":"2.0","method":"Ping","id":"\\ud83d\\ude00"}', ok({}, "\U0001f600")),
        ("blanks everywhere", b' \t{ "jsonrpc" : "2.0" ,\t"method" : "Ping" , "id" : 1 } ', ok({})),
        ("members in any order", b'{"id":1,"params":{},"method":"Ping","jsonrpc":"2.0"}', ok({})),
        ("escaped member names", b'{"\\u0069d":1,"method":"Ping","jsonrpc":"2.0"}', ok({})),
        ("further members are ignored", b'{"jsonrpc":"2.0","method":"Ping","id":1,"auth":{"a":[1,2]},"x":null}', ok({})),
        ("empty object", call("Ping", {}), ok({})),
        ("empty array", call("Ping", []), ok({})),
        ("the last of two ids counts", b'{"jsonrpc":"2.0","method":"Ping","id":1,"id":2}', ok({}, 2)),
        ("a string full of brackets", call("Ping", id="[{" * 200), ok({}, "[{" * 200)),
        ("C's prefix", call("JetPing"), ok({})),
    ]
    return out


def notifications() -> list[Case]:
    """A notification is never answered, whatever is wrong with its method or params."""
    params: tuple[Any, ...] = ({}, [], {"x": 1}, [1], {"calls": []})
    out: list[Case] = []
    for method in ("Ping", "foobar", "rpc.foobar", "", "Seek"):
        for given in params:
            out.append((f"notification {method} {given}", json.dumps({"jsonrpc": "2.0", "method": method, "params": given}).encode(), None))
    out.append(("notification without params", b'{"jsonrpc":"2.0","method":"Ping"}', None))
    out.append(("notification with a huge number", b'{"jsonrpc":"2.0","method":"Ping","params":[1e999]}', None))
    return out


def unknown_methods() -> list[Case]:
    names = ("foobar", "", " ", "ping", "PING", "Ping ", " Ping", "Jet", "JetJetPing", "jetPing", "rpc.", "rpc.foobar", "rpc.Discover", "__class__",
             "../Ping", "Ping\u0000", "\u00e9", "1", "get_data", "Ping2", "BeginSessionX", "Jetrpc.discover", "x" * 10_000)  # fmt: skip
    out: list[Case] = [(f"unknown method {name[:20]!r}", call(name), error(-32601)) for name in names]
    return [*out, ("unknown before its params are looked at", call("foobar", [1, {"a": [2]}]), error(-32601))]


def wrong_params() -> list[Case]:
    """-32602, and the member by its name."""
    seek = {"sesid": 1, "tableid": 1, "grbit": 1}
    out: list[Case] = [
        ("unknown member", call("Ping", {"x": 1}), error(-32602, member="x")),
        ("unknown beside known", call("Seek", {**seek, "foo": 1}), error(-32602, member="foo")),
        ("member in another case", call("Seek", {"Sesid": 1, "tableid": 1}), error(-32602, member="Sesid")),
        ("empty member name", call("Ping", {"": 1}), error(-32602, member="")),
        ("missing member", call("Seek", {"sesid": 1}), error(-32602, member="tableid")),
        ("missing all", call("Seek"), error(-32602, member="sesid")),
        ("missing by position", call("Seek", [1]), error(-32602, member="tableid")),
        ("too many by position", call("Seek", [1, 1, 1, 1]), error(-32602)),
        ("one by position for none", call("Ping", [1]), error(-32602)),
        ("null by position for none", call("Ping", [None]), error(-32602)),
        (
            "unknown in an object",
            call("SetColumn", {"sesid": 1, "tableid": 1, "columnid": 1, "setinfo": {"ofset": 0}}),
            error(-32602, member="setinfo.ofset"),
        ),
        ("wrong type in an object", call("SetColumn", [1, 1, 1, None, 0, {"offset": "x"}]), error(-32602, member="setinfo.offset")),
        ("array for an object", call("SetColumn", [1, 1, 1, None, 0, [0, 1]]), error(-32602, member="setinfo")),
        ("wrong type in a list", call("PrereadKeys", [1, 1, ["", 5]]), error(-32602, member="keys.1")),
        ("object for a list", call("PrereadKeys", [1, 1, {}]), error(-32602, member="keys")),
        ("missing in an object in a list", call("SetColumns", [1, 1, [{"data": 1}]]), error(-32602, member="setcolumns.0.columnid")),
        (
            "result member given",
            call("CreateTableColumnIndex", [1, 1, {"name": "t", "tableid": 1}]),
            error(-32602, member="tablecreate.tableid"),
        ),
        ("no base64", call("GotoBookmark", [1, 1, "%%%%"]), error(-32602, member="bookmark")),
        ("base64 without padding", call("GotoBookmark", [1, 1, "AAA"]), error(-32602, member="bookmark")),
        ("base64 from a number", call("GotoBookmark", [1, 1, 5]), error(-32602, member="bookmark")),
        ("value that is an array", call("MakeKey", [1, 1, [1]]), error(-32602, member="data")),
        ("value that is an object", call("MakeKey", [1, 1, {"a": 1}]), error(-32602, member="data")),
        ("value with two members", call("MakeKey", [1, 1, {"base64": "", "x": 1}]), error(-32602, member="data")),
        ("value with bad base64", call("MakeKey", [1, 1, {"base64": "!"}]), error(-32602, member="data")),
        ("value too large", call("MakeKey", [1, 1, 2**64]), error(-32602, member="data")),
        ("string for an int list", call("PrereadIndexRanges", [1, 1, [], "x"]), error(-32602, member="columnsPreread")),
        (
            "index key of numbers",
            call("CreateIndex", {"sesid": 1, "tableid": 1, "keyDescription": [1]}),
            error(-32602, member="keyDescription"),
        ),
    ]
    values: tuple[Any, ...] = ("1", 1.0, 1.5, True, False, None, [], {}, 2**64, -(2**63) - 1, 10**40)
    for value in values:
        out.append((f"sesid {value!r}"[:40], call("Seek", {**seek, "sesid": value}), error(-32602, member="sesid")))
    for value in (None, True, 1.0, "SeekEQ", {}, [1], ["Foo"], ["SeekEQ", "Foo"], [""], ["seekeq"], [None], [["SeekEQ"]], 2**64):
        out.append((f"grbit {value!r}"[:40], call("Seek", {**seek, "grbit": value}), error(-32602, member="grbit")))
    for value in ("Inser", "insert", "", None, 0.0, ["Insert"], {}):
        out.append((f"prep {value!r}", call("PrepareUpdate", [1, 1, value]), error(-32602, member="prep")))
    for value in ("Nowhere", 1.5, True):
        out.append((f"numRows {value!r}", call("Move", [1, 1, value]), error(-32602, member="numRows")))
    for value in (True, 1.5, None, [], {"name": "a"}, 2**64):
        out.append((f"columnid {value!r}", call("RetrieveColumn", [1, 1, value]), error(-32602, member="columnid")))
    for value in (1, True, [], {}, None):
        out.append((f"tablename {value!r}", call("OpenTable", [1, 1, value]), error(-32602, member="tablename")))
    out.append(("number beyond any float", b'{"jsonrpc":"2.0","method":"Seek","params":[1e999,1],"id":1}', error(-32602)))
    out.append(("number of 5,000 digits", b'{"jsonrpc":"2.0","method":"Seek","params":[' + b"9" * 5000 + b',1],"id":1}', error(-32602)))
    return out


def dead_handles() -> list[Case]:
    """Params of the right shape, whatever their numbers: the engine's answer, not -32602."""
    out: list[Case] = [
        (f"sesid {s}", call("Seek", {"sesid": s, "tableid": 1, "grbit": 1}), DEAD) for s in (0, -1, 1, 2**31, 2**63, 2**64 - 1, -(2**63))
    ]
    out += [
        (f"grbit {g!r}", call("Seek", [99, 1, g]), DEAD) for g in (0, -1, 2**63, [], ["SeekEQ"], ["SeekEQ", "SeekGE"], ["JET_bitSeekEQ"])
    ]
    out += [(f"numRows {n!r}", call("Move", [99, 1, n]), DEAD) for n in (0, -5, "First", "Last", "Next", "Previous", 2**40)]
    out += [(f"prep {p!r}", call("PrepareUpdate", [99, 1, p]), DEAD) for p in (0, 77, "Insert", "Replace", "JET_prepInsert")]
    out += [
        (f"value {v!r}"[:30], call("MakeKey", [99, 1, v]), DEAD)
        for v in (None, 1, -1.5, "x", "", True, {"base64": ""}, {"base64": "AAEC"}, 2**64 - 1)
    ]
    out += [(f"columnid {c!r}", call("RetrieveColumn", [99, 1, c]), DEAD) for c in (1, 0, -1, "name", "")]
    out += [
        (f"alias {a}", call(a, [99]), DEAD)
        for a in ("BeginTransaction2", "BeginTransaction3", "JetBeginTransaction", "JetCommitTransaction2", "DupSession")
    ]
    keys: tuple[Any, ...] = (["+a", "-b"], "+a\0-b\0\0", [], "")
    out += [
        (f"index key {k!r}", call("CreateIndex", {"sesid": 99, "tableid": 1, "indexname": "i", "keyDescription": k}), DEAD) for k in keys
    ]
    return out


def batches() -> list[Case]:
    ping, note = {"jsonrpc": "2.0", "method": "Ping", "id": 1}, {"jsonrpc": "2.0", "method": "Ping"}

    def batch(*items: Any) -> bytes:
        return json.dumps(items).encode()

    return [
        ("a number too large, then a word broken off", b'[{"jsonrpc":"2.0","method":"Seek","params":[1e999M,"id":4}]', error(-32700, None)),
        ("a number too large, then the end", b'{"jsonrpc":"2.0","id":1,"method":"Seek","params":[1e999', error(-32700, None)),
        ("a number too large, then half a string", b'{"jsonrpc":"2.0","method":"Seek","params":[1e999],"id":"\\x"}', error(-32700, None)),
        ("batch of one", batch(ping), [ok({})]),
        ("batch of a notification", batch(note), None),
        ("batch of notifications", batch(note, note, note), None),
        ("batch of unknown notifications", batch({"jsonrpc": "2.0", "method": "x"}), None),
        ("batch of both", batch(ping, note, {**ping, "id": 2}), [ok({}), ok({}, 2)]),
        ("batch of the same id", batch(ping, ping), [ok({}), ok({})]),
        ("batch of good and bad", batch(ping, 1, {"foo": "boo"}), [ok({}), INVALID, INVALID]),
        ("batch of an error", batch({**ping, "method": "x"}, ping), [error(-32601), ok({})]),
        ("batch of wrong params", batch({**ping, "params": {"x": 1}}, note), [error(-32602, member="x")]),
        ("batch in a batch", batch([ping], ping), [INVALID, ok({})]),
        ("batch of a null id", batch({**ping, "id": None}), [ok({}, None)]),
        ("batch of a bad id", batch({**ping, "id": True}), [INVALID]),
        ("batch of 1,000", batch(*[{**ping, "id": i} for i in range(1000)]), [ok({}, i) for i in range(1000)]),
        ("batch of 1,001", batch(*[ping] * 1001), error(-32003, None)),
        ("batch of a huge number", b'[{"jsonrpc":"2.0","method":"Seek","params":[1e999],"id":4}]', [error(-32602, 4)]),
    ]


def sizes() -> list[Case]:
    def nested(depth: int) -> bytes:
        return b'{"jsonrpc":"2.0","id":1,"method":"Seek","params":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    def wide(count: int) -> bytes:
        # jsonrpc, id, method, params, and the array's items
        return b'{"jsonrpc":"2.0","id":1,"method":"Seek","params":[' + b",".join([b"0"] * (count - 4)) + b"]}"

    return [
        ("depth 64", nested(64), error(-32602)),
        ("depth 65", nested(65), error(-32004)),
        ("depth 500", nested(500), error(-32004)),
        ("depth 100,000", nested(100_000), error(-32004, None)),
        ("depth that never ends", b"[" * 100_000, error(-32004, None)),
        ("objects that never end", b'{"a":' * 100_000, error(-32004, None)),
        ("100,000 elements", wide(100_000), error(-32602)),
        ("100,001 elements", wide(100_001), error(-32004)),
        ("a batch of too many elements", b"[" + b"0," * 100_000 + b"0]", error(-32004, None)),
        ("commas in strings are no elements", call("Ping", id="," * 200_000), ok({}, "," * 200_000)),
        ("quotes and backslashes in strings", call("Ping", id='\\"[,' * 60_000), ok({}, '\\"[,' * 60_000)),
        ("200 brackets side by side", call("PrereadKeys", [1, 1, [[]] * 200]), error(-32602)),
    ]


TEXT_CASES: list[Case] = [
    *no_json(),
    *no_request(),
    *good_requests(),
    *notifications(),
    *unknown_methods(),
    *wrong_params(),
    *dead_handles(),
    *batches(),
    *sizes(),
]
BYTE_CASES: list[Case] = no_text()
CASES: list[Case] = TEXT_CASES + BYTE_CASES
