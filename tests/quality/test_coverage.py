"""The page of coverage is what the tests say today, and what is called impossible is neither shown nor made up."""

from __future__ import annotations

import json

from tests.coverage_page import FUNCTIONS, PAGE, page, shown
from tests.support.cannot_occur import EVERYWHERE, REASONS, reason

DOCUMENTED = {name: {*row["errors"], *row["flags"]} for name, row in json.loads(FUNCTIONS.read_text()).items()}


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.coverage_page"


def test_what_is_called_impossible_is_documented() -> None:
    for names in REASONS.values():
        for name, functions in names.items():
            if functions == (EVERYWHERE,):
                assert any(name in documented for documented in DOCUMENTED.values()), name
            else:
                assert [function for function in functions if name not in DOCUMENTED[function]] == [], name


def test_what_is_called_impossible_is_not_shown() -> None:
    assert [entry for entry in shown() if reason(*entry)] == []
