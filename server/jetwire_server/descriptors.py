"""How many connections may be open so that the databases never want for a file: a log that cannot go on ends its instance."""

from __future__ import annotations

import resource

from jetwire_server import limits

_ADDRESSES = 3  # HTTP, TCP, Unix


def take_all() -> int:
    """Raises this process' limit of open files as far as it may be raised (`ulimit -n` is often 1,024); answers what it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return limits.FILES_UNLIMITED if hard == resource.RLIM_INFINITY else hard


def connections_that_fit(descriptors: int, wanted: int) -> tuple[int, int]:
    """How many may be open (of HTTP, and of all others, each) and how many may wait at an address, which are taken to be told no."""
    files = min(limits.FILES_RESERVED, descriptors // 4)
    backlog = min(limits.BACKLOG, descriptors // 16)
    return max(1, min(wanted, (descriptors - files - _ADDRESSES * backlog) // 2)), max(1, backlog)


def left_for_data(descriptors: int, connections: int, backlog: int) -> int:
    """What no connection can take from databases and logs."""
    return descriptors - 2 * connections - _ADDRESSES * backlog - limits.FILES_OF_THE_SERVER
