"""Unicode sort keys beyond the stored samples: what the published algorithm says, and what readers of an index expect."""

from __future__ import annotations

from unicodedata import normalize

import pytest

from jetwire_protocol.data.flags import Coltyp
from jetwire_server.keys import NOT_DECODABLE, KeyMaker, KeySpec, SegmentSpec
from jetwire_server.keys.sortkey import sort_keys, utf16_units

DEFAULT = 0x30401


def key(text: str, flags: int = DEFAULT) -> str:
    return sort_keys(flags).units(utf16_units(text)).hex()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("é", "0e21010e01010100"),
        ("e\u0301", "0e21010e01010100"),  # the mark's weight is added to the letter's 2: the same key as composed
        ("éa", "0e210e02010e01010100"),
        ("aé", "0e020e2101020e01010100"),
        ("\ue000", "a902020101010100"),  # private use: a third byte, and no accent
    ],
)
def test_accents_and_private_use(text: str, expected: str) -> None:
    assert key(text) == expected


def test_extension_a_has_four_bytes() -> None:
    assert key("\u3400").startswith("fdff")
    assert key("\u3400") < key("\u3401")


def test_same_key() -> None:
    for a, b in [("æ", "ae"), ("ß", "ss"), ("ﬁ", "fi"), ("Straße", "strasse"), ("Ａ", "a"), ("か", "カ"), ("Ω", "ω"), ("ｶ", "か")]:
        assert key(a) == key(b), (a, b)


def test_order() -> None:
    words = ["", "_x", "1", "9", "a", "A b", "aa", "cote", "coté", "côte", "côté", "Zebra", "Ωμέγα", "Яблоко", "日本"]
    assert sorted(words, key=key) == words


def test_case_counts_unless_it_is_ignored() -> None:
    assert key("ab") == key("AB")
    assert key("ab", 0x400) < key("Ab", 0x400) < key("B", 0x400)
    assert key("ａ", 0x400) != key("a", 0x400)


def test_ignored_accents_and_symbols() -> None:
    assert key("côté", DEFAULT | 2) == key("cote", DEFAULT | 2)
    assert key("a.b-c!", DEFAULT | 4) == key("abc", DEFAULT | 4)


def test_word_sort_and_string_sort() -> None:
    words = ["co-op", "coop", "co-p", "cop"]
    assert sorted(words, key=key) == ["coop", "co-op", "cop", "co-p"]
    assert sorted(words, key=lambda w: key(w, DEFAULT | 0x1000)) == ["co-op", "co-p", "coop", "cop"]


def test_digits_as_numbers() -> None:
    names = ["a1", "a2", "a10", "a100", "b1"]
    assert sorted(names, key=lambda n: key(n, DEFAULT | 8)) == names
    assert sorted(names, key=key) != names


def test_the_case_level_is_dropped_whatever_weighs_in_it() -> None:
    for text in ("\U0001f98a", "\U0001f98a-"):  # the fox has bits in its case weight that IGNORECASE does not clear
        primary, diacritics, case, rest = bytes.fromhex(key(text)).split(b"\x01", 3)
        assert (primary.hex(), diacritics, case) == ("b040b686", b"??", b"")
        assert rest.startswith(b"\x01")


def test_kana_have_a_level_of_their_own() -> None:
    assert key("か") == "220a010101" + "ff02c4ffc4ff" + "0100"
    assert key("か", 0x400) == "220a010101" + "ff02ffff" + "0100"  # all its details are the usual ones
    assert key("カ", 0x400) == "220a010101" + "ff02c4ffff" + "0100"
    assert len({key(text) for text in ("あ", "ぁ", "ああ", "あー")}) == 4
    assert key("ぁ") < key("あ")
    assert key("が") > key("か")


def test_kana_marks_repeat_the_character_before() -> None:
    assert key("カー")[:8] == key("カア")[:8]  # the prolonged sound mark is the vowel
    assert key("ーカ").startswith("ffff")
    assert key("々") == "ffff0101010100"
    assert key("日々")[:8] == key("日日")[:8]


def test_byte_reversal() -> None:
    straight, reversed_ = bytes.fromhex(key("abc")), bytes.fromhex(key("abc", DEFAULT | 0x800))
    assert reversed_[1::2] == straight[:-1:2]
    assert reversed_[::2][: len(straight) // 2] == straight[1::2]


def test_every_utf16_unit_leaves_the_key_readable() -> None:
    """No character's weights may be taken for the end of a level."""
    maker = KeyMaker(KeySpec((SegmentSpec(Coltyp.Text, cp=1200), SegmentSpec(Coltyp.UnsignedByte))))
    unreadable = [unit for unit in range(0x10000) if maker.decode(maker.key(["a" + chr(unit) + "b", 7])) != [NOT_DECODABLE, 7]]
    assert unreadable == []


def test_composed_letters_have_the_key_of_their_decomposition() -> None:
    """Not proved by stored keys, but no accident either: the table's accents add up."""
    composed = [chr(c) for c in range(0xA0, 0x2000) if normalize("NFD", chr(c)) != chr(c)]
    equal = [c for c in composed if key(c) == key(normalize("NFD", c))]
    assert len(equal) >= 0.9 * len(composed)
    assert all(c in equal for c in "ÀÉÎÕÜçñøěřžżΆέЙё" if c in composed)
