"""A real `jetwired` in a process of its own, on free ports, for tests that speak to it over real sockets."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.declared import misfits

START_SECONDS = 60.0  # of a busy machine, on which the tests have the lowest priority


class ServerProcess:
    """Starts in the constructor; `addresses` maps http, ws, tcp and unix to what the first lines of output named."""

    def __init__(
        self,
        data: Path,
        *flags: str,
        http: str = "127.0.0.1:0",
        tcp: str = "127.0.0.1:0",
        module: str = "jetwire_server",
        **environment: str,
    ) -> None:
        self.data = data
        self.errors = data.parent / f"{data.name}.stderr"
        command = [sys.executable, "-m", module, "serve", "--data", str(data), "--http", http, "--tcp", tcp, *flags]
        environment = {**os.environ, "JETWIRE_RUNTIME": "", **environment}  # not in the way of the servers of this machine
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=errors, env=environment, cwd=data.parent)
        self.addresses: dict[str, str] = {}
        self.said: list[str] = []
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        deadline = time.monotonic() + START_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self.process.stdout], [], [], left)[0]:
                break
            line = self.process.stdout.readline().decode().strip()
            self.said.append(line)
            if line == "ready":
                return
            if not line:
                break
            if line.startswith("listening "):
                _, kind, address = line.split()
                self.addresses[kind] = address
        self.process.kill()
        raise AssertionError(f"the server did not start: {self.errors.read_text()}")

    # -- speaking to it -----------------------------------------------------------------------------------------
    @property
    def http_port(self) -> int:
        return urlsplit(self.addresses["http"]).port or 0

    @property
    def tcp_port(self) -> int:
        return urlsplit(self.addresses["tcp"]).port or 0

    def connect(self, kind: str = "tcp") -> Lines:
        if kind == "unix":
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.addresses["unix"].removeprefix("unix://"))
        else:
            sock = socket.create_connection(("127.0.0.1", self.tcp_port))
        return Lines(sock)

    # -- ending it ----------------------------------------------------------------------------------------------
    def stop(self, seconds: float = 20.0) -> int:
        """SIGTERM, and its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(seconds)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


class Lines:
    """A blocking client of JSON lines: the plainest there can be."""

    def __init__(self, sock: socket.socket, seconds: float = 20.0) -> None:
        self.socket = sock
        sock.settimeout(seconds)
        self._file = sock.makefile("rb")
        self._ids = 0

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        """The next line, without its end; empty when the connection has closed."""
        return self._file.readline().removesuffix(b"\n")

    def read_bytes(self, count: int) -> bytes:
        return self._file.read(count)

    def read(self) -> Any:
        return json.loads(self.line())

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """One call and its whole answer."""
        self._ids += 1
        self.send(json.dumps({"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params}).encode() + b"\n")
        while True:
            answer: dict[str, Any] = self.read()
            if answer.get("id") == self._ids:
                return answer

    def call(self, method: str, **params: Any) -> Any:
        """One call's result; an error is an AssertionError."""
        answer = self.ask(method, **params)
        assert "result" in answer, (method, answer)
        assert misfits(method, answer["result"]) == []
        return answer["result"]

    def error(self, method: str, **params: Any) -> Any:
        """One call's error number and name."""
        answer = self.ask(method, **params)
        assert "error" in answer, answer
        return answer["error"]["message"]

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
