"""Sessions and their transactions. A session belongs to the connection that began it, and ends with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jetwire_protocol.data.flags import CommitTransactionGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_protocol.validate import Params
from jetwire_server import limits
from jetwire_server.engine.session import Session
from jetwire_server.engine.transaction import CommitId, ThreadStats
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.handlers import durable
from jetwire_server.rpc.handlers.common import Result, answer, engine_of, leaving_session_of, session_of
from jetwire_server.rpc.handlers.instance import signature
from jetwire_server.rpc.peer import Peer


def _own(peer: Peer, session: Session) -> None:
    """Makes a session this connection's: it ends with the connection."""
    peer.at_close("sessions", lambda: _end_all(peer))
    session.owner = peer
    peer.sessions[session.id] = session
    if not len(peer.sessions) % limits.SESSIONS_LEFT_KEPT:
        _forget_left(peer)


def _forget_left(peer: Peer) -> None:
    """A connection may go on for days, and its instances come and go."""
    left = [one.id for one in peer.sessions.values() if one.id not in one.instance.sessions]
    for sesid in left[: -limits.SESSIONS_LEFT_KEPT]:
        del peer.sessions[sesid]


async def _end_all(peer: Peer) -> None:
    """As EndSession would, also where a context is still set."""
    while peer.sessions:
        _, session = peer.sessions.popitem()
        if session.owner is peer and session.id in session.instance.sessions:
            await session.finish(Err.InvalidSesid)


@handles("BeginSession")
async def begin_session(peer: Peer, params: Params) -> Result:
    session = await engine_of(peer).instance(params["instance"]).begin_session(params["username"], params["password"])
    _own(peer, session)
    return {"sesid": session.id}


@handles("DupSession")
async def dup_session(peer: Peer, params: Params) -> Result:
    session = await session_of(peer, params).dup_session()
    _own(peer, session)
    return {"newSesid": session.id}


@handles("EndSession")
async def end_session(peer: Peer, params: Params) -> Result:
    session = leaving_session_of(peer, params)
    await session.end_session(params["grbit"])
    peer.sessions.pop(session.id, None)
    _ended_stats(peer).add(session.stats)
    return {}


def _ended_stats(peer: Peer) -> ThreadStats:
    """What the sessions that ended on this connection have cost."""
    stats: ThreadStats = peer.state.setdefault("stats", ThreadStats())
    return stats


@handles("GetThreadStats")
def get_thread_stats(peer: Peer, params: Params) -> Result:
    """C's counters are a thread's; here they are those of all sessions that the connection has or had."""
    stats = replace(_ended_stats(peer))
    for session in peer.sessions.values():
        stats.add(session.stats)
    counted = {
        "pageReferenced": stats.rows_referenced,
        "pageRead": stats.rows_read,
        "pagePreread": 0,
        "pageDirtied": stats.rows_written,
        "pageRedirtied": 0,
        "logRecord": stats.log_records,
        "logRecordBytes": stats.log_bytes,
        "usecPageCacheMiss": 0,  # the pages are the system's to cache: a miss is not seen from here
        "pageCacheMiss": 0,
    }
    return {"threadstats": counted}


@handles("SetSessionContext")
def set_session_context(peer: Peer, params: Params) -> Result:
    """Also the way in which a session changes its owner: see `Session.set_session_context`."""
    sesid = params["sesid"]
    session = session_of(peer, params) if sesid in peer.sessions else engine_of(peer).session(sesid)
    former = session.owner
    assert isinstance(former, Peer)
    if former is not peer and former.principal != peer.principal:
        raise JetError(Err.InvalidSesid, f"this connection has no session {session.id}")
    if former is not peer and former.closed:
        raise JetError(Err.InvalidSesid, f"session {session.id} ends with its connection")
    if former is not peer and not former.lanes.free((sesid,)):
        raise JetError(Err.SessionSharingViolation, "a call of its owner is still under way")
    session.set_session_context(params["context"], peer)
    if former is not peer:
        former.sessions.pop(session.id, None)
        _own(peer, session)
    return {}


@handles("ResetSessionContext")
def reset_session_context(peer: Peer, params: Params) -> Result:
    leaving_session_of(peer, params).reset_session_context(peer)
    return {}


@handles("GetSessionParameter")
def get_session_parameter(peer: Peer, params: Params) -> Result:
    return {"value": session_of(peer, params).get_session_parameter(params["sesparamid"])}


@handles("SetSessionParameter")
def set_session_parameter(peer: Peer, params: Params) -> Result:
    session_of(peer, params).set_session_parameter(params["sesparamid"], params["value"])
    return {}


# -- transactions -----------------------------------------------------------------------------------------------------
@handles("BeginTransaction")
async def begin_transaction(peer: Peer, params: Params) -> Result:
    await session_of(peer, params).begin_transaction(params["grbit"], params["userTransactionId"])
    return {}


@handles("CommitTransaction")
async def commit_transaction(peer: Peer, params: Params) -> Result:
    session = session_of(peer, params)
    within_ms = params["durableCommit"]
    lazy = within_ms or session._commit_bits(params["grbit"]) & CommitTransactionGrbit.CommitLazyFlush
    commit = await session.commit_transaction(params["grbit"], within_ms)
    if lazy and commit is not None:
        durable.follow(peer, session.instance, commit, within_ms)
    return answer(session, {"commitId": commit_id(commit)})


def commit_id(commit: CommitId | None) -> dict[str, Any] | None:
    """COMMIT_ID, or null for a commit that changed nothing."""
    return None if commit is None else {"signLog": signature(commit.sign_log), "commitId": commit.commit_id}


@handles("Rollback")
async def rollback(peer: Peer, params: Params) -> Result:
    session = leaving_session_of(peer, params)
    await session.rollback(params["grbit"])
    return answer(session)
