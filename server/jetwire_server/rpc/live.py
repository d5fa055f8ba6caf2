"""What stands at this moment, as gauges: measured when somebody looks, so that nothing counts along on a hot path."""

from __future__ import annotations

from jetwire_server.engine.engine import Engine
from jetwire_server.engine.instance import State
from jetwire_server.metrics import Gauge

INSTANCES = Gauge("jetwire_instances", "Instances that run")
DATABASES = Gauge("jetwire_databases", "Attached databases")
SESSIONS = Gauge("jetwire_sessions", "Sessions")
TRANSACTIONS = Gauge("jetwire_transactions", "Sessions within a transaction")
CURSORS = Gauge("jetwire_cursors", "Open cursors, those of temporary tables among them")
LOCKS = Gauge("jetwire_locks", "Keys locked by transactions")
VERSION_BYTES = Gauge("jetwire_version_bytes", "Versions above the pages: recent, or kept for old snapshots.")
UNSAVED_BYTES = Gauge("jetwire_unsaved_bytes", "Published changes that are not in the pages yet.")
CALLBACKS = Gauge("jetwire_callbacks", "Callbacks registered on tables")


def measure(engine: Engine | None) -> None:
    """Sets the gauges above, from all instances that run."""
    running = [] if engine is None else [one for one in engine.instances.values() if one.state in (State.RUNNING, State.STOPPED)]
    sessions = [session for instance in running for session in instance.sessions.values()]
    INSTANCES.value = len(running)
    DATABASES.value = sum(len(instance.databases) for instance in running)
    SESSIONS.value = len(sessions)
    TRANSACTIONS.value = sum(session.level > 0 for session in sessions)
    CURSORS.value = sum(len(session.cursors) for session in sessions)
    LOCKS.value = sum(instance.store.locks_held() for instance in running)
    VERSION_BYTES.value = sum(instance.store.version_bytes() for instance in running)
    UNSAVED_BYTES.value = sum(instance.store.unsaved_bytes() for instance in running)
    CALLBACKS.value = sum(len(database.callbacks) for instance in running for database in instance.databases.values())
