"""The sorting weights of Windows, as Microsoft publishes them: the only module that knows where they come from.

The default table has one 32-bit entry for each UTF-16 unit: alphabetic weight, script, diacritic weight, case weight. It is taken
from `dissect.database`, which carries the published "Windows 10 Sorting Weight Table".
"""

from __future__ import annotations

from array import array
from functools import cache
from typing import Final
from unicodedata import ucd_3_2_0

# Characters which the published table lists apart, as standing for others, and which Unicode itself does not decompose.
EXPANSIONS: Final = {
    "Æ": "AE",
    "Þ": "TH",
    "ß": "ss",
    "æ": "ae",
    "þ": "th",
    "Œ": "OE",
    "œ": "oe",
    "Ǣ": "ĀĒ",
    "ǣ": "āē",
    "Ǽ": "ÁÉ",
    "ǽ": "áé",
    "װ": "וו",
    "ױ": "וי",
    "ײ": "יי",
}


@cache
def weights() -> array[int]:
    """The default table, by UTF-16 unit."""
    from dissect.database.ese.sorting_table import table  # 0.8 MB of source: only a server with a Unicode index reads it

    return array("I", table)


@cache
def expansions() -> dict[int, tuple[int, ...]]:
    """What stands for the characters that have no weight of their own: EXPANSIONS, then Unicode's compatibility decomposition.

    Not proved on stored keys. Unicode 3.2 is used because Python keeps it as it is for ever: a newer Python must not change keys.
    """
    found = {}
    for unit, weight in enumerate(weights()):
        if weight or 0xD800 <= unit < 0xE000:
            continue
        parts = EXPANSIONS.get(chr(unit)) or ucd_3_2_0.normalize("NFKC", chr(unit))
        if parts != chr(unit):
            found[unit] = tuple(memoryview(parts.encode("utf-16-le")).cast("H"))
    return found
