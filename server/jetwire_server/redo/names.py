"""The names of the log's files, as ESE has them: `edb.log`, `edb0000000A.log`, `edbtmp.log`, `edb.chk`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jetwire_protocol.errors import Err, JetError

_BASE = re.compile(r"[A-Za-z0-9]{3}")


@dataclass(frozen=True, slots=True)
class LogNames:
    """All paths of one log: `directory` below the root of the file layer, `base` of three letters (JET_paramBaseName)."""

    directory: str = ""
    base: str = "edb"

    def __post_init__(self) -> None:
        if not _BASE.fullmatch(self.base):
            raise JetError(Err.InvalidParameter, f"a log's base name is three letters or digits, not {self.base!r}")

    def path(self, name: str) -> str:
        return f"{self.directory}/{name}" if self.directory else name

    @property
    def current(self) -> str:
        """The generation that is being written."""
        return self.path(f"{self.base}.log")

    @property
    def prepared(self) -> str:
        """The next one, prepared ahead."""
        return self.path(f"{self.base}tmp.log")

    @property
    def checkpoint(self) -> str:
        return self.path(f"{self.base}.chk")

    def archived(self, generation: int) -> str:
        """A generation that is full: its number in eight hexadecimal digits."""
        return self.path(f"{self.base}{generation:08X}.log")

    def number(self, name: str) -> int | None:
        """The generation a full log file's name says, None for any other name."""
        match = re.fullmatch(rf"{self.base}([0-9A-F]{{8}})\.log", name)
        return int(match[1], 16) if match else None
