"""Windows' sort keys (what LCMapStringEx gives for LCMAP_SORTKEY), from the published weights.

A key is: (script, weight) of each character, 01, diacritics, 01, case, 01, kana details, 01, word-sort specials, 00. Weights of
2 at the end of a level are left out. Hyphen and apostrophe weigh nothing in the first level; they only add a special, which says
where they stood. Proved on stored keys: ASCII, and one surrogate pair, under the default flags. The rest follows the
published algorithm and is not proved: accents (though 840 of the 889 composed characters below U+2000 get the key of their
decomposition), expansions, kana, private use, other flags. The Jamo composition table and the exceptions of other locales
are not published with the weights: Jamo are sorted one by one, and every locale as en-US.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Protocol

from jetwire_protocol.errors import Err, JetError
from jetwire_server.keys.levels import (
    BYTEREV,
    DIGITS_AS_NUMBERS,
    IGNORECASE,
    IGNOREKANATYPE,
    IGNORENONSPACE,
    IGNORESYMBOLS,
    IGNOREWIDTH,
    LIGHT,
    LINGUISTIC_CASING,
    LINGUISTIC_IGNORECASE,
    LINGUISTIC_IGNOREDIACRITIC,
    SORTKEY,
    STRINGSORT,
    UPPERCASE,
    Levels,
    Units,
    depends_on_neighbours,
    rules,
)

_WITH_SORTKEY: Final = (
    IGNORECASE
    | IGNORENONSPACE
    | IGNORESYMBOLS
    | DIGITS_AS_NUMBERS
    | LINGUISTIC_IGNORECASE
    | LINGUISTIC_IGNOREDIACRITIC
    | BYTEREV
    | STRINGSORT
    | IGNOREKANATYPE
    | IGNOREWIDTH
    | LINGUISTIC_CASING
)


class SortKeys(Protocol):
    """The mapping of one set of flags."""

    def ascii(self, text: bytes) -> bytes | bytearray: ...
    def units(self, text: Units) -> bytes: ...


def utf16_units(text: str) -> Units:
    """The UTF-16 units of a text, lone surrogates included."""
    return tuple(memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H"))


def check_lcmap_flags(flags: int) -> int:
    """The flags an index may have, with LCMAP_SORTKEY added where it goes without saying."""
    if flags == UPPERCASE:
        return flags
    if flags & ~(_WITH_SORTKEY | SORTKEY):
        raise JetError(Err.InvalidLCMapStringFlags, f"{flags:#010x}")
    return flags | SORTKEY


@lru_cache(maxsize=8)  # a mapping remembers up to 65,536 characters; indexes rarely differ in their flags
def sort_keys(flags: int) -> SortKeys:
    return _UpperCase() if check_lcmap_flags(flags) == UPPERCASE else _Weighted(flags)


class _UpperCase:
    """LCMAP_UPPERCASE: no weights, but upper-cased UTF-16, big-endian so that it compares as bytes."""

    def ascii(self, text: bytes) -> bytes:
        return text.upper().decode("ascii").encode("utf-16-be") + b"\x00\x00"

    def units(self, text: Units) -> bytes:
        upper = [c.upper() for c in map(chr, text)]  # a character that grows (German sharp s) stays as it is
        single = "".join([u if len(u) == 1 else chr(unit) for u, unit in zip(upper, text, strict=True)])
        return single.encode("utf-16-be", "surrogatepass") + b"\x00\x00"


class _Weighted:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.rules = rules(flags)
        self._plain: dict[int, tuple[bytes, bytes, bytes]] = {}
        self._case_level = not flags & IGNORECASE
        self._ascii_by_table = not flags & (DIGITS_AS_NUMBERS | BYTEREV)
        if self._ascii_by_table:
            self._compile_ascii()

    def _compile_ascii(self) -> None:
        """Tables for bytes.translate, so that ASCII text costs a few calls and no loop over its characters."""
        ignored, specials = bytearray(), {}
        script, primary, case = bytearray(256), bytearray(256), bytearray(256)
        for unit in range(128):
            one = Levels(self.rules)
            one.add((unit,), 0)
            if one.primary:
                script[unit], primary[unit] = one.primary
                case[unit] = one.case[0] if one.case else 2
            else:
                ignored.append(unit)
                if one.special:
                    specials[unit] = bytes(one.special[2:])
        self._ignored, self._specials = bytes(ignored), specials
        self._scripts, self._primaries, self._cases = bytes(script), bytes(primary), bytes(case)

    def ascii(self, text: bytes) -> bytes | bytearray:
        if not self._ascii_by_table:
            return self.units(tuple(text))
        specials = b""
        scripts = text.translate(self._scripts)
        if 0 in scripts:  # characters without a place in the first level
            specials = self._ascii_specials(text)
            text = text.translate(None, self._ignored)
            scripts = text.translate(self._scripts)
        pairs = bytearray(2 * len(text))
        pairs[::2] = scripts
        pairs[1::2] = text.translate(self._primaries)
        if not self._case_level and not specials:
            return pairs + b"\x01\x01\x01\x01\x00"
        case = text.translate(self._cases).rstrip(LIGHT) if self._case_level else b""
        return b"".join((pairs, b"\x01\x01", case, b"\x01\x01", specials, b"\x00"))

    def _ascii_specials(self, text: bytes) -> bytes:
        found, weighted = [], 0
        for unit in text:
            if unit in self._specials:
                found.append((0xFFFF - weighted & 0xFFFF).to_bytes(2, "big") + self._specials[unit])
            elif unit not in self._ignored:
                weighted += 1
        return b"".join(found)

    def units(self, text: Units) -> bytes:
        levels = Levels(self.rules)
        plain = self._plain
        try:
            known = [plain[unit] for unit in text]
        except KeyError:
            known = [found for unit in text if (found := plain.get(unit) or self._learn(unit))]
        if len(known) == len(text):
            levels.primary += b"".join([levels_of[0] for levels_of in known])
            levels.diacritic += b"".join([levels_of[1] for levels_of in known])
            if self._case_level:
                levels.case += b"".join([levels_of[2] for levels_of in known])
        else:
            position = 0
            while position < len(text):
                position += levels.add(text, position)
        key = levels.key()
        return _bytes_swapped(key) if self.flags & BYTEREV else key

    def _learn(self, unit: int) -> tuple[bytes, bytes, bytes] | None:
        """The levels of a character that does not depend on its neighbours; None for one that does."""
        if depends_on_neighbours(self.rules, unit):
            return None
        one = Levels(self.rules)
        one.add((unit,), 0)
        self._plain[unit] = found = bytes(one.primary), bytes(one.diacritic), bytes(one.case)
        return found


def preload() -> None:
    """Read the weights now (80 ms), rather than with the first Unicode index."""
    sort_keys(SORTKEY)


def _bytes_swapped(key: bytes) -> bytes:
    even = len(key) & ~1
    swapped = bytearray(key)
    swapped[:even:2], swapped[1:even:2] = key[1:even:2], key[:even:2]
    return bytes(swapped)
