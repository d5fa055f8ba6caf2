"""Databases that come and go, each by a record of the log."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from jetwire_protocol.errors import JetError
from jetwire_server.redo.placed import Placed
from jetwire_server.store.embedded.journal import Awaited

if TYPE_CHECKING:
    from jetwire_server.store.embedded.pages import PageFile
    from jetwire_server.store.embedded.store import EmbeddedStore


class Coming(Awaited):
    """A database comes, in log order: no round of the checkpoint before this record knows of it."""

    __slots__ = ("file", "marking", "slot")

    def __init__(self, store: EmbeddedStore, number: int, time: float, slot: int, file: PageFile) -> None:
        super().__init__(store, number, time)
        self.slot = slot
        self.file = file
        self.marking: asyncio.Future[Any] | None = None

    def publish(self, placed: Placed) -> None:
        store, file = self.store, self.file
        super().publish(placed)
        store.attached.entered(self.slot, file)
        if not file.read_only:
            head = store.attached.head_at(self.slot, self.number, placed.position)
            self.marking = store.checkpointer.hand_over(partial(store.checkpointer.apply, file, [], head=head))

    def fail(self, error: JetError) -> None:
        self.file.close()
        super().fail(error)


class Going(Awaited):
    """A database goes, in log order: no round of the checkpoint behind this record takes it for attached."""

    __slots__ = ("closing", "remove", "slot")

    def __init__(self, store: EmbeddedStore, number: int, time: float, slot: int, remove: bool) -> None:
        super().__init__(store, number, time)
        self.slot = slot
        self.remove = remove
        self.closing: asyncio.Future[Any] | None = None

    def publish(self, placed: Placed) -> None:
        attached, slot = self.store.attached, self.slot
        head = attached.head_at(slot, self.number, placed.position)
        super().publish(placed)
        file = attached.left(slot)
        assert file is not None
        give_up = partial(attached.remove, file) if self.remove else partial(attached.release, file, head)
        self.closing = self.store.checkpointer.hand_over(give_up)
