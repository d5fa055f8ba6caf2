"""`jetwire snapshot`: the orchestrated run, and its steps one by one for hooks."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from jetwire._sync.connection import Connection
from jetwire.cli.context import Wrong, answer, connected, fail, say, settings
from jetwire.errors import EngineError
from jetwire.snapshots import plans
from jetwire.snapshots.journal import Journal, Past
from jetwire.snapshots.outcome import Outcome
from jetwire.snapshots.run import Kind, Plan, Report, abort_left, run
from jetwire_protocol.data.flags import OSSnapshotEndGrbit, OSSnapshotPrepareGrbit, OSSnapshotTruncateLogGrbit
from jetwire_protocol.errors import Err

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

app = typer.Typer(no_args_is_help=True, help="Freeze servers, copy, thaw, verify - or each step by itself.")

Servers = Annotated[list[str] | None, typer.Option("--server", help="A server's address; repeat it for several. Default: --url.")]
Instances = Annotated[list[str] | None, typer.Option("--instance", help="Only these instances. Default: all that run.")]
Kinds = Annotated[Kind, typer.Option(help="full, incremental (logs only) or copy (truncates nothing).")]
Lease = Annotated[int | None, typer.Option("--lease-ms", help="How long the freeze may last. Default: the server's parameter.")]
Drain = Annotated[int, typer.Option("--max-drain-ms", help="How long to wait for writers to leave before giving up.")]
SnapId = Annotated[int, typer.Argument(help="What `prepare` printed.")]


@app.command("run", context_settings={"allow_extra_args": True, "allow_interspersed_args": False})
def run_command(
    context: typer.Context,
    server: Servers = None,
    instance: Instances = None,
    kind: Kinds = Kind.FULL,
    lease_ms: Lease = None,
    max_drain_ms: Drain = 5_000,
    renew: Annotated[bool, typer.Option(help="Renew the lease while the provider runs, up to the server's maximum.")] = False,
    verify: Annotated[str | None, typer.Option(help="A command that must accept the copy, such as `jetwire snapshot verify COPY`.")] = None,
    copy: Annotated[str | None, typer.Option(help="Where the command puts its copy: not there before, whole afterwards.")] = None,
    truncate: Annotated[bool, typer.Option(help="Truncate the logs after a good snapshot.")] = False,
    manifest: Annotated[str | None, typer.Option(help="Where to write the manifest.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A JSON file with all of this; options on the line win.")] = None,
    journal: Annotated[Path | None, typer.Option(help="Where to note each step; needed for --resume.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on after a run that was interrupted: clean up, then run again if need be.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show what would be done and touch nothing.")] = False,
    exec_: Annotated[bool, typer.Option("--exec", help="What follows is the provider's command.")] = False,
) -> None:
    """Prepare, freeze, run a command, thaw, verify, truncate, end.

    Exit codes: 0 consistent, 3 freeze lost, 4 refused, 5 provider failed, 6 verification failed.

        jetwire snapshot run --copy /backup/data --exec cp -a data /backup/data

    `{time}` in the command, --copy, --verify and --manifest stands for the time at which the run begins.
    """
    given: dict[str, Any] = {
        "servers": tuple(server or ()) or None,
        "instances": tuple(instance or ()) or None,
        "exec": tuple(context.args) or None,
        "kind": kind if kind is not Kind.FULL else None,
        "lease_ms": lease_ms,
        "max_drain_ms": max_drain_ms if max_drain_ms != 5_000 else None,
        "renew": renew or None,
        "truncate": truncate or None,
        "copy": copy,
        "manifest": manifest,
    }
    try:
        wanted = plans.build(plan, given | {"verify": plans.words(verify)}, default_server=settings.url, token=settings.token)
        note = Journal(journal)
        if dry_run:
            answer(plans.describe(wanted))
            return
        past = note.take_up(wanted) if resume else Past()
    except plans.PlanError as error:
        fail(Wrong(str(error)))
    if past.report is not None:
        answer(past.report)
        return
    asyncio.run(abort_left(past.open_sessions, settings.token))
    report = asyncio.run(_until_signal(wanted, note))
    answer(report.to_json())
    if report.outcome is not Outcome.CONSISTENT:
        say(Wrong(f"{report.outcome.text}: {report.message}"))
    raise typer.Exit(report.outcome.exit_code)


async def _until_signal(plan: Plan, journal: Journal) -> Report:
    """Runs the plan; a signal ends it by aborting, not by dropping everything. A second one changes nothing."""
    work = asyncio.create_task(run(plan, journal))
    loop = asyncio.get_running_loop()

    def end(*_: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if not loop.is_closed():
            loop.call_soon_threadsafe(work.cancel)

    for number in _SIGNALS:
        signal.signal(number, end)  # not the loop's: its handlers end with it, and the report is still to be printed
    return await work


@contextmanager
def step(refused: bool = False) -> Iterator[Connection]:
    """A connection for one step. An error of the engine ends it with the exit code that says the same as in a run."""
    with connected() as connection:
        try:
            yield connection
        except EngineError as error:
            if error.code == Err.OSSnapshotTimeOut:
                say(error)
                raise typer.Exit(Outcome.FREEZE_LOST.exit_code) from None
            if refused:
                say(error)
                raise typer.Exit(Outcome.REFUSED.exit_code) from None
            raise


@app.command()
def prepare(
    instance: Instances = None,
    kind: Kinds = Kind.FULL,
    end_at_thaw: Annotated[bool, typer.Option(help="Without ContinueAfterThaw: the thaw ends the session.")] = False,
) -> None:
    """Begins a snapshot session and prints its snapId. Exit code 4 if the server refuses."""
    bits = kind.bits | (OSSnapshotPrepareGrbit(0) if end_at_thaw else OSSnapshotPrepareGrbit.ContinueAfterThaw)
    with step(refused=True) as connection:
        running = {row["name"]: row["instance"] for row in connection.Hello(client="jetwire snapshot")["instances"]}
        if missing := [name for name in instance or () if name not in running]:
            say(Wrong(f"no running instance is called {', '.join(missing)}"))
            raise typer.Exit(Outcome.REFUSED.exit_code)
        snap_id = connection.OSSnapshotPrepare(grbit=int(bits))["snapId"]
        try:
            for name in instance or ():
                connection.OSSnapshotPrepareInstance(snap_id, running[name])
        except EngineError:
            connection.OSSnapshotAbort(snap_id)
            raise
        answer({"snapId": snap_id})


@app.command()
def freeze(
    snap_id: SnapId,
    lease_ms: Lease = None,
    max_drain_ms: Drain = 5_000,
    manifest: Annotated[Path | None, typer.Option(help="Also write the manifest there.")] = None,
) -> None:
    """Closes the gates; from here to the thaw (or the deadline) not one byte changes. Exit code 4 if the server refuses."""
    with step(refused=True) as connection:
        frozen = connection.OSSnapshotFreeze(snap_id, leaseMs=lease_ms, maxDrainMs=max_drain_ms)
        try:
            if manifest is not None:
                manifest.write_text(json.dumps([frozen["manifest"]], indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            connection.OSSnapshotAbort(snap_id)
            say(Wrong(f"the manifest cannot be written, the session was aborted: {error}"))
            raise typer.Exit(Outcome.REFUSED.exit_code) from None
        answer(frozen)


@app.command()
def renew(snap_id: SnapId, lease_ms: Annotated[int, typer.Argument(help="Milliseconds from now.")]) -> None:
    """A new lease from now."""
    with step() as connection:
        answer(connection.SnapshotRenew(snap_id, lease_ms))


@app.command()
def thaw(snap_id: SnapId) -> None:
    """Opens the gates and prints the verdict; exit code 3 if the freeze was lost."""
    with step() as connection:
        verdict = connection.OSSnapshotThaw(snap_id)
    answer(verdict)
    if not verdict["held"]:
        raise typer.Exit(Outcome.FREEZE_LOST.exit_code)


@app.command()
def abort(snap_id: SnapId) -> None:
    """Thaws if need be, and ends the session as failed."""
    with step() as connection:
        answer(connection.OSSnapshotAbort(snap_id))


@app.command()
def truncate(snap_id: SnapId) -> None:
    """Removes the logs that the snapshot made unnecessary."""
    with step() as connection:
        answer(connection.OSSnapshotTruncateLog(snap_id, grbit=int(OSSnapshotTruncateLogGrbit.AllDatabasesSnapshot)))


@app.command()
def end(snap_id: SnapId, failed: Annotated[bool, typer.Option("--failed", help="End it as aborted.")] = False) -> None:
    """Ends the session; exit code 3 if the freeze was lost and no thaw has said so yet."""
    with step() as connection:
        answer(connection.OSSnapshotEnd(snap_id, grbit=int(OSSnapshotEndGrbit.AbortSnapshot) if failed else 0))


@app.command()
def status() -> None:
    """Where the snapshot session stands."""
    with connected() as connection:
        answer(connection.SnapshotStatus())


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A copy of a server's data directory, or of one instance's.")],
    manifest: Annotated[
        Path | None, typer.Option(envvar="JETWIRE_MANIFEST", help="The manifest that the run wrote; a run's --verify knows it.")
    ] = None,
) -> None:
    """Recovers a copy in an isolated process, checks everything, compares it with the manifest, and notes the result beside it.

    Exit codes: 0 good, 6 not good, 2 it could not be tried.
    """
    # A process of its own, of the server's package: this one never opens a data file.
    daemon = shutil.which("jetwired") or str(Path(sys.executable).with_name("jetwired"))
    command = [daemon, "verify", str(path)]
    command += ["--manifest", str(manifest)] if manifest else []
    command += ["--json"] if settings.as_json else []
    try:
        done = subprocess.run(command, check=False, stderr=subprocess.PIPE if settings.as_json else None, text=True, errors="replace")
    except OSError as error:
        fail(Wrong(f"{daemon}: {error}; verification needs the server's package on this machine"))
    if done.stderr:
        say(Wrong(done.stderr.strip().removeprefix("jetwired: ")))
    status = done.returncode
    raise typer.Exit(status if status >= 0 else Outcome.VERIFICATION_FAILED.exit_code)
