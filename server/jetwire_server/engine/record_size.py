"""GetRecordSize: what a record takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jetwire_protocol.data.flags import GetRecordSizeGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine import longvalue
from jetwire_server.engine.bits import all_bits
from jetwire_server.engine.longvalue import Draft
from jetwire_server.engine.retrieve import Retrieval
from jetwire_server.engine.stored_form import size_of
from jetwire_server.rows import LongRef
from jetwire_server.store.interface import Transaction

_SIZE_COPY, _SIZE_TOTAL, _SIZE_LOCAL = (
    int(GetRecordSizeGrbit.RecordSizeInCopyBuffer),
    int(GetRecordSizeGrbit.RecordSizeRunningTotal),
    int(GetRecordSizeGrbit.RecordSizeLocal),
)
_SIZE_BITS = all_bits(GetRecordSizeGrbit)


@dataclass(frozen=True, slots=True)
class RecordSize:
    """JET_RECSIZE."""

    data: int = 0
    long_value_data: int = 0
    overhead: int = 0
    long_value_overhead: int = 0
    non_tagged_columns: int = 0
    tagged_columns: int = 0
    long_values: int = 0
    multi_values: int = 0
    compressed_columns: int = 0
    data_compressed: int = 0
    long_value_data_compressed: int = 0


class RecordSizes(Retrieval):
    """GetRecordSize."""

    async def get_record_size(self, running: RecordSize | None = None, grbit: int = 0) -> RecordSize:
        """What the record takes, by kinds; added to `running` with RunningTotal."""
        self.session.check()
        if grbit & ~_SIZE_BITS:
            raise JetError(Err.InvalidGrbit)
        size = await self._read(self._size, grbit)
        if grbit & _SIZE_TOTAL and running is not None:
            names = RecordSize.__slots__
            size = replace(size, **{n: getattr(size, n) + getattr(running, n) for n in names})
        return size

    async def _size(self, txn: Transaction, grbit: int) -> RecordSize:
        if grbit & _SIZE_COPY and self.buffer is None:
            raise JetError(Err.UpdateNotPrepared)
        values = await self._stored_now(txn, bool(grbit & _SIZE_COPY))
        row = self.plan.codec.encode({k: v for k, v in values.items() if not _holds_draft(v)})
        data = longs = long_count = tagged = multi = 0
        for columnid, value in values.items():
            column = self.plan.columns[columnid].column
            members = value if type(value) is list else [] if value is None else [value]
            tagged += column.tagged
            multi += max(0, len(members) - 1)
            for member in members:
                if isinstance(member, (LongRef, Draft)):
                    long_count += 1
                    longs += 0 if grbit & _SIZE_LOCAL else member.size
                else:
                    data += size_of(column, member)
        return RecordSize(
            data=data,
            long_value_data=longs,
            overhead=max(0, len(row) + len(self.bookmark) - data),
            long_value_overhead=0 if grbit & _SIZE_LOCAL else 20 * long_count + longs // longvalue.CHUNK * 16,
            non_tagged_columns=len(values) - tagged,
            tagged_columns=tagged,
            long_values=long_count,
            multi_values=multi,
            data_compressed=data,
            long_value_data_compressed=longs,
        )


def _holds_draft(value: Any) -> bool:
    return isinstance(value, Draft) or (type(value) is list and any(isinstance(v, Draft) for v in value))
