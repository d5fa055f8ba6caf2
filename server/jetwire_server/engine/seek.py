"""Search keys and Seek."""

from __future__ import annotations

from typing import Any

from jetwire_protocol.data.flags import MakeKeyGrbit, RetrieveColumnGrbit, SeekGrbit
from jetwire_protocol.errors import Err, JetError, Wrn
from jetwire_server.engine.bits import all_bits
from jetwire_server.engine.navigation import Navigation
from jetwire_server.engine.place import GAP, ON
from jetwire_server.engine.values import MANY, PRIMARY, successor
from jetwire_server.store.interface import Row, Transaction

_KEY_BITS = all_bits(MakeKeyGrbit)
_NORMALIZED = int(MakeKeyGrbit.NormalizedKey)
_EQ, _LT, _LE = int(SeekGrbit.SeekEQ), int(SeekGrbit.SeekLT), int(SeekGrbit.SeekLE)
_GE, _GT = int(SeekGrbit.SeekGE), int(SeekGrbit.SeekGT)
_RELATIONS = _EQ | _LT | _LE | _GE | _GT
_SET_RANGE, _CHECK_UNIQUE = int(SeekGrbit.SetIndexRange), int(SeekGrbit.CheckUniqueness)
_COPY = int(RetrieveColumnGrbit.RetrieveCopy)


class Seeking(Navigation):
    """MakeKey, RetrieveKey, Seek."""

    _normalized = False  # the search key came as one piece

    def make_key(self, value: Any, grbit: int = 0) -> None:
        """The value of the search key's next column."""
        if self.session.refusal is not None:
            self.session.check()
        if grbit & ~_KEY_BITS:
            raise JetError(Err.InvalidGrbit)
        self.search.add(value, grbit)
        self._normalized = bool(grbit & _NORMALIZED)

    def take_key(self) -> tuple[bytes, bool]:
        """The search key, which is used up, and whether an entry can have just this key."""
        search = self.search
        if not search.prepared:
            raise JetError(Err.KeyNotMade)
        key = search.data
        maker = search.maker
        if search.limit:
            complete = False
        elif maker is None or len(key) >= maker.key_most:
            complete = True
        else:
            complete = search.columns >= len(maker.spec.segments) or self._is_whole(key)
        search.reset()
        return key, complete

    def _is_whole(self, key: bytes) -> bool:
        """Whether a key given normalized has all the index's columns: such a key counts as one."""
        search = self.search
        if search.maker is None or not self._normalized:
            return False
        maker = search.maker
        for null in {maker.null(segment) for segment in maker.spec.segments}:
            try:
                maker.decode(key + null)
            except ValueError:
                continue
            return False  # there was room for one more column
        return True

    async def retrieve_key(self, grbit: int = 0) -> bytes:
        """The current entry's key; with RetrieveCopy the search key as it stands."""
        self.session.check()
        if grbit & ~_COPY:
            raise JetError(Err.InvalidGrbit)
        if grbit & _COPY:
            if not self.search.prepared:
                raise JetError(Err.KeyNotMade)
            return self.search.data
        return await self._read(self._entry_key_now)

    async def _entry_key_now(self, txn: Transaction) -> bytes:
        if self.state != ON:
            await self._record(txn)  # says why not, or goes to the first entry
        return self.entry_key()

    # -- seek -----------------------------------------------------------------------------------------------------
    async def seek(self, grbit: int) -> None:
        """To the entry that stands in the named relation to the search key. Warns SeekNotEqual and UniqueKey."""
        self.cancel_update()
        if grbit == _EQ and self.at.kind != MANY and self.search.prepared:
            txn = self.inside
            if txn is not None or self.ordinary:
                await self._seek_entry(txn)
                return
        relation = grbit & _RELATIONS
        if not relation or relation & relation - 1 or grbit & ~(_RELATIONS | _SET_RANGE | _CHECK_UNIQUE):
            raise JetError(Err.InvalidParameter if not relation or relation & relation - 1 else Err.InvalidGrbit)
        self.session.check()
        key, complete = self.take_key()
        self._drop_range()
        await self._read(self._seek, key, complete, grbit)

    async def _seek_entry(self, txn: Transaction | None) -> None:
        """To the one entry of a key; None: in an ordinary call. What that finds is remembered: the record is asked for next."""
        search, at = self.search, self.at
        key = search.data
        search.reset()
        self._drop_range()
        number = -1
        if txn is None:
            number = self.store.published
            value = self._newest(at.tree, key)
        else:
            self.moved_in = self.session.level
            value = await txn.get(at.tree, key)
        self._chunk = []
        if value is None:
            self._put_at(GAP, key)
            raise JetError(Err.RecordNotFound)
        self._put_on(key, value)
        if txn is None and at.kind == PRIMARY:
            self._found = (number, key, value)

    async def _seek(self, txn: Transaction, key: bytes, complete: bool, grbit: int) -> None:
        self.moved_in = self.session.level
        if grbit & _EQ:
            await self._seek_equal(txn, key, complete, grbit)
            return
        above = successor(key) if complete else key  # what is greater than every entry of this very key
        if grbit & _LE and complete and self.at.kind == MANY:  # of several equal entries the one nearest to the start, as for EQ
            rows = await txn.scan(self.at.tree, key, above, limit=1)
            if rows and self.at.key_of(*rows[0]) == key:
                self._chunk = []
                self._put_on(*rows[0])
                return
        forward = bool(grbit & (_GE | _GT))
        self._put_at(GAP, key if grbit & (_GE | _LT) else above)
        if not await self._step_filtered(txn, forward):
            raise JetError(Err.RecordNotFound)
        if grbit & (_GE | _LE) and self.entry_key() != key:
            self.session.warning = Wrn.SeekNotEqual

    def _land(self, key: bytes, found: Row | None) -> None:
        """On the entry that was found for a key, or where it would be."""
        self._chunk = []
        if found is None or self.at.key_of(*found) != key:
            self._put_at(GAP, key)
            raise JetError(Err.RecordNotFound)
        self._put_on(*found)

    async def _seek_equal(self, txn: Transaction, key: bytes, complete: bool, grbit: int) -> None:
        at = self.at
        found = None
        if at.kind != MANY:
            value = await txn.get(at.tree, key)
            if value is not None:
                found = key, value
        elif complete:
            rows = await txn.scan(at.tree, key, successor(key), limit=1)
            if rows:
                found = rows[0]
        self._land(key, found)
        if grbit & _SET_RANGE:
            self.range_high = successor(key)
        if grbit & _CHECK_UNIQUE and (at.kind != MANY or len(await txn.scan(at.tree, key, successor(key), limit=2)) == 1):
            self.session.warning = Wrn.UniqueKey
