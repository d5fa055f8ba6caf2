"""Syncs that hold nobody up: the kernel's own workers do them (Linux AIO), and the event loop hears when one has ended.

A thread of ours would do too, but each hand-over between two threads of one interpreter costs more than a quick disk's sync.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from jetwire_protocol.errors import JetError
from jetwire_server.files.interface import File
from jetwire_server.files.local import LocalFile

try:
    import caio.linux_aio as linux_aio  # by this name, for the package's own is None where the kernel refuses

    _HAS_THEM = True
except ImportError:  # another system, no build for this one, or a kernel or a container that does not allow it
    _HAS_THEM = False

_AT_ONCE = 16  # syncs under way

Told = Callable[[JetError | None], None]


class Syncs(Protocol):
    """One event loop's."""

    def begin(self, file: File, told: Told) -> None:
        """Begins to sync; `told` is called on the event loop, never at once. As with `File.sync`, an error is for ever."""
        ...

    def close(self) -> None:
        """Once nothing is under way."""
        ...


SyncsOf = Callable[[asyncio.AbstractEventLoop], Syncs | None]
"""Makes them for a loop; None where there is no such thing."""


def no_syncs(loop: asyncio.AbstractEventLoop) -> Syncs | None:
    """For files whose syncs are no system's: those in memory."""
    return None


def kernel_syncs(loop: asyncio.AbstractEventLoop) -> Syncs | None:
    """The kernel's, if it allows them and has any left (`fs.aio-max-nr`)."""
    try:
        return KernelSyncs(loop) if _HAS_THEM else None
    except (OSError, SystemError):  # which of the two is the library's choice
        return None


class KernelSyncs:
    """See `Syncs`. For local files."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._context = linux_aio.Context(_AT_ONCE)
        loop.add_reader(self._context.fileno, self._hear)

    def begin(self, file: File, told: Told) -> None:
        assert isinstance(file, LocalFile)
        ended = file.sync_begins(told)
        operation = linux_aio.Operation.fdsync(file.fileno())
        operation.set_callback(ended)
        try:
            self._context.submit(operation)
        except (OSError, ValueError):  # nothing was begun, so nothing is lost: the plain way
            self._loop.call_soon(told, _failure_of(file.sync))

    def close(self) -> None:
        self._loop.remove_reader(self._context.fileno)
        del self._context

    def _hear(self) -> None:
        self._context.poll()
        self._context.process_events(_AT_ONCE)


def _failure_of(sync: Callable[[], None]) -> JetError | None:
    try:
        sync()
    except JetError as error:
        return error
    return None
