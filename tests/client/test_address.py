"""Where a server is looked for, and with which token."""

from __future__ import annotations

import os
import socket
from pathlib import Path

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
def test_addresses(text: str, expected: Address):
    assert address.parse(text) == expected


@pytest.mark.parametrize("text", ["ftp://x", "tcp://h:port", "tcp://h:99999"])
def test_what_is_no_address(text: str):
    with pytest.raises(JetwireError):
        address.parse(text)


def test_the_url_of_an_address_of_six_parts():
    assert address.parse("ws://[::1]:7").url == "ws://[::1]:7/rpc"


def test_a_local_server_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JETWIRE_URL", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(address, "_RUN_DIRECTORIES", ("{XDG_RUNTIME_DIR}/jetwire",))
    assert address.default() == "tcp://127.0.0.1:3731"
    path = tmp_path / "jetwire" / "jetwire.sock"
    path.parent.mkdir()
    path.touch()
    assert address.default() == "tcp://127.0.0.1:3731", "a plain file is no server"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        assert address.default() == f"unix://{path}"
    monkeypatch.setenv("JETWIRE_URL", "ws://elsewhere")
    assert address.default() == "ws://elsewhere"


def test_tokens_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JETWIRE_TOKEN", raising=False)
    monkeypatch.delenv("JETWIRE_TOKEN_FILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert address.default_token() is None
    file = tmp_path / "jetwire" / "token"
    file.parent.mkdir()
    file.write_text("jw_1\n")
    assert address.default_token() == "jw_1"
    other = tmp_path / "other"
    other.write_text("jw_2")
    monkeypatch.setenv("JETWIRE_TOKEN_FILE", str(other))
    assert address.default_token() == "jw_2"
    monkeypatch.setenv("JETWIRE_TOKEN", "jw_3")
    assert address.default_token() == "jw_3"
    if os.geteuid() != 0:
        monkeypatch.delenv("JETWIRE_TOKEN")
        other.chmod(0)
        with pytest.raises(JetwireError):
            address.default_token()
