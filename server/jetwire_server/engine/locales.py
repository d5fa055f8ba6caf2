"""Locales of Unicode indexes: names, the old numbers, and the flags a mapping may have."""

from __future__ import annotations

import re

from jetwire_protocol.errors import Err, JetError
from jetwire_server.keys.sortkey import check_lcmap_flags

# The numbers that databases in the wild carry; any other is refused rather than sorted wrongly.
LCIDS = {
    0x007F: "",
    0x0401: "ar-SA",
    0x0404: "zh-TW",
    0x0405: "cs-CZ",
    0x0406: "da-DK",
    0x0407: "de-DE",
    0x0408: "el-GR",
    0x0409: "en-US",
    0x040A: "es-ES_tradnl",
    0x040B: "fi-FI",
    0x040C: "fr-FR",
    0x040D: "he-IL",
    0x040E: "hu-HU",
    0x0410: "it-IT",
    0x0411: "ja-JP",
    0x0412: "ko-KR",
    0x0413: "nl-NL",
    0x0414: "nb-NO",
    0x0415: "pl-PL",
    0x0416: "pt-BR",
    0x0418: "ro-RO",
    0x0419: "ru-RU",
    0x041A: "hr-HR",
    0x041B: "sk-SK",
    0x041D: "sv-SE",
    0x041E: "th-TH",
    0x041F: "tr-TR",
    0x0422: "uk-UA",
    0x0424: "sl-SI",
    0x0425: "et-EE",
    0x0426: "lv-LV",
    0x0427: "lt-LT",
    0x042A: "vi-VN",
    0x0439: "hi-IN",
    0x0804: "zh-CN",
    0x0807: "de-CH",
    0x0809: "en-GB",
    0x0816: "pt-PT",
    0x0C0A: "es-ES",
    0x0C0C: "fr-CA",
    0x1009: "en-CA",
}
LCID_OF = {name.lower(): lcid for lcid, name in LCIDS.items()}
LCID_UNSPECIFIED = 0x1000  # LOCALE_CUSTOM_UNSPECIFIED: a locale that has a name only

_NAME = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?([-_][A-Za-z0-9]{2,8})*")
_NAME_LENGTH_MAX = 85


def locale_of(lcid: int) -> str:
    """The locale of a number, or InvalidLanguageId."""
    found = LCIDS.get(lcid & 0xFFFF)  # the upper half is the sort version
    if found is None or lcid == 0:
        raise JetError(Err.InvalidLanguageId, f"lcid {lcid}")
    return found


def lcid_of(locale: str) -> int:
    return LCID_OF.get(locale.lower(), LCID_UNSPECIFIED)


def check_flags(locale: str, flags: int) -> tuple[str, int]:
    """The locale and mapping flags, or InvalidLanguageId, or what the keys say of the flags."""
    if locale and (len(locale) > _NAME_LENGTH_MAX or not _NAME.fullmatch(locale)):
        raise JetError(Err.InvalidLanguageId, f"locale {locale!r}")
    return locale, check_lcmap_flags(flags)
