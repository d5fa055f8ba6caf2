"""`jetwire ping` and `jetwire call`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from jetwire.cli import words
from jetwire.cli.context import answer, connected, console, settings


def ping(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many calls to make.")] = 1,
) -> None:
    """Asks whether a server is there and how long an answer takes; exit code 7 if none is."""
    with connected() as connection:
        took = []
        for _ in range(count):
            before = time.perf_counter()
            connection.Ping()
            took.append((time.perf_counter() - before) * 1000)
        facts = {"url": connection.url, "count": count, "minMs": min(took), "meanMs": sum(took) / count, "maxMs": max(took)}
        facts = {name: round(value, 3) if isinstance(value, float) else value for name, value in facts.items()}
        if settings.for_people:
            console.print(
                f"{connection.url}: {count} answered, {facts['minMs']} / {facts['meanMs']} / {facts['maxMs']} ms", highlight=False
            )
        else:
            answer(facts)


def call(
    method: Annotated[str, typer.Argument(help="Any method of the protocol, with or without Jet before it.")],
    params: Annotated[list[str] | None, typer.Argument(help="One JSON object or array, or name=value pairs.")] = None,
) -> None:
    """Makes one call and prints its result.

    A session ends with its connection, so calls that need each other go into one `Batch`, or into `jetwire shell`.

        jetwire call GetSystemParameter instance=1 paramid=CacheSizeMax
    """
    with connected() as connection:
        given = words.by_name(words.method_named(method), words.params(params or []))
        answer(words.call(connection, method, given))
