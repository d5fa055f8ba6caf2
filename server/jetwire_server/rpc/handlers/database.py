"""Databases: created, attached, opened, closed, detached."""

from __future__ import annotations

from jetwire_protocol.validate import Params
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.handlers.common import Result, answer, session_of
from jetwire_server.rpc.peer import Peer


@handles("CreateDatabase")
async def create_database(peer: Peer, params: Params) -> Result:
    session = session_of(peer, params)
    return answer(session, {"dbid": await session.create_database(params["database"], params["grbit"], params["maxPages"])})


@handles("AttachDatabase")
async def attach_database(peer: Peer, params: Params) -> Result:
    session = session_of(peer, params)
    await session.attach_database(params["database"], params["grbit"], params["maxPages"])
    return answer(session)


@handles("DetachDatabase")
async def detach_database(peer: Peer, params: Params) -> Result:
    session = session_of(peer, params)
    await session.detach_database(params["database"], params["grbit"])
    return answer(session)


@handles("OpenDatabase")
async def open_database(peer: Peer, params: Params) -> Result:
    session = session_of(peer, params)
    return answer(session, {"dbid": await session.open_database(params["database"], params["grbit"])})


@handles("CloseDatabase")
async def close_database(peer: Peer, params: Params) -> Result:
    session = session_of(peer, params)
    await session.close_database(params["dbid"], params["grbit"])
    return answer(session)
