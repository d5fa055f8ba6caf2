"""The engine: the instances of one server, and the handles they give out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.clock import Clock
from jetwire_server.engine.instance import Instance, State, StoreFactory
from jetwire_server.engine.parameters import Parameters
from jetwire_server.engine.session import Session
from jetwire_server.events import EventLog

_NAME_LENGTH_MAX = 255
_SERVERS_OWN = re.compile(r"tokens\.json(\.new)?|.*\.lock", re.IGNORECASE)  # files beside the instances' directories


class Engine:
    """All instances of a server. `store_factory` makes an instance's storage when it is initialised."""

    def __init__(self, clock: Clock, events: EventLog, store_factory: StoreFactory, root: str = "") -> None:
        self.clock = clock
        self.events = events
        self.store_factory = store_factory
        self.root = root
        self.parameters = Parameters()
        self.answer_bytes_max = limits.RESULT_BYTES_MAX  # of long values read by one call: no answer could have more
        self.files_max = limits.FILES_UNLIMITED  # descriptors for all instances and databases together
        self.instances: dict[int, Instance] = {}
        self.sessions: dict[int, Session] = {}
        self.created_any = False  # EnableMultiInstance comes too late then
        self._handles = 0
        self._left: dict[str, WeakSet[Session]] = {}  # by their instance's name: sessions that were open when it ended

    def new_handle(self) -> int:
        """A positive number never given before: handles of all kinds share one row, so a stale one is never mistaken."""
        self._handles += 1
        return self._handles

    async def create_instance(self, name: str | None = None, display_name: str | None = None, grbit: int = 0) -> Instance:
        """A new instance, not yet initialised. Its name is its directory."""
        if grbit:
            raise JetError(Err.InvalidGrbit)
        handle = self._handles + 1
        name = name if name is not None else f"instance{handle}"
        if not name or len(name) > _NAME_LENGTH_MAX or name.startswith(".") or any(c in "/\\" or c < " " for c in name):
            raise JetError(Err.InvalidParameter, f"instance name {name!r}: it names a directory, and does not begin with a dot")
        if _SERVERS_OWN.fullmatch(name):
            raise JetError(Err.InvalidParameter, f"instance name {name!r}: it is the name of one of the server's own files")
        if any(other.name.lower() == name.lower() for other in self.instances.values()):
            raise JetError(Err.InstanceNameInUse, name)
        if len(self.instances) >= self.parameters.number(Param.MaxInstances):
            raise JetError(Err.TooManyInstances)
        self.check_files(limits.FILES_OF_AN_INSTANCE)
        self.created_any = True
        instance = Instance(self, self.new_handle(), name, display_name or name, self.clock, self.events)
        self.instances[instance.handle] = instance
        return instance

    def check_files(self, more: int) -> None:
        """Refuses what would leave the logs of those that run without descriptors: a log that cannot open its next file has ended."""
        databases = sum(len(one.databases) for one in self.instances.values())
        taken = limits.FILES_OF_AN_INSTANCE * len(self.instances) + limits.FILES_OF_A_DATABASE * databases
        if taken + more > self.files_max:
            raise JetError(
                Err.OutOfFileHandles, f"{databases} databases in {len(self.instances)} instances are what ulimit -n has room for"
            )

    def instance(self, handle: int) -> Instance:
        found = self.instances.get(handle)
        if found is None:
            raise JetError(Err.InvalidInstance, f"instance {handle}")
        return found

    def only_instance(self) -> Instance:
        """The instance of the calls from the time when there was but one."""
        running = [i for i in self.instances.values() if i.state in (State.RUNNING, State.STOPPED)]
        if len(running) > 1:
            raise JetError(Err.RunningInMultiInstanceMode)
        alone = running or list(self.instances.values())  # of one that does not serve, the call says itself why
        if len(alone) != 1:
            raise JetError(Err.NotInitialized)
        return alone[0]

    def session(self, sesid: int) -> Session:
        found = self.sessions.get(sesid)
        if found is None:
            raise JetError(Err.InvalidSesid, f"sesid {sesid}")
        return found

    def enable_multi_instance(self, settings: list[tuple[int, Any]]) -> int:
        """Sets server-wide parameters, all before the first instance; answers how many were set."""
        if self.created_any:
            raise JetError(Err.SystemParamsAlreadySet)
        for done, (paramid, value) in enumerate(settings):
            try:
                self.parameters.set(paramid, value)
            except JetError as error:
                error.data["succeeded"] = done
                raise
        return len(settings)

    def set_parameter(self, paramid: int, value: Any) -> None:
        """A server-wide value: what belongs to instances becomes the default of those created later."""
        self.parameters.set(paramid, value)

    def forget(self, instance: Instance, sessions: Iterable[Session] = ()) -> None:
        """The instance has ended. Callers that still hold a session of it are told what becomes of its data."""
        self.instances.pop(instance.handle, None)
        self._left.setdefault(instance.name.lower(), WeakSet()).update(sessions)
        self._left = {name: left for name, left in self._left.items() if left}  # there may be any number of names in time
        self.tell_left(instance.name, Err.NotInitialized)

    def tell_left(self, name: str, refusal: Err) -> None:
        """What sessions are answered that were open when the instance of this name ended."""
        for session in self._left.get(name.lower(), ()):
            session.refusal = refusal
