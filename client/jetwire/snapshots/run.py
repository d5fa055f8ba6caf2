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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from jetwire._async.connection import Connection
from jetwire.errors import ConnectionLost, EngineError, JetwireError
from jetwire.snapshots import copied, provider
from jetwire.snapshots.outcome import Outcome, RunFailed
from jetwire_protocol.data.flags import OSSnapshotPrepareGrbit, OSSnapshotTruncateLogGrbit
from jetwire_protocol.errors import Err

Journal = Callable[[str, dict[str, Any]], None]
_ANSWER_SECONDS = 15.0  # a server that says nothing for so long is as good as dead; its own deadline opens its gate
_LEAVE_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_SPEAK_SECONDS = 60.0
_TIME = "{time}"


class Kind(StrEnum):
    """What a snapshot is for."""

    FULL = "full"
    INCREMENTAL = "incremental"  # of the logs alone, after a full one
    COPY = "copy"  # counts for nothing later: no incremental one after it, nothing truncated

    @property
    def bits(self) -> OSSnapshotPrepareGrbit:
        return {
            Kind.FULL: OSSnapshotPrepareGrbit(0),
            Kind.INCREMENTAL: OSSnapshotPrepareGrbit.IncrementalSnapshot,
            Kind.COPY: OSSnapshotPrepareGrbit.CopySnapshot,
        }[self]


@dataclass(frozen=True)
class Plan:
    """What is to be done. `servers` are addresses, `copy` is where the provider puts its copy, `verify` a command that must
    accept it. `{time}` in `exec`, `copy`, `verify` and `manifest` stands for the time at which the run begins."""

    servers: tuple[str, ...]
    exec: tuple[str, ...]
    instances: tuple[str, ...] = ()
    kind: Kind = Kind.FULL
    lease_ms: int | None = None
    max_drain_ms: int = 5_000
    renew: bool = False
    truncate: bool = False
    manifest_seconds: float = 60.0
    copy: str | None = None
    verify: tuple[str, ...] = ()
    manifest: str | None = None
    token: str | None = field(default=None, repr=False)

    def at(self, seconds: float) -> Plan:
        """The plan of a run that begins then: `{time}` filled in, to the millisecond, so that a run taken up at once has another."""
        now = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(seconds))}.{int(seconds * 1000) % 1000:03}Z"
        return replace(
            self,
            exec=tuple(word.replace(_TIME, now) for word in self.exec),
            verify=tuple(word.replace(_TIME, now) for word in self.verify),
            copy=self.copy and self.copy.replace(_TIME, now),
            manifest=self.manifest and self.manifest.replace(_TIME, now),
        )

    def to_json(self) -> dict[str, Any]:
        """What may be shown and noted of it."""
        facts: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        del facts["token"]
        return facts


@dataclass
class Member:
    """One server of the run."""

    url: str
    connection: Connection
    snap_id: int = 0
    deadline: float = 0.0  # of the monotonic clock
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
    members: list[Member] = []
    try:
        _begin(plan, journal)
        members = [Member(url, Connection(url, token=plan.token)) for url in plan.servers]
        await _carry_out(plan.at(time.time()), members, journal)
        outcome, message = Outcome.CONSISTENT, "every gate was closed from freeze to thaw"
    except RunFailed as failed:
        outcome, message = failed.outcome, str(failed)
    except OSError as error:  # the journal cannot be written any more: nobody could take this run up again
        outcome, message = Outcome.PROVIDER_FAILED, str(error)
    except asyncio.CancelledError:
        outcome, message = Outcome.PROVIDER_FAILED, "interrupted"
    await asyncio.shield(_leave(members, abort=outcome is not Outcome.CONSISTENT))
    report = Report(outcome, message, [{"url": m.url, "snapId": m.snap_id, "verdict": m.verdict} for m in members])
    with suppress(OSError):  # told already, or not worth a good copy
        journal("over", report.to_json())
    return report


def _begin(plan: Plan, journal: Journal) -> None:
    try:
        journal("begun", plan.to_json())
    except OSError as error:
        raise RunFailed(Outcome.REFUSED, f"the journal cannot be written: {error}") from error


async def _carry_out(plan: Plan, members: Sequence[Member], journal: Journal) -> None:
    if plan.copy:
        copied.refuse_existing(Path(plan.copy))
    await _each(members, lambda m: _prepare(plan, m), Outcome.REFUSED)
    journal("prepared", {m.url: m.snap_id for m in members})
    await _each(members, lambda m: _freeze(plan, m), Outcome.REFUSED, _ANSWER_SECONDS + max(0, plan.max_drain_ms) / 1000)
    journal("frozen", {"until": time.time() + _remaining(members)})
    manifest_path = Path(plan.manifest or Path(tempfile.mkdtemp(prefix="jetwire-")) / "manifest.json")
    _write_manifest(manifest_path, members, Outcome.REFUSED)
    await _provide(plan, members, manifest_path)
    journal("provided", {})
    await _each(members, _thaw, Outcome.FREEZE_LOST)
    journal("thawed", {m.url: m.verdict for m in members})
    if plan.copy:
        for member in members:
            copied.check(Path(plan.copy), member.manifest or {})
    until = time.monotonic() + plan.manifest_seconds
    await _each(members, lambda m: _await_digests(m, until), Outcome.VERIFICATION_FAILED, _ANSWER_SECONDS + plan.manifest_seconds)
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


async def _each(
    members: Sequence[Member], step: Callable[[Member], Awaitable[object]], failing: Outcome, seconds: float = _ANSWER_SECONDS
) -> None:
    """A step on all servers at once; waits for all of them, then fails if one did, naming it."""

    async def one(member: Member) -> None:
        async with asyncio.timeout(seconds):
            await step(member)

    results = await asyncio.gather(*(one(m) for m in members), return_exceptions=True)
    for member, result in zip(members, results, strict=True):
        if isinstance(result, RunFailed):
            raise result
        if isinstance(result, JetwireError | TimeoutError):
            lost = isinstance(result, ConnectionLost | TimeoutError) and member.manifest is not None
            why = f"no answer in {seconds:g} s" if isinstance(result, TimeoutError) else result
            raise RunFailed(Outcome.FREEZE_LOST if lost else failing, f"{member.url}: {why}") from result
        if isinstance(result, BaseException):
            raise result


async def _prepare(plan: Plan, member: Member) -> None:
    await member.connection.open()
    running = {row["name"]: row["instance"] for row in (await member.connection.Hello(client="jetwire snapshot"))["instances"]}
    missing = [name for name in plan.instances if name not in running]
    if missing:
        raise RunFailed(Outcome.REFUSED, f"{member.url}: no running instance is called {', '.join(missing)}")
    bits = plan.kind.bits | OSSnapshotPrepareGrbit.ContinueAfterThaw
    member.snap_id = (await member.connection.OSSnapshotPrepare(grbit=int(bits), bind=member.bind))["snapId"]
    for name in plan.instances:
        await member.connection.OSSnapshotPrepareInstance(member.snap_id, running[name])


async def _freeze(plan: Plan, member: Member) -> None:
    frozen = await member.connection.OSSnapshotFreeze(member.snap_id, leaseMs=plan.lease_ms, maxDrainMs=plan.max_drain_ms, bind=member.bind)
    member.deadline = time.monotonic() + frozen["remainingMs"] / 1000
    member.manifest = dict(frozen["manifest"])


async def _provide(plan: Plan, members: Sequence[Member], manifest_path: Path) -> None:
    """Runs the provider for as long as every gate is closed; when one is not, its copy is worth nothing and it is stopped."""
    environment = {
        "JETWIRE_MANIFEST": str(manifest_path),
        "JETWIRE_SNAPSHOT_IDS": ",".join(str(m.snap_id) for m in members),
        "JETWIRE_DEADLINE": f"{time.time() + _remaining(members):.3f}",
    }
    tasks = {asyncio.create_task(provider.run(plan.exec, environment)), asyncio.create_task(_guard(plan, members))}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _remaining(members: Sequence[Member]) -> float:
    return min(m.deadline for m in members) - time.monotonic()


async def _guard(plan: Plan, members: Sequence[Member]) -> None:
    """Ends, as `RunFailed`, when some freeze is lost. Until then it renews the leases if it shall, whenever a third has passed."""
    lease = _remaining(members)
    due = time.monotonic() + lease / 3
    while (left := _remaining(members)) > 0:
        if gone := next((m.url for m in members if not m.connection.alive), None):
            raise RunFailed(Outcome.FREEZE_LOST, f"{gone}: the connection was lost while the provider was at work")
        if plan.renew and time.monotonic() >= due:
            due += lease / 3
            await _each(members, lambda m: _renew(m, round(lease * 1000)), Outcome.FREEZE_LOST, left)
        await asyncio.sleep(min(_LOOK_SECONDS, left))
    raise RunFailed(Outcome.FREEZE_LOST, f"{shlex.join(plan.exec)} was still running when the freeze ended")


async def _renew(member: Member, lease_ms: int) -> None:
    renewed = await member.connection.SnapshotRenew(member.snap_id, lease_ms)
    member.deadline = time.monotonic() + renewed["remainingMs"] / 1000


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
        await asyncio.sleep(_LOOK_SECONDS)


async def _verify(plan: Plan, members: Sequence[Member], environment: dict[str, str]) -> None:
    waiting = asyncio.create_task(_speak_of(members))
    try:
        await provider.run(plan.verify, environment)
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


async def abort_left(sessions: Mapping[str, int], token: str | None) -> None:
    """Ends what an interrupted run left behind. A session that is over already is as good, and so is a server that is gone."""
    for url, snap_id in sessions.items():
        with suppress(JetwireError, TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS), Connection(url, token=token) as connection:
                await connection.OSSnapshotAbort(snap_id)


async def _leave(members: Sequence[Member], *, abort: bool) -> None:
    """Aborts what is still open, and hangs up. A server that cannot be reached, or does not answer, thaws by itself."""

    async def leave(member: Member) -> None:
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                if abort and member.snap_id > 0 and member.connection.alive:
                    await member.connection.OSSnapshotAbort(member.snap_id)
        finally:
            await member.connection.close()
            member.snap_id = abs(member.snap_id)

    await asyncio.gather(*(leave(member) for member in members), return_exceptions=True)


def _write_manifest(path: Path, members: Sequence[Member], failing: Outcome) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([{"url": m.url, **(m.manifest or {})} for m in members], indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunFailed(failing, f"the manifest cannot be written: {error}") from error
