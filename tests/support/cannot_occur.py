"""Documented errors and flags that no call can get from Jetwire, and why: a reason, and who is meant by it.

Strict: what could occur and was merely never tried does not belong here. `EVERYWHERE` stands for all functions that
document the name. A name that is shown after all fails a test (tests/quality/test_coverage.py).
"""

from __future__ import annotations

EVERYWHERE = "*"

# reason -> C name of an error or flag -> the functions it is impossible for
REASONS: dict[str, dict[str, tuple[str, ...]]] = {}


def reason(function: str, name: str) -> str | None:
    """Why the function never answers it; None if it can."""
    for why, names in REASONS.items():
        if function in names.get(name, ()) or EVERYWHERE in names.get(name, ()):
            return why
    return None
