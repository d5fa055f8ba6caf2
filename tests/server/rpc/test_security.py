"""Tokens, addresses, headers: who is let in, and as whom."""

from __future__ import annotations

import json

import pytest

from jetwire_server.rpc.security import (
    NOBODY,
    Gatekeeper,
    Token,
    UnsafeStart,
    check_addresses,
    is_loopback,
    tokens_from_json,
    tokens_to_json,
)


def test_a_token_is_stored_by_its_hash_alone() -> None:
    text, token = Token.make("backup", "snapshotter", 5.0)
    stored = tokens_to_json([token])
    assert text not in stored.decode()
    assert len(text) > 40
    assert tokens_from_json(stored) == [token]
    assert json.loads(stored)["tokens"][0]["hash"] == token.hash
    gatekeeper = Gatekeeper(tokens=[token])
    assert gatekeeper.by_token(text).role == "snapshotter"
    assert gatekeeper.by_token(text).principal == "backup"
    for wrong in ("", text[:-1], text + "x", token.hash, "\udcff"):
        assert gatekeeper.by_token(wrong) is NOBODY
    assert Token.make("backup", "snapshotter", 5.0)[0] != text
    with pytest.raises(ValueError, match="no role"):
        Token.make("x", "root", 5.0)


@pytest.mark.parametrize("wrong", [
    {"name": 1}, {"role": "king"}, {"hash": 2}, {"hash": "\u00e9" * 64}, {"hash": ""}, {"created": "now"}, {"created": 1e20},
])  # fmt: skip
def test_a_token_that_is_none_is_refused_when_it_is_read(wrong: dict[str, object]) -> None:
    """Not when somebody says Hello."""
    row = json.loads(tokens_to_json([Token.make("a", "reader", 5.0)[1]]))["tokens"][0]
    with pytest.raises((ValueError, TypeError)):
        tokens_from_json(json.dumps({"tokens": [{**row, **wrong}]}).encode())


@pytest.mark.parametrize(("host", "loopback"), [
    ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True), ("::ffff:127.0.0.1", True),
    ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False), ("", False), ("::ffff:10.0.0.1", False),
])  # fmt: skip
def test_what_is_the_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_addresses_and_certificates() -> None:
    gatekeeper = Gatekeeper(certificates={"cron": "snapshotter"}, own_uid=1000)
    assert gatekeeper.by_address(("127.0.0.1", 5)).role == "admin"
    assert gatekeeper.by_address(("10.0.0.1", 5)) is NOBODY
    assert gatekeeper.by_address(None) is NOBODY
    subject = {"subject": ((("organizationName", "x"),), (("commonName", "cron"),))}
    assert gatekeeper.by_address(("10.0.0.1", 5), subject).role == "snapshotter"
    assert gatekeeper.by_address(("10.0.0.1", 5), {"subject": ((("commonName", "other"),),)}) is NOBODY
    assert Gatekeeper(open_loopback=False).by_address(("127.0.0.1", 5)) is NOBODY
    assert Gatekeeper(insecure=True).by_address(("10.0.0.1", 5)).role == "admin"
    assert gatekeeper.by_uid(1000).role == gatekeeper.by_uid(0).role == "admin"
    assert gatekeeper.by_uid(1001) is NOBODY


def test_hosts_and_origins() -> None:
    gatekeeper = Gatekeeper(hosts=frozenset({"db.example.org"}), origins=frozenset({"https://tools.example.org"}))
    for host in ("localhost", "localhost:3730", "127.0.0.1:1", "[::1]:3730", "[::1]", "LOCALHOST:1", "db.example.org:3730"):
        assert gatekeeper.host_allowed(host), host
    for host in ("evil.example", "localhost.evil.example", "evil.example:3730", "", "127.0.0.1.evil.example", "db.example.org.evil"):
        assert not gatekeeper.host_allowed(host), host
    assert gatekeeper.origin_allowed(None, "localhost:1")
    assert gatekeeper.origin_allowed("http://localhost:1", "localhost:1")
    assert gatekeeper.origin_allowed("https://tools.example.org", "localhost:1")
    for origin in ("http://localhost:2", "http://evil.example", "null", "", "file://", "https://tools.example.org.evil"):
        assert not gatekeeper.origin_allowed(origin, "localhost:1"), origin


def test_where_a_server_may_listen() -> None:
    def check(host: str, *, tls: bool = False, tokens: bool = False, certificates: bool = False, insecure: bool = False) -> None:
        check_addresses(["127.0.0.1", host], tls=tls, tokens=tokens, certificates=certificates, insecure=insecure)

    check("::1")
    check("0.0.0.0", tls=True, tokens=True)
    check("0.0.0.0", tls=True, certificates=True)
    check("0.0.0.0", insecure=True)
    for arguments in ({}, {"tls": True}, {"tokens": True}, {"certificates": True}):
        with pytest.raises(UnsafeStart):
            check("0.0.0.0", **arguments)
