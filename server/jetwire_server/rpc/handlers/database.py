"""Databases: created, attached, opened, closed, detached; their sizes and what can be asked about them."""

from __future__ import annotations

from jetwire_protocol.data.flags import Snp, Snt
from jetwire_protocol.errors import Err, JetError
from jetwire_protocol.validate import Params
from jetwire_server.engine.fileinfo import database_file_info
from jetwire_server.engine.session import Session
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.handlers.common import Result, answer, engine_of, leaving_session_of, on_session, session_of
from jetwire_server.rpc.peer import Peer


@on_session("CreateDatabase")
async def create_database(session: Session, params: Params) -> Result:
    return {"dbid": await session.create_database(params["database"], params["grbit"], params["maxPages"])}


@on_session("AttachDatabase")
async def attach_database(session: Session, params: Params) -> None:
    await session.attach_database(params["database"], params["grbit"], params["maxPages"])


@handles("DetachDatabase")
async def detach_database(peer: Peer, params: Params) -> Result:
    session = leaving_session_of(peer, params)
    await session.detach_database(params["database"], params["grbit"])
    return answer(session)


@on_session("OpenDatabase")
async def open_database(session: Session, params: Params) -> Result:
    return {"dbid": await session.open_database(params["database"], params["grbit"])}


@handles("CloseDatabase")
async def close_database(peer: Peer, params: Params) -> Result:
    session = leaving_session_of(peer, params)
    await session.close_database(params["dbid"], params["grbit"])
    return answer(session)


# -- sizes, space and information -------------------------------------------------------------------------------------
@on_session("GetDatabaseInfo")
async def get_database_info(session: Session, params: Params) -> Result:
    return {"value": await session.get_database_info(params["dbid"], params["infoLevel"])}


@handles("GetDatabaseFileInfo")
def get_database_file_info(peer: Peer, params: Params) -> Result:
    """No instance is named: the path begins with its name."""
    name, _, path = params["databaseName"].replace("\\", "/").partition("/")
    for instance in engine_of(peer).instances.values():
        if instance.name.lower() == name.lower():
            return {"value": database_file_info(instance, path, params["infoLevel"])}
    raise JetError(Err.DatabaseInvalidPath, f"{params['databaseName']!r} is not INSTANCE/NAME of an instance that runs")


@on_session("GrowDatabase")
async def grow_database(session: Session, params: Params) -> Result:
    return {"actualPages": await session.grow_database(params["dbid"], params["desiredPages"])}


@on_session("ResizeDatabase")
async def resize_database(session: Session, params: Params) -> Result:
    pages = await session.resize_database(params["dbid"], params["desiredPages"], params["grbit"])
    return {"actualPages": pages}


@on_session("SetDatabaseSize")
async def set_database_size(session: Session, params: Params) -> Result:
    return {"actualPages": await session.set_database_size(params["database"], params["desiredPages"])}


@handles("Compact")
async def compact(peer: Peer, params: Params) -> Result:
    """The connection that calls is told how far it is, a table at a time."""
    session = session_of(peer, params)

    def tell(snt: Snt, progress: dict[str, int] | None = None) -> None:
        peer.notify("status", {"sesid": session.id, "snp": int(Snp.Compact), "snt": int(snt), "snprog": progress})

    tell(Snt.Begin)
    try:
        await session.compact(
            params["sourceDatabase"],
            params["destinationDatabase"],
            params["grbit"],
            lambda done, total: tell(Snt.Progress, {"unitDone": done, "unitTotal": total}),
        )
    except BaseException:
        tell(Snt.Fail)
        raise
    tell(Snt.Complete)
    return answer(session)


@on_session("Defragment")
async def defragment(session: Session, params: Params) -> Result:
    passes, seconds = await session.defragment(params["dbid"], params["tablename"], params["passes"], params["seconds"], params["grbit"])
    return {"passes": passes, "seconds": seconds}


@on_session("Idle")
async def idle(session: Session, params: Params) -> None:
    await session.idle(params["grbit"])
