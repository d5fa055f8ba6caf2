"""Addresses as text."""

from __future__ import annotations

import pytest

from jetwire import address
from jetwire.address import Address
from jetwire.errors import JetwireError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost", Address("tcp", "localhost", 3731, "")),
        ("10.0.0.1:99", Address("tcp", "10.0.0.1", 99, "")),
        ("tcp://[::1]:5", Address("tcp", "::1", 5, "")),
        ("tls://db", Address("tcps", "db", 3731, "")),
        ("ws://h", Address("ws", "h", 3730, "/rpc")),
        ("https://h:1/elsewhere/", Address("https", "h", 1, "/elsewhere")),
        ("unix:///run/a.sock", Address("unix", "", 0, "/run/a.sock")),
        ("unix://relative/a.sock", Address("unix", "", 0, "relative/a.sock")),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert address.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["ftp://x", "tcp://h:port", "tcp://h:99999", "tcp://[::1", "tcp://a..b", f"ws://{'x' * 64}", "http://\ud800"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(JetwireError):
        address.parse(text)


def test_the_url_of_an_address_of_six_parts() -> None:
    assert address.parse("ws://[::1]:7").url == "ws://[::1]:7/rpc"
