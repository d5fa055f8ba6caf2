"""Space hints: checked and kept as ESE does, for the info calls to give back. The storage below plans its own space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jetwire_protocol.data.flags import Spacehints
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.bits import all_bits

_KNOWN_BITS = all_bits(Spacehints)
_SCANS = int(Spacehints.RetrieveHintTableScanForward | Spacehints.RetrieveHintTableScanBackward)
DENSITIES = range(20, 101)
_GROWTH_PERCENT = range(100, 500 * 100)
_EXTENT_BYTES_MAX = 100 << 20


def check_hints(hints: Mapping[str, Any] | None) -> None:
    """JET_SPACEHINTS, named as on the wire: DensityInvalid, InvalidGrbit or SpaceHintsInvalid if it cannot be meant."""
    if not hints:
        return

    def of(name: str) -> int:
        return int(hints.get(name) or 0)

    for density in (of("initialDensity"), of("maintDensity")):
        if density and density not in DENSITIES:
            raise JetError(Err.DensityInvalid, f"density {density}")
    if of("grbit") & ~_KNOWN_BITS:
        raise JetError(Err.InvalidGrbit)
    least, most = of("minExtent"), of("maxExtent")
    wrong = of("grbit") & _SCANS == _SCANS or (of("growth") and of("growth") not in _GROWTH_PERCENT)
    if wrong or least > most or not 0 <= least < _EXTENT_BYTES_MAX or most >= _EXTENT_BYTES_MAX or of("initial") < 0:
        raise JetError(Err.SpaceHintsInvalid)
