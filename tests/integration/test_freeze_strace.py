"""Nothing is written while frozen, as the kernel saw it: strace on the server's process under full write load."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.test_freeze import Load, create_database, prepare
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

CALLS = "write,pwrite64,writev,pwritev,pwritev2,ftruncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,link,mkdir,copy_file_range"


def writes_seen(server: ServerProcess, seconds: float, out: Path) -> list[str]:
    """What the server's process and threads did to files of its data directory for a while."""
    command = ["strace", "-f", "-y", "-e", f"trace={CALLS}", "-o", str(out), "-p", str(server.process.pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    attached = tracer.stderr.readline().decode()
    if "attached" not in attached:
        tracer.kill()
        tracer.wait()
        pytest.skip(f"strace cannot attach here: {attached.strip()}")
    time.sleep(seconds)
    tracer.send_signal(signal.SIGINT)
    tracer.wait(10)
    tracer.stderr.close()
    data = re.escape(str(server.data))
    return [line for line in out.read_text().splitlines() if re.search(rf'[<"]{data}/', line)]


def test_the_kernel_sees_no_write_while_frozen_and_many_otherwise(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        create_database(server)
        loads = [Load(server, f"s{n}_") for n in range(3)]
        try:
            assert writes_seen(server, 0.5, tmp_path / "open.strace"), "the control: an open gate lets writes through"
            with server.connect() as lines:
                snap = prepare(lines)
                lines.call("OSSnapshotFreeze", snapId=snap)
                assert writes_seen(server, 1.0, tmp_path / "frozen.strace") == []
                assert lines.call("SnapshotStatus")["waitingCommits"] == len(loads)
                assert lines.call("OSSnapshotThaw", snapId=snap)["held"]
        finally:
            for load in loads:
                load.stop()
