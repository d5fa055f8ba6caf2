"""Plans: read from files and from the command line, checked before anything is touched."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec

from jetwire import address
from jetwire.errors import JetwireError
from jetwire.snapshots.provider import PROVIDERS
from jetwire.snapshots.run import Plan

_NAMES = {f.name for f in fields(Plan)} - {"token"} | {"provider"}


class PlanError(JetwireError):
    """A plan that cannot be carried out, with what to do about it."""


class Provider(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In a plan's file, in place of `exec`: one of `PROVIDERS`, what it shall copy, and where to."""

    name: str
    source: str
    target: str


def words(command: str | None) -> tuple[str, ...] | None:
    try:
        return tuple(shlex.split(command)) if command else None
    except ValueError as error:
        raise PlanError(f"{command}: {error}") from None


def build(path: Path | None, given: Mapping[str, Any], *, default_server: str, token: str | None) -> Plan:
    """A plan from its file, with what was given on the command line on top."""
    merged: dict[str, Any] = {"servers": [default_server]}
    merged |= _read(path) if path is not None else {}
    merged |= {name: value for name, value in given.items() if value is not None}
    try:
        if "provider" in merged and not given.get("exec"):
            named = msgspec.convert(merged["provider"], Provider)
            merged |= {"exec": _command(named), "copy": merged.get("copy", named.target)}
        merged.pop("provider", None)
        if not merged.get("exec"):
            raise PlanError("no provider: end the line with --exec COMMAND, or name one in the plan")
        plan = msgspec.convert(merged, Plan)
        if not plan.servers:
            raise PlanError("the plan names no server")
        for url in plan.servers:
            address.parse(url)
    except (msgspec.ValidationError, JetwireError) as error:
        raise PlanError(f"{path}: {error}" if path else str(error)) from None
    return replace(plan, token=token)


def _read(path: Path) -> dict[str, Any]:
    try:
        merged = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: {error}") from error
    if not isinstance(merged, dict):
        raise PlanError(f"{path}: a plan is a JSON object")
    if unknown := merged.keys() - _NAMES:
        raise PlanError(f"{path}: {', '.join(sorted(unknown))} is not known; a plan has {', '.join(sorted(_NAMES))}")
    return merged


def _command(provider: Provider) -> list[str]:
    if provider.name not in PROVIDERS:
        raise PlanError(f"no provider is called {provider.name}; there are {', '.join(PROVIDERS)}")
    return PROVIDERS[provider.name](provider.source, provider.target)


def describe(plan: Plan) -> dict[str, Any]:
    """What a dry run prints: the plan and its steps, in order."""
    steps = ["prepare", "freeze", f"run {shlex.join(plan.exec)}", "thaw"]
    steps += [f"look for the copy in {plan.copy}"] if plan.copy else []
    steps += [f"verify with {shlex.join(plan.verify)}"] if plan.verify else []
    steps += ["truncate logs"] if plan.truncate else []
    return {"plan": plan.to_json(), "steps": [*steps, "end"]}
