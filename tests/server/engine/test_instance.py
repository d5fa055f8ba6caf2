"""Instances: names, life, StopService, parameters, legacy calls."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jetwire_protocol.data.flags import Cbtyp, StopServiceInstanceGrbit, TermGrbit
from jetwire_protocol.data.parameters import PARAMETERS, Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server.clock import ManualClock
from jetwire_server.engine import parameters as table_of_parameters
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.parameters import EFFECTIVE
from jetwire_server.engine.session import Session
from jetwire_server.events import Event, EventLog
from jetwire_server.store.memory import MemoryStore
from tests.server.engine.refusals import refused, refused_now
from tests.server.engine.tables_for_tests import insert, make_table


class Shaky(MemoryStore):
    """A store that can be told that its disk is gone."""

    trouble: tuple[str, ...] = ()

    def problems(self) -> tuple[str, ...]:
        return self.trouble


async def test_names_are_unique_and_stay_in_the_data_directory(engine: Engine) -> None:
    await engine.create_instance("a")
    await refused(engine.create_instance("A"), Err.InstanceNameInUse)
    for name in ("", "..", ".server", "a/b", "a\\b", "x" * 256, "a\0b", "tokens.json", "Jetwire.LOCK"):
        await refused(engine.create_instance(name), Err.InvalidParameter)
    first, second = await engine.create_instance(), await engine.create_instance()
    assert first.name != second.name


async def test_too_many_instances(engine: Engine) -> None:
    engine.set_parameter(Param.MaxInstances, 2)
    await engine.create_instance("a")
    gone = await engine.create_instance("b")
    await refused(engine.create_instance("c"), Err.TooManyInstances)
    await gone.term()
    await engine.create_instance("c")


async def test_a_life(engine: Engine) -> None:
    instance = await engine.create_instance("a")
    await refused(instance.begin_session(), Err.NotInitialized)
    await instance.init()
    await refused(instance.init(), Err.AlreadyInitialized)
    await instance.begin_session()
    await instance.term()
    refused_now(lambda: engine.instance(instance.handle), Err.InvalidInstance)
    await refused(instance.begin_session(), Err.InvalidInstance)
    again = await engine.create_instance("a")
    await again.init()


async def test_a_failed_start_may_be_tried_again(clock: ManualClock) -> None:
    class Broken(MemoryStore):
        async def start(self, *, without_missing: bool = False, without_lost_end: bool = False, truncate_log: bool = False) -> bool:
            raise JetError(Err.MissingLogFile, "edb00000001.log")

    stores = [Broken(clock), MemoryStore(clock)]
    engine = Engine(clock, EventLog(), lambda instance: stores.pop(0))
    instance = await engine.create_instance("a")
    await refused(instance.init(), Err.MissingLogFile)
    await refused(instance.begin_session(), Err.NotInitialized)
    await instance.init()
    await instance.begin_session()


async def test_term_complete_and_attaching_wait_for_no_backup(instance: Instance, session: Session) -> None:
    instance.snapshot_holds.add(1)
    await refused(instance.term(int(TermGrbit.TermComplete)), Err.BackupInProgress)
    await refused(session.create_database("a.edb"), Err.BackupInProgress)
    await refused(session.attach_database("a.edb"), Err.BackupInProgress)
    await refused(session.detach_database("a.edb"), Err.BackupInProgress)
    await refused(instance.term(0x100), Err.InvalidGrbit)
    instance.snapshot_holds.clear()
    await instance.term(int(TermGrbit.TermComplete))


async def test_other_terms_wait_for_the_snapshot_but_a_server_that_ends_does_not(engine: Engine, instance: Instance) -> None:
    second = await engine.create_instance("b")
    await second.init()
    instance.snapshot_holds.add(1)
    second.snapshot_holds.add(1)
    ending = asyncio.create_task(instance.term())
    await asyncio.sleep(0.1)
    assert not ending.done()
    await refused(instance.begin_session(), Err.TermInProgress)
    await refused(instance.term(), Err.TermInProgress)
    await second.shut_down()
    instance.snapshot_holds.clear()
    await ending
    assert engine.instances == {}


async def test_after_stop_service_only_giving_back_works(instance: Instance, session: Session, dbid: int) -> None:
    cursor = await session.create_table(dbid, "t")
    await session.begin_transaction()
    refused_now(lambda: instance.stop_service(int(StopServiceInstanceGrbit.StopServiceResume)), Err.InvalidParameter)
    instance.stop_service(int(StopServiceInstanceGrbit.StopServiceBackgroundUserTasks))
    instance.stop_service(int(StopServiceInstanceGrbit.StopServiceBackgroundUserTasks | StopServiceInstanceGrbit.StopServiceResume))
    await session.begin_transaction()
    instance.stop_service()
    stopped = Err.ClientRequestToStopJetService
    await refused(session.begin_transaction(), stopped)
    await refused(session.commit_transaction(), stopped)
    await refused(session.open_table(dbid, "t"), stopped)
    await refused(session.dup_session(), stopped)
    await refused(instance.begin_session(), stopped)
    refused_now(lambda: instance.stop_service(int(StopServiceInstanceGrbit.StopServiceResume)), Err.InvalidParameter)
    await session.rollback()
    await session.rollback()
    await session.close_table(cursor.id)
    await session.close_database(dbid)
    await session.detach_database("test.edb")
    await session.end_session()
    await instance.term()


async def test_after_a_failed_write_nothing_is_served(clock: ManualClock) -> None:
    store = Shaky(clock)
    engine = Engine(clock, EventLog(), lambda instance: store)
    instance = await engine.create_instance("a")
    await instance.init()
    store.trouble = ("the log could not be synced",)
    await refused(instance.begin_session(), Err.InstanceUnavailable)
    await instance.term()


async def test_legacy_calls_need_exactly_one_instance(engine: Engine, instance: Instance) -> None:
    assert engine.only_instance() is instance
    second = await engine.create_instance("b")
    assert engine.only_instance() is instance
    await second.init()
    refused_now(engine.only_instance, Err.RunningInMultiInstanceMode)
    await second.term()
    await instance.term()
    refused_now(engine.only_instance, Err.NotInitialized)


async def test_enable_multi_instance_is_for_a_fresh_server(engine: Engine) -> None:
    assert engine.enable_multi_instance([(Param.MaxInstances, 3), (Param.OSSnapshotTimeout, 1000)]) == 2
    error = refused_now(lambda: engine.enable_multi_instance([(Param.MaxInstances, 4), (Param.MaxInstances, 0)]), Err.InvalidParameter)
    assert error.data["succeeded"] == 1
    await engine.create_instance("a")
    refused_now(lambda: engine.enable_multi_instance([]), Err.SystemParamsAlreadySet)


# -- parameters -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("paramid", PARAMETERS)
async def test_every_parameter_by_its_own_table(engine: Engine, paramid: int) -> None:
    kind, _, low, high, scope, mutable, _ = PARAMETERS[paramid]
    instance = await engine.create_instance("a")
    before = instance.parameters.get(paramid)
    if mutable == "read_only":
        refused_now(lambda: instance.set_parameter(paramid, before), Err.InvalidParameter)
        return
    good: Any = {"int": high if high is not None else 5, "bool": 1, "string": "x" * max(low or 0, 3)}.get(kind)
    if paramid == Param.DatabasePageSize:
        good = 8192
    instance.set_parameter(paramid, good)
    assert instance.parameters.get(paramid) == good
    if scope == "global":
        assert engine.parameters.get(paramid) == good
    wrong: list[Any] = []
    if kind == "int":
        wrong = ["text", (low or 0) - 1] + ([] if high is None else [high + 1])
    elif kind == "string" and high is not None:
        wrong = [5, "x" * (high + 1)]
    for value in wrong:
        with pytest.raises(JetError):
            instance.set_parameter(paramid, value)
        assert instance.parameters.get(paramid) == good
    await instance.init()
    change: Callable[[], None] = lambda: instance.set_parameter(paramid, good)  # noqa: E731
    if mutable == "before_init":
        refused_now(change, Err.AlreadyInitialized)
    else:
        change()


async def test_advanced_parameters_are_forgotten_while_not_enabled(engine: Engine) -> None:
    instance = await engine.create_instance("a")
    instance.set_parameter(Param.EnableAdvanced, 0)
    before = instance.parameters.get(Param.MaxCursors)
    instance.set_parameter(Param.MaxCursors, 17)
    assert instance.parameters.get(Param.MaxCursors) == before
    instance.set_parameter(Param.EnableAdvanced, 1)
    instance.set_parameter(Param.MaxCursors, 17)
    assert instance.parameters.get(Param.MaxCursors) == 17


async def test_server_wide_values_reach_later_instances_only(engine: Engine) -> None:
    early = await engine.create_instance("a")
    engine.set_parameter(Param.LogFileSize, 128)
    late = await engine.create_instance("b")
    assert late.parameters.get(Param.LogFileSize) == 128
    assert early.parameters.get(Param.LogFileSize) == 5120


async def test_paths_stay_inside_and_unknown_ids_are_wrong(engine: Engine) -> None:
    refused_now(lambda: engine.set_parameter(Param.LogFilePath, "../elsewhere"), Err.InvalidPath)
    refused_now(lambda: engine.set_parameter(Param.SystemPath, "x" * 247), Err.InvalidPath)
    refused_now(lambda: engine.set_parameter(21, 1), Err.InvalidParameter)
    refused_now(lambda: engine.parameters.get(9999), Err.InvalidParameter)
    refused_now(lambda: engine.set_parameter(Param.IndexTuplesLengthMin, 1), Err.IndexTuplesInvalidLimits)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({}, [102, 105, 219]),
        ({"NoInformationEvent": 1}, [219]),
        ({"EventLoggingLevel": 0}, []),
        ({"EventLoggingLevel": 25}, [102, 105, 219]),
    ],
)
async def test_what_goes_into_the_event_log(clock: ManualClock, parameters: dict[str, int], told: list[int]) -> None:
    events, seen = EventLog(), list[Event]()
    events.listen(seen.append)
    instance = await Engine(clock, events, lambda instance: MemoryStore(clock)).create_instance("a")
    for name, value in parameters.items():
        instance.set_parameter(Param[name], value)
    await instance.init()
    instance.emit(219, error=-1)
    assert [event.id for event in seen] == told


async def test_callbacks_can_be_switched_off(engine: Engine) -> None:
    instance = await engine.create_instance("mute")
    instance.set_parameter(Param.DisableCallbacks, 1)
    await instance.init()
    session = await instance.begin_session()
    cursor = await make_table(session, await session.create_database("a.edb"))
    told: list[int] = []
    cursor.database.callbacks.register(cursor, Cbtyp.BeforeInsert, lambda number, at, what, arg: told.append(what))
    await insert(cursor, id=1)
    assert told == []


@pytest.mark.parametrize("paramid", sorted(EFFECTIVE), ids=lambda paramid: Param(paramid).name)
def test_what_is_said_to_have_an_effect_is_looked_at(paramid: int) -> None:
    """Outside the table of parameters somebody must ask for it."""
    room = Path(table_of_parameters.__file__).parents[1]
    sources = [p.read_text() for p in room.rglob("*.py") if p != Path(table_of_parameters.__file__)]
    assert any(re.search(rf"Param\.{Param(paramid).name}\b", source) for source in sources)


@pytest.mark.parametrize("hurry", [False, True])
async def test_term_goes_on_when_its_caller_has_gone(engine: Engine, instance: Instance, hurry: bool) -> None:
    instance.snapshot_holds.add(1)
    ending = asyncio.create_task(instance.term())
    await asyncio.sleep(0.01)
    ending.cancel()
    await asyncio.wait([ending])
    assert ending.cancelled()
    await refused(instance.begin_session(), Err.TermInProgress)
    if hurry:
        await instance.shut_down()
    else:
        instance.snapshot_holds.clear()
        await asyncio.sleep(0.3)
    assert engine.instances == {}


async def test_an_end_that_fails_in_part_still_closes_the_storage(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instance stayed in termination for ever, its log and its files open."""
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(str(context["exception"])))
    instance = await engine.create_instance("a")
    await instance.init()
    first, second = [await instance.begin_session() for _ in range(2)]
    stopped: list[bool] = []
    stop = instance.store.stop

    async def fail(*_: object) -> None:
        raise OSError("one")

    async def give_back() -> None:
        raise ValueError("two")

    async def noted(*, checkpoint: bool = True) -> None:
        stopped.append(checkpoint)
        await stop(checkpoint=checkpoint)

    monkeypatch.setattr(first, "finish", fail)
    monkeypatch.setattr(instance.store, "stop", noted)
    instance.before_end.append(give_back)
    await instance.term()
    assert told == ["one", "two"]
    assert (stopped, second.refusal, engine.instances) == ([True], Err.NotInitialized, {})
    again = await engine.create_instance("a")
    await again.init()
    await again.term()
