"""`jetwire snapshot`: the orchestrated run, and its steps one by one for hooks."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from jetwire.cli.context import answer, connected, errors, settings
from jetwire.snapshots import plans
from jetwire.snapshots.outcome import Outcome
from jetwire.snapshots.run import Plan, Report, run
from jetwire_protocol.data.flags import OSSnapshotEndGrbit, OSSnapshotPrepareGrbit, OSSnapshotTruncateLogGrbit

app = typer.Typer(no_args_is_help=True, help="Freeze servers, copy, thaw, verify - or each step by itself.")

Servers = Annotated[list[str] | None, typer.Option("--server", help="A server's address; repeat it for several. Default: --url.")]
Instances = Annotated[list[str] | None, typer.Option("--instance", help="Only these instances. Default: all that run.")]
Kind = Annotated[str, typer.Option(help="full, incremental (logs only) or copy (truncates nothing).")]
Lease = Annotated[int | None, typer.Option("--lease-ms", help="How long the freeze may last. Default: the server's parameter.")]
Drain = Annotated[int, typer.Option("--max-drain-ms", help="How long to wait for writers to leave before giving up.")]
SnapId = Annotated[int, typer.Argument(help="What `prepare` printed.")]


@app.command("run", context_settings={"allow_extra_args": True, "allow_interspersed_args": False})
def run_command(
    context: typer.Context,
    server: Servers = None,
    instance: Instances = None,
    kind: Kind = "full",
    lease_ms: Lease = None,
    max_drain_ms: Drain = 5_000,
    renew: Annotated[bool, typer.Option(help="Renew the lease while the provider runs, up to the server's maximum.")] = False,
    verify: Annotated[str | None, typer.Option(help="A command that must accept the copy; it sees JETWIRE_MANIFEST.")] = None,
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

        jetwire snapshot run --exec cp -a data /backup/data
    """
    given: dict[str, Any] = {
        "servers": tuple(server or ()) or None,
        "instances": tuple(instance or ()) or None,
        "exec": tuple(context.args) or None,
        "kind": kind if kind != "full" else None,
        "lease_ms": lease_ms,
        "max_drain_ms": max_drain_ms if max_drain_ms != 5_000 else None,
        "renew": renew or None,
        "verify": plans.words(verify),
        "truncate": truncate or None,
        "manifest": manifest,
    }
    try:
        wanted = plans.build(plan, given, default_server=settings.url, token=settings.token)
        note = plans.Journal(journal)
        if dry_run:
            answer(plans.describe(wanted))
            return
        if resume and (done := note.finished()):
            answer(done)
            raise typer.Exit(int(done["exitCode"]))
        if resume:
            asyncio.run(plans.clean_up(wanted, note))
    except plans.PlanError as error:
        errors.print(f"[red]{error}[/red]", highlight=False)
        raise typer.Exit(2) from None
    report = asyncio.run(_until_signal(wanted, note))
    answer(report.to_json())
    if report.outcome is not Outcome.CONSISTENT:
        errors.print(f"[red]{report.outcome.text}[/red]: {report.message}", highlight=False)
    raise typer.Exit(report.outcome.exit_code)


async def _until_signal(plan: Plan, journal: plans.Journal) -> Report:
    """Runs the plan; SIGINT and SIGTERM end it by aborting, not by dropping everything."""
    work = asyncio.create_task(run(plan, journal))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    return await work


@app.command()
def prepare(
    instance: Instances = None,
    kind: Kind = "full",
    end_at_thaw: Annotated[bool, typer.Option(help="Without ContinueAfterThaw: the thaw ends the session.")] = False,
) -> None:
    """Begins a snapshot session and prints its snapId."""
    bits = OSSnapshotPrepareGrbit(0) if end_at_thaw else OSSnapshotPrepareGrbit.ContinueAfterThaw
    bits |= {"incremental": OSSnapshotPrepareGrbit.IncrementalSnapshot, "copy": OSSnapshotPrepareGrbit.CopySnapshot}.get(
        kind, OSSnapshotPrepareGrbit(0)
    )
    with connected() as connection:
        running = {row["name"]: row["instance"] for row in connection.Hello(client="jetwire snapshot")["instances"]}
        if missing := [name for name in instance or () if name not in running]:
            errors.print(f"[red]no running instance is called {', '.join(missing)}[/red]", highlight=False)
            raise typer.Exit(Outcome.REFUSED.exit_code)
        snap_id = connection.OSSnapshotPrepare(grbit=int(bits))["snapId"]
        for name in instance or ():
            connection.OSSnapshotPrepareInstance(snap_id, running[name])
        answer({"snapId": snap_id})


@app.command()
def freeze(
    snap_id: SnapId,
    lease_ms: Lease = None,
    max_drain_ms: Drain = 5_000,
    manifest: Annotated[Path | None, typer.Option(help="Also write the manifest there.")] = None,
) -> None:
    """Closes the gates; from here to the thaw (or the deadline) not one byte changes."""
    with connected() as connection:
        frozen = connection.OSSnapshotFreeze(snap_id, leaseMs=lease_ms, maxDrainMs=max_drain_ms)
        if manifest is not None:
            manifest.write_text(json.dumps([frozen["manifest"]], indent=1) + "\n", encoding="utf-8")
        answer(frozen)


@app.command()
def renew(snap_id: SnapId, lease_ms: Annotated[int, typer.Argument(help="Milliseconds from now.")]) -> None:
    """A new lease from now."""
    with connected() as connection:
        answer(connection.SnapshotRenew(snap_id, lease_ms))


@app.command()
def thaw(snap_id: SnapId) -> None:
    """Opens the gates and prints the verdict; exit code 3 if the freeze was lost."""
    with connected() as connection:
        answer(connection.OSSnapshotThaw(snap_id))


@app.command()
def abort(snap_id: SnapId) -> None:
    """Thaws if need be, and ends the session as failed."""
    with connected() as connection:
        answer(connection.OSSnapshotAbort(snap_id))


@app.command()
def truncate(snap_id: SnapId) -> None:
    """Removes the logs that the snapshot made unnecessary."""
    with connected() as connection:
        answer(connection.OSSnapshotTruncateLog(snap_id, grbit=int(OSSnapshotTruncateLogGrbit.AllDatabasesSnapshot)))


@app.command()
def end(snap_id: SnapId, failed: Annotated[bool, typer.Option("--failed", help="End it as aborted.")] = False) -> None:
    """Ends the session."""
    with connected() as connection:
        answer(connection.OSSnapshotEnd(snap_id, grbit=int(OSSnapshotEndGrbit.AbortSnapshot) if failed else 0))


@app.command()
def status() -> None:
    """Where the snapshot session stands."""
    with connected() as connection:
        answer(connection.SnapshotStatus())


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A copy of a server's data directory, or of one instance's. It is changed by recovery.")],
    manifest: Annotated[Path | None, typer.Option(help="The manifest that the run wrote.")] = None,
) -> None:
    """Recovers a copy in an isolated process, checks everything, compares it with the manifest. Exit code 6 if it fails."""
    raise typer.Exit(plans.verify_copy(path, manifest))
