"""The handlers, one module a group of methods: the only place where wire types meet engine types.

Importing this package registers them all.
"""

from jetwire_server.rpc.handlers import (
    backup,
    batch,
    callback,
    connection,
    cursor,
    database,
    events,
    info,
    instance,
    misc,
    record,
    retrieve,
    session,
    snapshot,
    table,
    temp_table,
)

__all__ = [
    "backup",
    "batch",
    "callback",
    "connection",
    "cursor",
    "database",
    "events",
    "info",
    "instance",
    "misc",
    "record",
    "retrieve",
    "session",
    "snapshot",
    "table",
    "temp_table",
]
