"""Files for the event loop: the loop goes on meanwhile, and a cancelled caller leaves no write behind its back."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server import failpoints
from jetwire_server.files.asynchronous import AsyncFiles
from jetwire_server.files.local import LocalFiles


@pytest.fixture
def files(tmp_path: Path) -> Iterator[AsyncFiles]:
    with ThreadPoolExecutor(2) as executor:
        yield AsyncFiles(LocalFiles(tmp_path), executor)
    failpoints.disarm()


async def test_a_file_is_streamed_in_pieces(files: AsyncFiles) -> None:
    await files.call(files.files.replace, "a", b"0123456789")
    assert [piece async for piece in files.chunks("a", 4)] == [b"0123", b"4567", b"89"]


async def test_errors_come_through_as_they_are(files: AsyncFiles) -> None:
    with pytest.raises(JetError) as caught:
        await files.call(files.files.open, "absent")
    assert caught.value.code == Err.FileNotFound


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_call_ends_after_its_write(files: AsyncFiles, fails: bool) -> None:
    started, go_on = threading.Event(), threading.Event()

    def stall() -> None:
        started.set()
        go_on.wait(5)
        if fails:
            raise OSError(5, "failpoint")

    failpoints.arm("files.before_write", stall)
    file = files.files.open("a", create=True)
    task = asyncio.create_task(files.call(file.write, 0, b"written"))
    await asyncio.to_thread(started.wait, 5)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    assert not task.done(), "the thread is still writing"
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert file.read(0, 99) == (b"" if fails else b"written")
