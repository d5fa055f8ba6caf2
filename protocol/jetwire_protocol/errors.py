"""The one exception that carries an engine error, from the engine through the wire to the caller."""

from __future__ import annotations

from typing import Any

from jetwire_protocol.data.codes import CATEGORIES, NAMES, Err, Wrn

__all__ = ["Err", "JetError", "Wrn"]


class JetError(Exception):
    """An ESE error: `code` is its number, `name` its documented name, `data` what else helps the caller.

    >>> raise JetError(Err.KeyDuplicate, "index byName", index="byName")
    """

    def __init__(self, code: int, detail: str = "", **data: Any) -> None:
        super().__init__(code, detail)
        self.code = int(code)
        self.detail = detail
        self.data = data

    @property
    def name(self) -> str:
        return NAMES.get(self.code, f"JET_err{self.code}")

    @property
    def category(self) -> str:
        """The engine's category of the error (`Usage`, `State`, `Corruption` ...)."""
        return CATEGORIES.get(self.code, "Unknown")

    def __str__(self) -> str:
        return f"{self.name} ({self.code})" + (f": {self.detail}" if self.detail else "")
