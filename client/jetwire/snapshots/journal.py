"""The journal of a run, and what a later one learns from it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from jetwire.snapshots.outcome import Outcome
from jetwire.snapshots.plans import PlanError
from jetwire.snapshots.run import Plan


class _Line(msgspec.Struct):
    time: float
    step: str
    facts: dict[str, Any]


@dataclass
class Past:
    """What the runs so far came to: the last one's report if it was good, or the sessions that it left behind, by server."""

    report: dict[str, Any] | None = None
    open_sessions: dict[str, int] = field(default_factory=dict)


class Journal:
    """One JSON line a step, written as it happens. Without a path it notes nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def __call__(self, step: str, facts: dict[str, Any]) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"time": time.time(), "step": step, "facts": facts}) + "\n")

    def take_up(self, plan: Plan) -> Past:
        """What to go on from. `PlanError` if this is not the journal of runs of that plan."""
        past = Past()
        ours = True
        for line in self._lines():
            if line.step == "begun":
                ours = line.facts == plan.to_json()
            elif line.step == "prepared":
                past = Past(open_sessions=line.facts)
            elif line.step == "over":
                past = Past(report=line.facts if line.facts.get("exitCode") == Outcome.CONSISTENT.exit_code else None)
        if not ours:
            raise PlanError(f"{self._path} is the journal of another plan: give this one a journal of its own")
        return past

    def _lines(self) -> list[_Line]:
        """All that was noted; what a killed run wrote of its last line is removed, so that the next line begins properly."""
        if self._path is None:
            raise PlanError("--resume needs the --journal of the run that was interrupted")
        try:
            text = self._path.read_bytes() if self._path.exists() else b""
            whole = text[: text.rfind(b"\n") + 1]
            lines = [msgspec.json.decode(line, type=_Line) for line in whole.splitlines()]
            if whole != text:
                os.truncate(self._path, len(whole))
        except (OSError, msgspec.MsgspecError) as error:
            raise PlanError(f"{self._path} is damaged ({error}); nothing was done. Without --resume a new run begins") from error
        return lines
