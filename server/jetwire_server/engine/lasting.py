"""Escrow updates that no rollback undoes (`EscrowNoRollback`): whoever rolls back makes them again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from jetwire_protocol.errors import JetError
from jetwire_server import limits
from jetwire_server.store.interface import Store, Transaction

Again = Callable[[Transaction], Awaitable[None]]


class LastingUpdates:
    """Those of one session's transaction, each with the level it belongs to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._made: list[tuple[int, Again]] = []

    def add(self, level: int, again: Again) -> None:
        self._made.append((level, again))

    def level_committed(self, level: int) -> None:
        """What belonged to the levels above belongs to this one now; at 0 it is committed."""
        self._made = [(min(made, level), again) for made, again in self._made] if level else []

    async def level_rolled_back(self, level: int, txn: Transaction) -> None:
        """Those of the level that was undone are made again in the one around it, `level`, and belong to it now."""
        kept = []
        for made, again in self._made:
            if made > level:
                try:
                    await again(txn)
                except JetError:  # a record that is another's by now: it goes with the rest
                    continue
            kept.append((min(made, level), again))
        self._made = kept

    async def make_again(self) -> None:
        """The transaction is gone: they get one of their own. Nobody waits for a thaw because of it."""
        made, self._made = self._made, []
        if not made:
            return
        with suppress(JetError):  # a record that is another's by now, or a storage that fails: they go with the rest
            own = await self._store.begin()
            try:
                for _, again in made:
                    await again(own)
                if own.changed and not await self._handed_in(own):
                    await own.commit(lazy=True)
            finally:
                own.rollback_now()

    async def _handed_in(self, own: Transaction) -> bool:
        """Commits, and waits until that is seen; while frozen, it will be after the thaw. False: only `commit` will do."""
        seen = asyncio.Event()
        if not own.commit_now(lambda answer: seen.set(), lazy=True):
            return False
        while not seen.is_set() and not self._store.frozen:
            with suppress(TimeoutError):
                await asyncio.wait_for(seen.wait(), limits.GATE_LOOK_SECONDS)
        return True
