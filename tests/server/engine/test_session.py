"""Sessions: begin, dup, end, contexts, parameters; the limits of an instance."""

from __future__ import annotations

from functools import partial

import pytest

from jetwire_protocol.data.flags import Sesparam
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.session import Session
from tests.server.engine.refusals import refused, refused_now

ALICE, BOB = object(), object()


async def test_end_session_rolls_back_closes_all_and_kills_the_handle(instance: Instance, session: Session, other: Session) -> None:
    dbid = await session.create_database("a.edb")
    await session.begin_transaction()
    await session.begin_transaction()
    cursor = await session.create_table(dbid, "t")
    await session.end_session()
    refused_now(lambda: instance.session(session.id), Err.InvalidSesid)
    refused_now(lambda: instance.cursor(cursor.id), Err.InvalidTableId)
    await refused(session.begin_transaction(), Err.InvalidSesid)
    await refused(session.end_session(), Err.InvalidSesid)
    other_dbid = await other.open_database("a.edb")
    await refused(other.open_table(other_dbid, "t"), Err.ObjectNotFound)
    await other.close_database(other_dbid)
    await other.detach_database("a.edb")


async def test_force_session_closed_changes_nothing_and_other_bits_are_wrong(session: Session) -> None:
    await refused(session.end_session(2), Err.InvalidParameter)
    await session.end_session(1)


async def test_a_session_with_its_context_set_cannot_end(session: Session) -> None:
    session.owner = ALICE
    session.set_session_context(7, ALICE)
    await refused(session.end_session(), Err.SessionInUse)
    session.reset_session_context(ALICE)
    await session.end_session()


async def test_a_context_hands_a_session_over(session: Session) -> None:
    session.owner = ALICE
    for wrong in (0, -1):
        refused_now(partial(session.set_session_context, wrong, ALICE), Err.InvalidParameter)
    refused_now(lambda: session.reset_session_context(ALICE), Err.SessionContextNotSetByThisThread)
    session.set_session_context(7, ALICE)
    refused_now(lambda: session.set_session_context(7, ALICE), Err.SessionContextAlreadySet)
    refused_now(lambda: session.set_session_context(7, BOB), Err.SessionSharingViolation)
    refused_now(lambda: session.reset_session_context(BOB), Err.SessionContextNotSetByThisThread)
    session.reset_session_context(ALICE)
    refused_now(lambda: session.set_session_context(8, BOB), Err.SessionSharingViolation)
    session.set_session_context(7, BOB)
    assert session.owner is BOB


async def test_dup_shares_nothing(session: Session, dbid: int) -> None:
    await session.begin_transaction()
    twin = await session.dup_session()
    assert twin.level == 0
    assert twin.id != session.id
    refused_now(lambda: twin.database(dbid), Err.InvalidDatabaseId)


async def test_session_parameters(session: Session) -> None:
    session.set_session_parameter(Sesparam.CommitDefault, 1)
    assert session.get_session_parameter(Sesparam.CommitDefault) == 1
    refused_now(lambda: session.set_session_parameter(Sesparam.CommitDefault, 0x1000), Err.InvalidParameter)
    session.set_session_parameter(Sesparam.CorrelationID, 42)
    assert session.get_session_parameter(Sesparam.CorrelationID) == 42
    await session.begin_transaction()
    assert session.get_session_parameter(Sesparam.TransactionLevel) == 1
    refused_now(lambda: session.set_session_parameter(Sesparam.TransactionLevel, 0), Err.FeatureNotAvailable)
    refused_now(lambda: session.get_session_parameter(9), Err.InvalidSesparamId)


@pytest.mark.parametrize(
    ("param", "code"),
    [(Param.MaxSessions, Err.OutOfSessions), (Param.MaxCursors, Err.OutOfCursors), (Param.MaxOpenTables, Err.TooManyOpenTables)],
)
async def test_the_limits_limit(engine: Engine, param: Param, code: Err) -> None:
    instance = await engine.create_instance("small")
    instance.set_parameter(param, 2)
    await instance.init()
    session = await instance.begin_session()
    if param == Param.MaxSessions:
        await instance.begin_session()
        await refused(instance.begin_session(), code)
        await session.end_session()
        await instance.begin_session()
        return
    dbid = await session.create_database("a.edb")
    cursors = []
    for name in ("a", "b", "c"):
        cursor = await session.create_table(dbid, name)
        await session.close_table(cursor.id)
    for name in ("a", "b"):
        cursors.append(await session.open_table(dbid, name))
    await refused(session.open_table(dbid, "c"), code)
    cursors[0].close()
    await session.open_table(dbid, "c")
