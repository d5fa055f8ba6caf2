"""Plans as files, the journal of a run, and how a run that was interrupted is taken up again."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from jetwire._async.connection import Connection
from jetwire.errors import JetwireError
from jetwire.snapshots.outcome import Outcome
from jetwire.snapshots.provider import PROVIDERS
from jetwire.snapshots.run import Plan

_FIELDS = {f.name for f in fields(Plan)} - {"token"}
_TUPLES = ("servers", "exec", "instances", "verify")


class PlanError(Exception):
    """A plan that cannot be carried out, with what to do about it."""


def words(command: str | None) -> tuple[str, ...] | None:
    return tuple(shlex.split(command)) if command else None


def build(path: Path | None, given: Mapping[str, Any], *, default_server: str, token: str | None) -> Plan:
    """A plan from its file, with what was given on the command line on top."""
    merged: dict[str, Any] = {}
    if path is not None:
        merged = _read(path)
    merged |= {name: value for name, value in given.items() if value is not None}
    merged.setdefault("servers", (default_server,))
    provider = merged.pop("provider", None)
    if provider is not None and "exec" not in merged:
        merged["exec"] = _provider(provider)
    if not merged.get("exec"):
        raise PlanError("no provider: end the line with --exec COMMAND, or name one in the plan")
    if merged.get("kind", "full") not in ("full", "incremental", "copy"):
        raise PlanError(f"kind {merged['kind']!r} is not full, incremental or copy")
    for name in _TUPLES:
        if name in merged:
            merged[name] = tuple(merged[name])
    return Plan(**merged, token=token)


def _read(path: Path) -> dict[str, Any]:
    try:
        merged = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: {error}") from error
    if not isinstance(merged, dict) or (unknown := merged.keys() - _FIELDS - {"provider"}):
        raise PlanError(f"{path}: {', '.join(sorted(unknown)) if isinstance(merged, dict) else 'the plan'} is not known")
    return merged


def _provider(spec: Any) -> list[str]:
    try:
        return PROVIDERS[spec["name"]](spec["source"], spec["target"])
    except (KeyError, TypeError):
        raise PlanError(f"a provider has a name ({', '.join(PROVIDERS)}), a source and a target") from None


def describe(plan: Plan) -> dict[str, Any]:
    """What a dry run prints: the plan and its steps, in order."""
    steps = ["prepare", "freeze", f"run {shlex.join(plan.exec)}", "thaw"]
    steps += [f"verify with {shlex.join(plan.verify)}"] if plan.verify else []
    steps += ["truncate logs"] if plan.truncate else []
    facts = {name: value for name, value in asdict(plan).items() if name != "token"}
    return {"plan": facts, "steps": [*steps, "end"]}


class Journal:
    """One JSON line a step, flushed as it happens. Without a path it notes nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def __call__(self, step: str, facts: dict[str, Any]) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"time": time.time(), "step": step, "facts": facts}) + "\n")

    def steps(self) -> list[dict[str, Any]]:
        if self._path is None or not self._path.exists():
            return []
        lines = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break  # the last line, torn when the run was killed
        return lines

    def finished(self) -> dict[str, Any] | None:
        """The report of the run that this journal tells of, if it came to its end well."""
        steps = self.steps()
        if steps and steps[-1]["step"] == "over" and steps[-1]["facts"]["exitCode"] == Outcome.CONSISTENT.exit_code:
            facts: dict[str, Any] = steps[-1]["facts"]
            return facts
        return None

    def open_sessions(self) -> dict[str, int]:
        """The sessions that the last run in this journal left behind, by server."""
        left: dict[str, int] = {}
        for line in self.steps():
            if line["step"] == "prepared":
                left = dict(line["facts"])
            elif line["step"] == "over":
                left = {}
        return left


async def clean_up(plan: Plan, journal: Journal) -> None:
    """Aborts what an interrupted run left behind. A session that is over already is as good."""
    for url, snap_id in journal.open_sessions().items():
        try:
            async with Connection(url, token=plan.token) as connection:
                await connection.OSSnapshotAbort(snap_id)
        except JetwireError:
            continue


def verify_copy(path: Path, manifest: Path | None) -> int:
    """`jetwired verify` on a copy, in a process of its own: this package never opens a data file."""
    daemon = shutil.which("jetwired") or str(Path(sys.executable).with_name("jetwired"))
    command = [daemon, "verify", str(path), *(["--manifest", str(manifest)] if manifest else [])]
    try:
        status = subprocess.run(command, check=False).returncode
    except OSError as error:
        raise PlanError(f"{daemon}: {error}; verification needs the server's package on this machine") from error
    return Outcome.CONSISTENT.exit_code if status == 0 else Outcome.VERIFICATION_FAILED.exit_code
