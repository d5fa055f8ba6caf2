"""How an embedded store begins and ends."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from jetwire_protocol.errors import JetError
from jetwire_server.store.embedded.contents import DETACHED
from jetwire_server.store.embedded.recovery import recover

if TYPE_CHECKING:
    from jetwire_server.store.embedded.store import EmbeddedStore


async def start(store: EmbeddedStore, without_missing: bool, without_lost_end: bool, truncate_log: bool) -> bool:
    """See `interface.Store.start`."""
    store.scratch.clear()
    try:
        went_without = await recover(store, without_missing=without_missing, without_lost_end=without_lost_end)
        if went_without.a_database or truncate_log:  # the next start is to know nothing of what is gone
            await store.checkpoint()
        if truncate_log:
            await store.checkpointer.on_thread(partial(_truncate_log, store))
        return went_without.the_end
    except BaseException:
        await _close(store)
        raise


async def stop(store: EmbeddedStore, checkpoint: bool) -> None:
    """Ends. Latched or frozen, it writes nothing on its way out: recovery will do the rest."""
    store.ending = True
    if store.gate.look():
        store.gate.latch("the instance ended while it was frozen")
    try:
        if checkpoint and not store.problems():
            await store.flush()
            await store.checkpointer.save()
            if not store.problems():
                await store.attached.mark(DETACHED)
    finally:
        await _close(store)


async def _close(store: EmbeddedStore) -> None:
    await store.publishing.idle()
    await store.checkpointer.stop()
    try:
        await store.journal.close()
    except JetError:
        if not store.problems():
            raise
    finally:
        store.generations.close()
        await asyncio.to_thread(store.attached.close)  # waits for a backup's copy under way, and nobody else is to wait with it
        store.scratch.close()
        store.let_go()


def _truncate_log(store: EmbeddedStore) -> None:
    found = store.journal.checkpoint()
    if found is not None:
        with store.gate.permit("log truncation"):
            store.journal.truncate_before(found.position)
