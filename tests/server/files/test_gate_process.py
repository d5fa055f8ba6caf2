"""The gate in real time and a real process: a stopped process and a blocked loop do not hold a freeze."""

import signal
import subprocess
import sys
import time

import pytest

CHILD = """
import asyncio, sys, threading, time
from jetwire_server.clock import SystemClock
from jetwire_server.files.gate import Gate

clock = SystemClock()
gate = Gate(clock)
lease, block = float(sys.argv[1]), float(sys.argv[2])

def writer():
    with gate.permit("log"):
        print("written", clock.boot(), flush=True)

async def main():
    deadline = clock.boot() + lease
    await gate.freeze(deadline, drain_until=clock.boot() + 1)
    thread = threading.Thread(target=writer)
    thread.start()
    print("frozen", deadline, flush=True)
    time.sleep(block)          # the loop does nothing; time.sleep leaves the other threads alone
    await asyncio.to_thread(thread.join)
    print("verdict", gate.thaw().timed_out, flush=True)

asyncio.run(main())
"""


def start(lease: float, block: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", CHILD, str(lease), str(block)], stdout=subprocess.PIPE, text=True)


def words(child: subprocess.Popen[str]) -> list[str]:
    assert child.stdout is not None
    return child.stdout.readline().split()


def test_a_blocked_event_loop_does_not_hold_the_freeze() -> None:
    with start(lease=0.3, block=1.5) as child:
        _, deadline = words(child)
        _, written = words(child)
        assert words(child) == ["verdict", "True"]
    assert 0 <= float(written) - float(deadline) < 0.4


def test_a_stopped_process_is_open_again_as_soon_as_it_runs() -> None:
    with start(lease=0.3, block=0.0) as child:
        _, deadline = words(child)
        child.send_signal(signal.SIGSTOP)
        time.sleep(0.8)
        assert time.clock_gettime(time.CLOCK_BOOTTIME) > float(deadline)
        resumed = time.clock_gettime(time.CLOCK_BOOTTIME)
        child.send_signal(signal.SIGCONT)
        _, written = words(child)
        assert words(child) == ["verdict", "True"]
    assert resumed <= float(written) < resumed + 0.4


def test_the_control_a_freeze_whose_deadline_is_far_does_hold_the_writer() -> None:
    with start(lease=30, block=0.0) as child:
        assert words(child)[0] == "frozen"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)
        child.kill()
        assert child.stdout is not None
        assert "written" not in child.stdout.read()
