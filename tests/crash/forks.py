"""Processes of `jetwired` that start at once: each is a fork of one that has read the modules and done nothing else.

    with Nursery() as nursery:
        code, said = nursery.run("verify", copy)
        with nursery.serve(copy, names) as server: server.connect() ...

What a process costs is then its work, not the reading of its modules, which is most of a short one's time.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tests.support.server_process import Lines

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0


class Nursery:
    """One process that forks; not for several threads."""

    def __init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="jetwire-forks-")
        self._output = Path(self._scratch.name, "output")
        self._socket = Path(self._scratch.name, "s.sock")
        environment = {**os.environ, "JETWIRE_RUNTIME": ""}
        command = [sys.executable, "-m", "tests.crash.forks"]
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._scratch.cleanup()

    def _ask(self, **what: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def _start(self, *arguments: object) -> int:
        self._output.write_bytes(b"")
        return self._ask(arguments=[str(one) for one in arguments], output=str(self._output))

    def run(self, *arguments: object) -> tuple[int, str]:
        """An offline verb: its exit code, and all it said."""
        code = self._ask(wait=self._start(*arguments))
        return code, self._output.read_text()

    @contextmanager
    def serve(self, data: Path) -> Iterator[Forked]:
        """A server, stopped and waited for at the end."""
        self._socket.unlink(missing_ok=True)
        pid = self._start("serve", "--data", data, "--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--unix", self._socket)
        end = time.monotonic() + START_SECONDS
        while "\nready\n" not in self._output.read_text():
            assert time.monotonic() < end, self._output.read_text()
            assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z", self._output.read_text()
            time.sleep(0.005)
        yield Forked(self._socket)
        os.kill(pid, signal.SIGTERM)
        assert self._ask(wait=pid) == 0, self._output.read_text()


class Forked:
    """A server that a nursery started."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def connect(self) -> Lines:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self._path))
        return Lines(sock)


def _be(arguments: list[str], output: str) -> NoReturn:
    """In the child: `jetwired` from here on."""
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(file, number)
    sys.argv = ["jetwired", *arguments]
    code: object = 1
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        print(f"{error!r}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _nurse() -> None:
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            answer = os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                _be(asked["arguments"], asked["output"])
        print(answer, flush=True)


if __name__ == "__main__":
    from jetwire_server.__main__ import main

    _nurse()
