"""`jetwire top`: what a server is doing, looked at again and again."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jetwire._sync.connection import Connection
from jetwire.cli import metrics
from jetwire.cli.context import answer, connected, console, settings
from jetwire.cli.render import grid
from jetwire.errors import EngineError
from jetwire.local import default_token
from jetwire_protocol.errors import Err

_LIVE = tuple(f"jetwire_{what}" for what in ("sessions", "transactions", "cursors", "locks"))


@dataclass
class Look:
    """What was seen at one moment."""

    at: float
    server: str
    instances: list[dict[str, Any]]
    snapshot: dict[str, Any]
    threadstats: dict[str, int]
    metrics: dict[str, float]
    rates: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "server": self.server,
            "instances": self.instances,
            "snapshot": self.snapshot,
            "threadstats": self.threadstats,
            "metrics": self.metrics,
            "rates": self.rates,
        }


def top(
    once: Annotated[bool, typer.Option("--once", help="Look twice, an interval apart, print and end: for scripts.")] = False,
    interval: Annotated[float, typer.Option("--interval", "-i", min=0.05, help="Seconds between two looks.")] = 1.0,
    metrics_url: Annotated[str | None, typer.Option("--metrics", help="Where /metrics is. Default: by the address.")] = None,
) -> None:
    """Shows instances, sessions, transactions, cursors, locks, the snapshot session, waiting commits, and rates of all that is counted.

    The counters come from /metrics on the server's HTTP port.
    """
    with connected() as connection:
        where = metrics_url or metrics.address_of(settings.url)
        before = look(connection, where)
        if once or not settings.for_people:
            time.sleep(interval)
            answer(since(before, look(connection, where)).to_json())
            return
        with _until_interrupted() as interrupted, Live(picture(before), console=console, screen=True, auto_refresh=False) as live:
            while not interrupted.is_set():
                time.sleep(interval)
                now = since(before, look(connection, where))
                live.update(picture(now), refresh=True)
                before = now


@contextmanager
def _until_interrupted() -> Iterator[Event]:
    """Set by the first Ctrl-C; the second is an exception as always, should a call hang.

    As an exception the first would sometimes be lost: raised inside a destructor, Python ignores it.
    """
    interrupted = Event()

    def note(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        interrupted.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    except KeyboardInterrupt:
        interrupted.set()
    finally:
        signal.signal(signal.SIGINT, before)


def look(connection: Connection, metrics_url: str) -> Look:
    hello = connection.Hello(client="jetwire top")
    try:
        stats: dict[str, Any] = dict(connection.GetThreadStats()["threadstats"])
    except EngineError as error:
        if error.code != Err.FeatureNotAvailable:
            raise
        stats = {}
    return Look(
        time.monotonic(),
        f"{hello['server']} {hello['version']} at {connection.url}, as {hello['role']}",
        [dict(row) for row in connection.GetInstanceInfo()["instances"]],
        dict(connection.SnapshotStatus()),
        stats,
        metrics.read(metrics_url, settings.token or default_token(connection.url)),
    )


def since(before: Look, now: Look) -> Look:
    """The later look, with what was counted between the two, a second. What fell was a server that restarted."""
    seconds = max(now.at - before.at, 1e-9)
    old = {**before.metrics, **{f"threadstats.{name}": value for name, value in before.threadstats.items()}}
    new = {**now.metrics, **{f"threadstats.{name}": value for name, value in now.threadstats.items()}}
    now.rates = {
        name: round((value - old[name]) / seconds, 3)
        for name, value in new.items()
        if _counts(name) and value - old.get(name, value + 1) >= 0
    }
    return now


def _counts(name: str) -> bool:
    return name.startswith("threadstats.") or name.partition("{")[0].endswith(("_total", "_count", "_sum"))


def picture(seen: Look) -> Group:
    """For a terminal: the snapshot session first, then what moves, then what stands."""
    snapshot = seen.snapshot
    facts: list[tuple[str, Any]] = [
        ("server", seen.server),
        ("snapshot", snapshot["state"]),
        ("waiting commits", snapshot["waitingCommits"]),
    ]
    standing = [f"{seen.metrics[name]:,.0f} {_plain(name)}" for name in _LIVE if name in seen.metrics]
    if standing:
        facts.append(("live", ", ".join(standing)))
    if snapshot["state"] in ("freezing", "frozen"):
        facts.append(("freeze", f"for {snapshot['frozenMs']} ms, {snapshot['remainingMs']} ms left, of {', '.join(snapshot['instances'])}"))
    for row in seen.instances:
        facts.append((f"instance {row['instanceName']}", ", ".join(row["databaseFileName"]) or "no databases"))
    return Group(grid(facts), Text(), _moving(seen), _standing(seen))


def _moving(seen: Look) -> Table:
    table = Table(title="a second", title_justify="left", header_style="bold")
    table.add_column("what")
    table.add_column("rate", justify="right")
    table.add_column("in all", justify="right")
    for name, rate in seen.rates.items():
        if name.partition("{")[0].endswith("_total"):
            table.add_row(_plain(name), f"{rate:,.1f}", f"{seen.metrics[name]:,.0f}")
    for name in _histograms(seen):
        count, total = seen.rates.get(f"{name}_count", 0), seen.rates.get(f"{name}_sum", 0)
        if count and name.endswith("_seconds"):
            table.add_row(_plain(name), f"{count:,.1f}", f"{total / count * 1000:,.3f} ms each")
    return table


def _standing(seen: Look) -> Table:
    table = Table(title="now", title_justify="left", header_style="bold")
    table.add_column("what")
    table.add_column("", justify="right")
    for name, value in seen.metrics.items():
        if not _counts(name) and name not in _LIVE:
            table.add_row(_plain(name), f"{value:,.0f}")
    return table


def _histograms(seen: Look) -> list[str]:
    return [name.removesuffix("_count") for name in seen.metrics if name.endswith("_count")]


def _plain(name: str) -> str:
    return name.removeprefix("jetwire_").removesuffix("_total").replace("_", " ")
