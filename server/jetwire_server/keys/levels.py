"""One sort key under construction: each character adds to up to four levels, by the rules of its script."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Final

from jetwire_server.keys.weights import expansions, weights

IGNORECASE: Final = 0x00000001
IGNORENONSPACE: Final = 0x00000002
IGNORESYMBOLS: Final = 0x00000004
DIGITS_AS_NUMBERS: Final = 0x00000008
LINGUISTIC_IGNORECASE: Final = 0x00000010
LINGUISTIC_IGNOREDIACRITIC: Final = 0x00000020
UPPERCASE: Final = 0x00000200
SORTKEY: Final = 0x00000400
BYTEREV: Final = 0x00000800
STRINGSORT: Final = 0x00001000
IGNOREKANATYPE: Final = 0x00010000
IGNOREWIDTH: Final = 0x00020000
LINGUISTIC_CASING: Final = 0x08000000

# scripts with rules of their own
_NONSPACE, _KANA_OR_MARK, _EXTENSION_A, _PUNCTUATION = 1, 3, 5, 6
_SYMBOLS: Final = range(7, 13)
_CONTEXTUAL: Final = frozenset((_NONSPACE, _KANA_OR_MARK, _PUNCTUATION))
_DIGIT, _KANA, _HEBREW, _ARABIC = 13, 34, 40, 41
_PRIVATE_USE: Final = range(169, 176)  # their weights have a third byte

# bits of the case weight
_FULL_WIDTH, _FULL_SIZE, _SUBSCRIPT, _UPPER, _HIRAGANA = 0x01, 0x02, 0x08, 0x10, 0x20
_CASE_BITS: Final = 0x3F
LIGHT: Final = b"\x01\x02"  # weights left out at the end of a level, for rstrip
_ZEROS: Final = (
    *(0x30, 0x660, 0x6F0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xE50, 0xED0, 0xF20, 0x1040, 0x1090),
    *(0x17E0, 0x1810, 0x1946, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xAA50, 0xFF10),
)
_DIGITS: Final = {zero + n: n for zero in _ZEROS for n in range(10)}

Units = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a mapping goes by: its flags, the bits of case they leave, the weights, and what stands for characters without one."""

    flags: int
    case_mask: int
    table: array[int]
    expansions: dict[int, tuple[int, ...]]


def rules(flags: int) -> Rules:
    case_mask = _CASE_BITS
    for flag, bits in ((IGNORECASE, _UPPER | _SUBSCRIPT), (IGNOREWIDTH, _FULL_WIDTH), (IGNOREKANATYPE, _HIRAGANA)):
        if flags & flag:
            case_mask &= ~bits
    return Rules(flags, case_mask, weights(), expansions())


def depends_on_neighbours(rules: Rules, unit: int) -> bool:
    """Whether what a character adds depends on the others: marks, kana, word-sort specials, numbers, ligatures."""
    script = rules.table[unit] >> 16 & 0xFF
    return script in _CONTEXTUAL or (script == _DIGIT and bool(rules.flags & DIGITS_AS_NUMBERS)) or unit in rules.expansions


def letters_end(segment: bytes) -> int:
    """Where the first level of a segment (prefix byte, then sort key) ends. No search for 01 would do: Georgian "an" has it."""
    end = 1
    while end < len(segment) and segment[end] != 1:
        end += 3 if segment[end] in _PRIVATE_USE else 4 if segment[end] == 0xFD else 2
    return end


class Levels:
    """One sort key under construction, level by level."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.flags = rules.flags
        self.primary, self.diacritic, self.case, self.special = bytearray(), bytearray(), bytearray(), bytearray()
        self.kana: list[tuple[int, int, int, int]] = []

    def add(self, text: Units, position: int) -> int:
        """Add the character there; returns how many units that took."""
        unit = text[position]
        entry = self.rules.table[unit]
        script = entry >> 16 & 0xFF
        if (script > _ARABIC and script not in _PRIVATE_USE) or _DIGIT < script < _KANA:  # most characters
            self._weigh(script, entry >> 24, entry >> 8 & 0xFF, entry & self.rules.case_mask)
        elif not script:
            for part in self.rules.expansions.get(unit, ()):
                self.add((part,), 0)
        elif script == _NONSPACE:
            self._mark(entry >> 8 & 0xFF)
        elif script == _KANA_OR_MARK:
            self._add_kana(text, position, entry)
        elif script == _EXTENSION_A:
            self.primary += bytes((0xFD, 0xFF, entry >> 24, entry >> 8 & 0xFF))
            self.diacritic.append(2)
            self.case.append(2)
        elif script == _PUNCTUATION and not self.flags & STRINGSORT:
            self._add_special(entry)
        elif script == _PUNCTUATION or script in _SYMBOLS:
            if not self.flags & IGNORESYMBOLS:
                self.primary += bytes((script, entry >> 24))
                self.diacritic.append(entry >> 8 & 0xFF)
                self.case.append(entry & self.rules.case_mask)
        elif script == _DIGIT and self.flags & DIGITS_AS_NUMBERS and unit in _DIGITS:
            return self._add_number(text, position, entry)
        else:
            self._weigh(script, entry >> 24, entry >> 8 & 0xFF, entry & self.rules.case_mask)
        return 1

    def _weigh(self, script: int, primary: int, diacritic: int, case: int) -> None:
        self.primary.append(script)
        self.primary.append(primary)
        if script in _PRIVATE_USE:
            self.primary.append(diacritic)
            self.case.append(case)
            return
        if script <= _ARABIC and script != _HEBREW:
            if self.flags & LINGUISTIC_IGNOREDIACRITIC:
                diacritic = 2
            if self.flags & LINGUISTIC_IGNORECASE:
                case = 2
        self.diacritic.append(diacritic)
        self.case.append(case)

    def _mark(self, diacritic: int) -> None:
        """A combining mark adds to the character before it."""
        if self.flags & LINGUISTIC_IGNOREDIACRITIC:
            diacritic = 2
        if self.diacritic:
            self.diacritic[-1] = self.diacritic[-1] + diacritic & 0xFF
        else:
            self.diacritic.append(diacritic)

    def _add_special(self, entry: int) -> None:
        if self.flags & IGNORESYMBOLS:
            return
        case = 2 if self.flags & LINGUISTIC_IGNORECASE else entry & self.rules.case_mask
        diacritic = 2 if self.flags & LINGUISTIC_IGNOREDIACRITIC else entry >> 8 & 0xFF
        where = 0xFFFF - len(self.primary) // 2 & 0xFFFF
        self.special += where.to_bytes(2, "big") + bytes((entry >> 24, (case | diacritic << 3) & 0xFF))

    def _add_kana(self, text: Units, position: int, entry: int) -> None:
        primary, diacritic, case = entry >> 24, entry >> 8 & 0xFF, entry & self.rules.case_mask
        detail = 3
        if primary <= 1:  # a repeat mark (0), or the prolonged sound mark (1): both take after the character before
            before = self._before_mark(text, position)
            if before is None:
                self.primary += b"\xff\xff"
                return
            script = before >> 16 & 0xFF
            if script != _KANA_OR_MARK:
                self._weigh(script, before >> 24, before >> 8 & 0xFF, 2)
                return
            detail = 4 + primary
            own_width = case & _FULL_WIDTH
            case = before & self.rules.case_mask
            if primary:
                case = case & ~_FULL_WIDTH | own_width
            primary = before >> 24 & (0x87 if primary else 0xFF)
        self.kana.append((0xC4 | case & _FULL_SIZE, detail, 0xC4 | case & _HIRAGANA, 0xC4 | case & _FULL_WIDTH))
        self._weigh(_KANA, primary, diacritic, 2)

    def _before_mark(self, text: Units, position: int) -> int | None:
        for unit in reversed(text[:position]):
            entry = self.rules.table[unit]
            script = entry >> 16 & 0xFF
            if unit in self.rules.expansions:
                return None
            if script > _NONSPACE and (script != _KANA_OR_MARK or entry >> 24 > 1):
                return entry
        return None

    def _add_number(self, text: Units, position: int, entry: int) -> int:
        """A run of digits as a number: how many it has, then two digits a byte, then how many zeros led it."""
        zero = text[position] - _DIGITS[text[position]]
        run = 1
        while run < 19 and position + run < len(text) and 0 <= text[position + run] - zero <= 9:
            run += 1
        digits = [unit - zero for unit in text[position : position + run]]
        zeros = next((n for n, digit in enumerate(digits) if digit), run)
        self.primary += bytes((_DIGIT, 2, 2 + run - zeros))
        high = 2
        for n in range(zeros, run):
            if (run - n) % 2:
                self.primary.append((high << 4) + digits[n] + 2 & 0xFF)
            else:
                high = digits[n] + 2
        self.primary.append(0xFE - zeros)
        self.diacritic.append(entry >> 8 & 0xFF)
        self.case.append(entry & self.rules.case_mask)
        return run

    def key(self) -> bytes:
        diacritic = b"" if self.flags & IGNORENONSPACE else self.diacritic.rstrip(LIGHT)
        case = b"" if self.flags & IGNORECASE else self.case.rstrip(LIGHT)
        return b"\x01".join((self.primary, diacritic, case, self._kana_level(), self.special)) + b"\x00"

    def _kana_level(self) -> bytes:
        if not self.kana:
            return b""
        usual = (0xC4 | _FULL_SIZE, 3, 0xC4 | _HIRAGANA, 0xC4 | _FULL_WIDTH)
        size, detail, katakana, width = (
            bytes(column).rstrip(bytes([common])) for column, common in zip(zip(*self.kana, strict=True), usual, strict=True)
        )
        if self.flags & IGNORENONSPACE:
            size = detail = b""
        return b"%b\xff%b\x02%b\xff%b\xff" % (size, detail, katakana, width)
