"""The envelope: JSON-RPC 2.0 to the letter, and never an exception whatever comes in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetwire_protocol import jsonrpc
from jetwire_protocol.jsonrpc import Call, Refusal, RpcError, WireLimits
from tests.support.edge_cases import CASES, fits
from tests.support.edge_server import answer


def subtract(params: Any) -> int:
    first: int
    second: int
    first, second = params if isinstance(params, list) else (params["minuend"], params["subtrahend"])
    return first - second


SPEC_METHODS: dict[str, Callable[[Any], Any]] = {
    "subtract": subtract,
    "sum": sum,
    "get_data": lambda params: ["hello", 5],
    "update": lambda params: None,
    "notify_hello": lambda params: None,
    "notify_sum": lambda params: None,
}


def spec_server(name: str, params: Any) -> Any:
    if name not in SPEC_METHODS:
        raise RpcError(jsonrpc.METHOD_NOT_FOUND)
    return SPEC_METHODS[name](params)


def error(code: int, message: str, id: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": id}


# Every example of the specification's page, in its order.
SPECIFICATION = [
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}', {"jsonrpc": "2.0", "result": 19, "id": 1}),
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}', {"jsonrpc": "2.0", "result": -19, "id": 2}),
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        {"jsonrpc": "2.0", "result": 19, "id": 3},
    ),
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
        {"jsonrpc": "2.0", "result": 19, "id": 4},
    ),
    ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', error(-32601, "Method not found", "1")),
    ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', error(-32700, "Parse error")),
    ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', error(-32600, "Invalid Request")),
    (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"]',
        error(-32700, "Parse error"),
    ),
    ("[]", error(-32600, "Invalid Request")),
    ("[1]", [error(-32600, "Invalid Request")]),
    ("[1,2,3]", [error(-32600, "Invalid Request")] * 3),
    (
        """[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
    ]""",
        [
            {"jsonrpc": "2.0", "result": 7, "id": "1"},
            {"jsonrpc": "2.0", "result": 19, "id": "2"},
            error(-32600, "Invalid Request"),
            error(-32601, "Method not found", "5"),
            {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"},
        ],
    ),
    ('[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]', None),
]


@pytest.mark.parametrize(("sent", "expected"), SPECIFICATION)
def test_the_specification_s_examples(sent: str, expected: Any) -> None:
    given_back = answer(sent.encode(), spec_server)
    assert (None if given_back is None else json.loads(given_back)) == expected


def test_the_table_is_long_enough_and_its_names_differ() -> None:
    assert len(CASES) >= 200
    assert len({name for name, _, _ in CASES}) >= 0.95 * len(CASES)


@pytest.mark.parametrize(("name", "sent", "expected"), CASES, ids=[case[0] for case in CASES])
def test_the_edge_table(name: str, sent: bytes, expected: Any) -> None:
    given_back = answer(sent)
    assert fits(None if given_back is None else json.loads(given_back), expected), given_back


def test_the_comparison_itself_can_fail() -> None:
    right: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "Invalid params", "data": {"member": "x"}}}
    expected = {**right, "member": "x", "error": {"code": -32602, "message": "Invalid params"}}
    assert fits(right, expected)
    assert not fits({**right, "id": "1"}, expected)
    assert not fits({**right, "id": 1.0}, expected)
    assert not fits({**right, "error": {**right["error"], "code": -32600}}, expected)
    assert not fits({**right, "error": {**right["error"], "data": {"member": "y"}}}, expected)
    assert not fits(None, expected)
    assert not fits([right], expected)


@pytest.mark.parametrize("raw", ["1", "1.0", "1.50", "-0.0", "1E+2", "123456789012345678901234567890", "null", '"' + "x" * 500 + '"'])
def test_an_id_is_echoed_byte_for_byte(raw: str) -> None:
    message = jsonrpc.decode(f'{{"jsonrpc":"2.0","method":"Ping","id": {raw} }}'.encode())
    assert isinstance(message, Call)
    assert jsonrpc.encode_result(message.id, {}).find(f'"id":{raw},'.encode()) > 0


def test_the_limits_are_arguments() -> None:
    limits = WireLimits(message_bytes=100, depth=4, elements=9, batch=2)
    call = b'{"jsonrpc":"2.0","method":"Ping","id":1}'
    assert isinstance(jsonrpc.decode(call, limits), Call)
    for sent, which in (
        (call + b" " * 100, "message"),
        (b'{"jsonrpc":"2.0","method":"Ping","params":[[[[1]]]],"id":1}', "depth"),
        (b'{"jsonrpc":"2.0","method":"Ping","params":[1,2,3,4,5,6],"id":1}', "elements"),
    ):
        refused = jsonrpc.decode(sent, limits)
        assert isinstance(refused, Refusal)
        assert refused.code == jsonrpc.TOO_LARGE
        assert refused.data is not None
        assert refused.data["limit"] == which
    many = jsonrpc.decode(b"[" + b",".join([b"1"] * 3) + b"]", limits)
    assert isinstance(many, Refusal)
    assert many.code == jsonrpc.TOO_MANY


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["jsonrpc", "method", "params", "id", "x"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode), JSON.map(lambda value: json.dumps(value).encode())))
def test_nothing_makes_the_decoder_raise(data: bytes) -> None:
    given_back = answer(data)
    if given_back is not None:
        decoded = json.loads(given_back)
        for one in decoded if isinstance(decoded, list) else [decoded]:
            assert one["jsonrpc"] == "2.0"
            assert "id" in one
            assert ("result" in one) != ("error" in one)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_request_is_answered_or_refused(data: st.DataObject) -> None:
    good = bytearray(b'{"jsonrpc":"2.0","method":"Seek","params":{"sesid":1,"tableid":2,"grbit":["SeekEQ"]},"id":"\xc3\xa9"}')
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    given_back = answer(bytes(good))
    assert given_back is None or json.loads(given_back)["jsonrpc"] == "2.0"
