"""Truncating an instance's logs after a snapshot: what is done, and the events that tell of it."""

from __future__ import annotations

from jetwire_server.snapshot.participant import Participant

Told = list[tuple[int, dict[str, int]]]  # event ids with their arguments
_NOTHING: Told = [(225, {})]


async def truncate(participant: Participant, *, all_databases: bool) -> Told:
    """Removes the logs that only the snapshot's copy still needs, if it was of all databases and the logs are kept at all."""
    if not all_databases or participant.circular_logging():
        return _NOTHING
    gone = await participant.truncate_log()
    told: Told = [(227, {"missingCount": gone.missing})] if gone.missing else []
    return told + ([(224, {"firstLog": gone.low, "lastLog": gone.high})] if gone.low else _NOTHING)
