"""The Python in the README and in the client's page runs as it stands when it is pasted."""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_IMPORTS = re.compile(r"^(import|from) ", re.MULTILINE)


def blocks(page: str) -> list[str]:
    return _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", ["README.md", "docs/client.md"])
def test_programs_run_as_pasted(own_server: ServerProcess, tmp_path: Path, page: str) -> None:
    """Whole programs (they import what they use) run one after the other against a new server."""
    programs = [block for block in blocks(page) if _IMPORTS.match(block)]
    if not programs:
        pytest.skip(f"{page} has no program")
    environment = {**os.environ, "JETWIRE_URL": own_server.addresses["tcp"], "HOME": str(tmp_path)}
    for program in programs:
        pasted = program.replace("tcp://127.0.0.1:3731", own_server.addresses["tcp"])  # where `make serve` listens
        done = subprocess.run([sys.executable, "-c", pasted], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{program}\n{done.stderr}"
    if page == "docs/client.md":
        assert len(programs) == 3


@pytest.mark.parametrize("page", ["README.md", "docs/client.md"])
def test_fragments_are_python(page: str) -> None:
    for block in blocks(page):
        compile(block, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def one_liners() -> list[str]:
    """The README's shell lines that speak to a server without the client."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = text.partition("## Without the client")[2].partition("```sh\n")[2].partition("```")[0].splitlines()
    assert len(lines) == 3
    return lines


@pytest.mark.parametrize("tool", ["curl", "nc", "websocat"])
def test_one_liners_run_as_printed(own_server: ServerProcess, tool: str) -> None:
    (line,) = [line for line in one_liners() if re.search(rf"(^|\| ){tool} ", line)]
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    here = line.replace("127.0.0.1:3730", f"127.0.0.1:{own_server.http_port}").replace("127.0.0.1 3731", f"127.0.0.1 {own_server.tcp_port}")
    assert here != line
    done = subprocess.run(["bash", "-c", here], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] is not None


# -- where there is no websocat ---------------------------------------------------------------------------------------
def frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame: one piece, masked (with zeros, so that it can be read)."""
    assert len(payload) < 126
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_in_a_frame_is_answered_before_the_end_of_input_closes_the_connection(own_server: ServerProcess, end: bytes) -> None:
    """What a WebSocket client that copies its standard input sends: a text frame a line, and Close right after the last."""
    text, closing = 1, 8
    with socket.create_connection(("127.0.0.1", own_server.http_port), 20) as sock:
        key = base64.b64encode(bytes(16)).decode()
        head = ["GET /rpc HTTP/1.1", f"Host: 127.0.0.1:{own_server.http_port}", "Upgrade: websocket", "Connection: Upgrade"]
        head += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        ping = b'{"jsonrpc":"2.0","id":1,"method":"Ping"}' + end
        sock.sendall("\r\n".join(head).encode() + frame(text, ping) + frame(closing, (1000).to_bytes(2, "big")))
        with sock.makefile("rb") as told:
            assert told.readline().startswith(b"HTTP/1.1 101")
            while told.readline() != b"\r\n":
                pass
            assert told.read(1) == bytes([0x80 | text])
            answer = told.read(told.read(1)[0])
            assert json.loads(answer) == {"jsonrpc": "2.0", "id": 1, "result": {}}
            assert told.read(1) == bytes([0x80 | closing])
