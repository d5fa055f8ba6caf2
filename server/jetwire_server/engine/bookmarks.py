"""Bookmarks, which name a record for ever, and positions, which name a place among the entries of an index."""

from __future__ import annotations

from dataclasses import dataclass

from jetwire_protocol.data.flags import GotoSecondaryIndexBookmarkGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.bits import all_bits
from jetwire_server.engine.place import GAP, ON
from jetwire_server.engine.ranges import Ranges
from jetwire_server.engine.values import MANY, PRIMARY
from jetwire_server.store.interface import Transaction

_GOTO_BITS = all_bits(GotoSecondaryIndexBookmarkGrbit)
_PERMIT_VIRTUAL = int(GotoSecondaryIndexBookmarkGrbit.BookmarkPermitVirtualCurrency)


@dataclass(frozen=True, slots=True)
class RecordPosition:
    """JET_RECPOS: about so many entries before this one, of so many."""

    entries_lt: int
    entries_in_range: int
    entries_total: int


class Bookmarks(Ranges):
    """GetBookmark, GotoBookmark, their secondary kin, GetRecordPosition, GotoPosition."""

    async def get_bookmark(self) -> bytes:
        """The current record's bookmark: its primary key."""
        self.session.check()
        if self.state != ON:
            await self._read(self._record)
        return self.bookmark

    async def goto_bookmark(self, bookmark: bytes) -> None:
        """To the record of a bookmark: on a secondary index to its first entry there."""
        self.session.check()
        self.cancel_update()
        if not isinstance(bookmark, bytes) or not bookmark:
            raise JetError(Err.InvalidBookmark)
        if len(bookmark) > self.plan.rows.most:
            raise JetError(Err.InvalidBookmark, f"{len(bookmark)} bytes")
        await self._read(self._goto_bookmark, bookmark)

    async def _goto_bookmark(self, txn: Transaction, bookmark: bytes) -> None:
        self._drop_range()  # whether the record is found or not
        self.search.reset()
        row = await txn.get(self.plan.rows.tree, bookmark)
        if row is None:
            raise JetError(Err.RecordDeleted)
        at = self.at
        if at.kind != PRIMARY:
            keys = await self.keys_of(txn, at, row)
            if not keys:
                raise JetError(Err.NoCurrentRecord, f"the record is not in index {at.name}")
            entry = at.entry(keys[0], bookmark)
            self.moved_in = self.session.level  # on the primary index a bookmark alone does not count as moving
        else:
            entry = bookmark, row
        self._chunk = []
        self._put_on(*entry)

    async def get_secondary_index_bookmark(self) -> tuple[bytes, bytes]:
        """The current entry's key and its record's bookmark."""
        self.session.check()
        if self.at.kind == PRIMARY:
            raise JetError(Err.NoCurrentIndex)
        if self.state != ON:
            await self._read(self._record)
        return self.entry_key(), self.bookmark

    async def goto_secondary_index_bookmark(self, secondary: bytes, primary: bytes | None = None, grbit: int = 0) -> None:
        """To an entry of the current index. On a unique index the key alone will do."""
        self.session.check()
        self.cancel_update()
        if grbit & ~_GOTO_BITS:
            raise JetError(Err.InvalidGrbit)
        at = self.at
        if at.kind == PRIMARY:
            raise JetError(Err.NoCurrentIndex)
        if not secondary or len(secondary) > at.most or (not primary and at.kind == MANY):
            raise JetError(Err.InvalidBookmark)
        await self._read(self._goto_entry, secondary, primary or b"", grbit)

    async def _goto_entry(self, txn: Transaction, secondary: bytes, primary: bytes, grbit: int) -> None:
        at = self.at
        key = at.entry(secondary, primary)[0]
        value = await txn.get(at.tree, key)
        self._drop_range()
        self.search.reset()
        self._chunk = []
        if value is None or (primary and at.bookmark_of(key, value) != primary):
            if grbit & _PERMIT_VIRTUAL:
                self._put_at(GAP, key)
            raise JetError(Err.RecordDeleted)
        self._put_on(key, value)

    # -- positions ------------------------------------------------------------------------------------------------
    async def get_record_position(self) -> RecordPosition:
        """How many entries of the index come before the current one: of a long index about so many, see `milestones`."""
        self.session.check()
        return await self._read(self._position)

    async def _position(self, txn: Transaction) -> RecordPosition:
        if self.state != ON:
            await self._record(txn)
        tree = self.at.tree
        before, total = await (await self.database.milestones.of(txn, tree)).position(txn, tree, self.key)
        return RecordPosition(before, 1, max(total, before + 1))

    async def goto_position(self, position: RecordPosition) -> None:
        """To the entry at this share of the index."""
        self.session.check()
        self.cancel_update()
        if position.entries_lt < 0 or position.entries_total < 0 or position.entries_lt > position.entries_total:
            raise JetError(Err.InvalidParameter, "entriesLT is not within entriesTotal")
        await self._read(self._goto_position, position)

    async def _goto_position(self, txn: Transaction, position: RecordPosition) -> None:
        tree = self.at.tree
        found = await (await self.database.milestones.of(txn, tree)).at(txn, tree, position.entries_lt, position.entries_total)
        if found is None:
            raise JetError(Err.RecordNotFound, "the index is empty")
        self._drop_range()
        self.search.reset()
        self._chunk = []
        self._put_on(*found)
        self.moved_in = self.session.level
