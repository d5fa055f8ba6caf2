"""An engine in memory: nothing outlives the test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jetwire_server.clock import ManualClock
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.session import Session
from jetwire_server.events import EventLog
from jetwire_server.store.memory import MemoryStore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def engine(clock: ManualClock) -> Engine:
    return Engine(clock, EventLog(), lambda instance: MemoryStore(clock))


@pytest.fixture
async def instance(engine: Engine) -> AsyncIterator[Instance]:
    made = await engine.create_instance("test")
    await made.init()
    yield made
    if made.handle in engine.instances:
        await made.term()


@pytest.fixture
async def session(instance: Instance) -> Session:
    return await instance.begin_session()


@pytest.fixture
async def other(instance: Instance) -> Session:
    return await instance.begin_session()


@pytest.fixture
async def dbid(session: Session) -> int:
    return await session.create_database("test.edb")


@pytest.fixture
async def other_dbid(other: Session, dbid: int) -> int:
    return await other.open_database("test.edb")
