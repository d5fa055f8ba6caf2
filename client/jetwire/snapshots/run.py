"""The orchestrated snapshot: prepare, freeze all, run the provider, thaw all, verify, truncate, end.

Whatever goes wrong, every session is aborted, so nothing stays frozen; and should this process die, the sessions are
bound to its connections and die with it, and the freezes to their deadlines in any case.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jetwire._async.connection import Connection
from jetwire.errors import ConnectionLost, EngineError, JetwireError
from jetwire.snapshots import provider
from jetwire.snapshots.outcome import Outcome, RunFailed
from jetwire_protocol.data.flags import OSSnapshotPrepareGrbit, OSSnapshotTruncateLogGrbit
from jetwire_protocol.errors import Err

Journal = Callable[[str, dict[str, Any]], None]
_DIGEST_LOOK_SECONDS = 0.1
_SPEAK_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """What is to be done. `servers` are addresses; `verify` is a command that must accept the copy."""

    servers: tuple[str, ...]
    exec: tuple[str, ...]
    instances: tuple[str, ...] = ()
    kind: str = "full"  # full, incremental, copy
    lease_ms: int | None = None
    max_drain_ms: int = 5_000
    renew: bool = False
    verify: tuple[str, ...] = ()
    truncate: bool = False
    manifest: str | None = None
    manifest_seconds: float = 60.0
    token: str | None = field(default=None, repr=False)

    @property
    def grbit(self) -> OSSnapshotPrepareGrbit:
        bits = OSSnapshotPrepareGrbit.ContinueAfterThaw
        if self.kind == "incremental":
            bits |= OSSnapshotPrepareGrbit.IncrementalSnapshot
        elif self.kind == "copy":
            bits |= OSSnapshotPrepareGrbit.CopySnapshot
        return bits


@dataclass
class Member:
    """One server of the run."""

    url: str
    connection: Connection
    snap_id: int = 0
    deadline: float = 0.0
    manifest: dict[str, Any] | None = None
    verdict: dict[str, Any] | None = None

    @property
    def bind(self) -> bool:
        """Whether the session goes with this process. Over HTTP there is no connection to bind to: the server forgets it in time."""
        return not self.url.startswith("http")


@dataclass
class Report:
    """What a run says of itself; `to_json` is what `--json` prints."""

    outcome: Outcome
    message: str
    servers: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        return {"outcome": self.outcome.text, "exitCode": self.outcome.exit_code, "message": self.message, "servers": self.servers}


def _silent(step: str, facts: dict[str, Any]) -> None:
    """The journal of who wants none."""


async def run(plan: Plan, journal: Journal = _silent) -> Report:
    """Carries the plan out. Never raises for what can go wrong in a run: the report says it."""
    members = [Member(url, Connection(url, token=plan.token)) for url in plan.servers]
    try:
        await _carry_out(plan, members, journal)
        outcome, message = Outcome.CONSISTENT, "every gate was closed from freeze to thaw"
    except RunFailed as failed:
        outcome, message = failed.outcome, str(failed)
    except OSError as error:  # the journal cannot be written: nobody could take this run up again
        outcome, message = Outcome.PROVIDER_FAILED, str(error)
    except asyncio.CancelledError:
        outcome, message = Outcome.PROVIDER_FAILED, "interrupted"
    await asyncio.shield(_leave(members, abort=outcome is not Outcome.CONSISTENT))
    report = Report(outcome, message, [{"url": m.url, "snapId": m.snap_id, "verdict": m.verdict} for m in members])
    journal("over", report.to_json())
    return report


async def _carry_out(plan: Plan, members: Sequence[Member], journal: Journal) -> None:
    await _each(members, lambda m: _prepare(plan, m), Outcome.REFUSED)
    journal("prepared", {m.url: m.snap_id for m in members})
    await _each(members, lambda m: _freeze(plan, m), Outcome.REFUSED)
    journal("frozen", {m.url: m.deadline for m in members})
    manifest_path = Path(plan.manifest or Path(tempfile.mkdtemp(prefix="jetwire-")) / "manifest.json")
    _write_manifest(manifest_path, members, Outcome.REFUSED)
    renewing = asyncio.create_task(_keep_renewed(plan, members)) if plan.renew else None
    try:
        deadline = min(m.deadline for m in members)
        seconds = float("inf") if plan.renew else deadline - time.time()
        environment = {
            "JETWIRE_MANIFEST": str(manifest_path),
            "JETWIRE_SNAPSHOT_IDS": ",".join(str(m.snap_id) for m in members),
            "JETWIRE_DEADLINE": f"{deadline:.3f}",
        }
        await _provide(plan, environment, seconds, renewing)
    finally:
        if renewing is not None:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
    journal("provided", {})
    await _each(members, _thaw, Outcome.FREEZE_LOST)
    journal("thawed", {m.url: m.verdict for m in members})
    until = time.monotonic() + plan.manifest_seconds
    await _each(members, lambda m: _await_digests(m, until), Outcome.VERIFICATION_FAILED)
    _write_manifest(manifest_path, members, Outcome.VERIFICATION_FAILED)
    if plan.verify:
        await _verify(plan, members, {"JETWIRE_MANIFEST": str(manifest_path)})
        journal("verified", {})
    if plan.truncate:
        await _each(members, _truncate, Outcome.REFUSED)
        journal("truncated", {})
    await _each(members, lambda m: m.connection.OSSnapshotEnd(m.snap_id), Outcome.FREEZE_LOST)
    for member in members:
        member.snap_id = -member.snap_id  # ended: nothing to abort any more


async def _each(members: Sequence[Member], step: Callable[[Member], Awaitable[object]], failing: Outcome) -> None:
    """A step on all servers at once; waits for all of them, then fails if one did, naming it."""
    results = await asyncio.gather(*(step(m) for m in members), return_exceptions=True)
    for member, result in zip(members, results, strict=True):
        if isinstance(result, RunFailed):
            raise result
        if isinstance(result, JetwireError):
            lost = isinstance(result, ConnectionLost) and member.manifest is not None
            raise RunFailed(Outcome.FREEZE_LOST if lost else failing, f"{member.url}: {result}") from result
        if isinstance(result, BaseException):
            raise result


async def _prepare(plan: Plan, member: Member) -> None:
    await member.connection.open()
    running = {row["name"]: row["instance"] for row in (await member.connection.Hello(client="jetwire snapshot"))["instances"]}
    missing = [name for name in plan.instances if name not in running]
    if missing:
        raise RunFailed(Outcome.REFUSED, f"{member.url}: no running instance is called {', '.join(missing)}")
    member.snap_id = (await member.connection.OSSnapshotPrepare(grbit=int(plan.grbit), bind=member.bind))["snapId"]
    for name in plan.instances:
        await member.connection.OSSnapshotPrepareInstance(member.snap_id, running[name])


async def _freeze(plan: Plan, member: Member) -> None:
    frozen = await member.connection.OSSnapshotFreeze(member.snap_id, leaseMs=plan.lease_ms, maxDrainMs=plan.max_drain_ms, bind=member.bind)
    member.deadline = time.time() + frozen["remainingMs"] / 1000
    member.manifest = dict(frozen["manifest"])


async def _keep_renewed(plan: Plan, members: Sequence[Member]) -> None:
    """Renews every lease when a third of it has passed; ends with an error when a server will not any more."""
    lease_ms = plan.lease_ms or int((min(m.deadline for m in members) - time.time()) * 1000)
    while True:
        await asyncio.sleep(lease_ms / 3000)
        for member in members:
            renewed = await member.connection.SnapshotRenew(member.snap_id, lease_ms)
            member.deadline = time.time() + renewed["remainingMs"] / 1000


async def _provide(plan: Plan, environment: dict[str, str], seconds: float, renewing: asyncio.Task[None] | None) -> None:
    work = asyncio.create_task(provider.run(plan.exec, environment, seconds))
    try:
        await asyncio.wait({work, *([renewing] if renewing else [])}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done() and renewing is not None:
            raise RunFailed(Outcome.FREEZE_LOST, f"the lease was not renewed: {renewing.exception()}")
        await work
    finally:
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


async def _thaw(member: Member) -> None:
    try:
        member.verdict = dict(await member.connection.OSSnapshotThaw(member.snap_id))
    except EngineError as error:
        if error.code in (Err.OSSnapshotTimeOut, Err.OSSnapshotInvalidSnapId):
            raise RunFailed(Outcome.FREEZE_LOST, f"{member.url}: the freeze ended before the provider was done ({error.name})") from error
        raise
    if not member.verdict["held"]:
        raise RunFailed(Outcome.FREEZE_LOST, f"{member.url}: the freeze did not hold: {member.verdict}")


async def _await_digests(member: Member, until: float) -> None:
    """The counts and digests of what was frozen come after the thaw; a manifest without them is still good for files."""
    while time.monotonic() < until:
        manifest: dict[str, Any] | None = (await member.connection.call("SnapshotStatus")).get("manifest")
        if manifest and manifest["snapId"] == member.snap_id:
            member.manifest = manifest
            if all("digest" in db for i in manifest["instances"] for db in i["databases"]):
                return
        await asyncio.sleep(_DIGEST_LOOK_SECONDS)


async def _verify(plan: Plan, members: Sequence[Member], environment: dict[str, str]) -> None:
    waiting = asyncio.create_task(_speak_of(members))
    try:
        await provider.run(plan.verify, environment, float("inf"))
    except RunFailed as failed:
        raise RunFailed(Outcome.VERIFICATION_FAILED, f"{shlex.join(plan.verify)}: {failed}") from failed
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def _speak_of(members: Sequence[Member]) -> None:
    """A verification may take hours, and a server forgets a session of which nobody speaks."""
    while True:
        await asyncio.sleep(_SPEAK_SECONDS)
        for member in members:
            await member.connection.OSSnapshotGetFreezeInfo(member.snap_id)


async def _truncate(member: Member) -> None:
    await member.connection.OSSnapshotTruncateLog(member.snap_id, grbit=int(OSSnapshotTruncateLogGrbit.AllDatabasesSnapshot))


async def _leave(members: Sequence[Member], *, abort: bool) -> None:
    """Aborts what is still open, and hangs up. A server that cannot be reached thaws by itself."""
    for member in members:
        if abort and member.snap_id > 0 and member.connection.alive:
            await asyncio.gather(member.connection.OSSnapshotAbort(member.snap_id), return_exceptions=True)
        await asyncio.gather(member.connection.close(), return_exceptions=True)
        member.snap_id = abs(member.snap_id)


def _write_manifest(path: Path, members: Sequence[Member], failing: Outcome) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([{"url": m.url, **(m.manifest or {})} for m in members], indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunFailed(failing, f"the manifest cannot be written: {error}") from error
