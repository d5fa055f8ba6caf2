"""Where a server is looked for when nobody says where it is, and with which token."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from jetwire import local
from jetwire.errors import JetwireError


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place that is looked at; nothing else is configured."""
    for name in ("JETWIRE_URL", "JETWIRE_TOKEN", "JETWIRE_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(local, "_RUN_DIRECTORIES", ("{XDG_RUNTIME_DIR}/jetwire",))
    (tmp_path / "jetwire").mkdir()
    return tmp_path / "jetwire"


def card(directory: Path, token: str | None = None, **addresses: str) -> None:
    (directory / local.CARD_NAME).write_text(json.dumps({"pid": 1, "addresses": addresses, "token": token}))


def test_a_socket_is_found_if_somebody_listens(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert local.default_url() == "tcp://127.0.0.1:3731"
    path = run_directory / local.SOCKET_NAME
    path.touch()
    assert local.default_url() == "tcp://127.0.0.1:3731", "a plain file is no server"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        assert local.default_url() == "tcp://127.0.0.1:3731", "nobody answers there"
        listening.listen()
        assert local.default_url() == f"unix://{path}"
        monkeypatch.setenv("JETWIRE_URL", "ws://elsewhere")
        assert local.default_url() == "ws://elsewhere"
        monkeypatch.delenv("JETWIRE_URL")
    assert local.default_url() == "tcp://127.0.0.1:3731", "its server was killed"


def test_a_card_names_other_places(run_directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        card(run_directory, tcp=url, unix=f"unix://{run_directory}/gone")
        assert local.default_url() == url
    assert local.default_url() == "tcp://127.0.0.1:3731"
    (run_directory / local.CARD_NAME).write_text("{")
    assert local.default_url() == "tcp://127.0.0.1:3731"


def test_a_cards_token_is_for_its_own_server_alone(run_directory: Path) -> None:
    card(run_directory, "jw_1", tcp="tcp://127.0.0.1:99", http="http://0.0.0.0:98/rpc", unix="unix:///run/s")
    for own in ("tcp://127.0.0.1:99", "localhost:99", "http://localhost:98/rpc", "ws://127.0.0.1:98", "unix:///run/s"):
        assert local.default_token(own) == "jw_1", own
    for other in ("tcp://127.0.0.1:9", "tcp://10.0.0.1:99", "tls://127.0.0.1:99", "http://evil:98", "unix:///run/t", "tcp://127.0.0.1"):
        assert local.default_token(other) is None, other


def test_tokens_are_found(run_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "tcp://127.0.0.1:99"
    assert local.default_token(url) is None
    card(run_directory, "jw_0", tcp=url)
    file = tmp_path / "config" / "jetwire" / "token"
    file.parent.mkdir(parents=True)
    file.write_text("jw_1\n")
    assert local.default_token(url) == "jw_1"
    other = tmp_path / "other"
    other.write_text("jw_2")
    monkeypatch.setenv("JETWIRE_TOKEN_FILE", str(other))
    assert local.default_token(url) == "jw_2"
    monkeypatch.setenv("JETWIRE_TOKEN", "jw_3")
    assert local.default_token(url) == "jw_3"
    if os.geteuid() != 0:
        monkeypatch.delenv("JETWIRE_TOKEN")
        other.chmod(0)
        with pytest.raises(JetwireError):
            local.default_token(url)
