"""What the handlers of several groups share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NoReturn

from jetwire_protocol.errors import JetError
from jetwire_protocol.jsonrpc import INVALID_PARAMS, RpcError
from jetwire_protocol.validate import Params
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.session import Session
from jetwire_server.rpc.dispatch import Handler, handles
from jetwire_server.rpc.peer import Peer

Result = dict[str, Any]


def engine_of(peer: Peer) -> Engine:
    engine = peer.service.engine
    assert engine is not None
    return engine


def session_of(peer: Peer, params: dict[str, Any]) -> Session:
    """The session that a call names, its last warning forgotten. That it is served is asked first, before all else."""
    session: Session = peer.session(params["sesid"])
    if session.refusal is not None:
        raise JetError(session.refusal)
    session.warning = 0
    return session


def leaving_session_of(peer: Peer, params: dict[str, Any]) -> Session:
    """The same for the calls that give something back: they are served after StopService, and ask for themselves."""
    session: Session = peer.session(params["sesid"])
    session.warning = 0
    return session


def answer(session: Session, result: Result | None = None) -> Result:
    """A call's result, with the warning that the session has for it."""
    if result is None:
        result = {}
    if session.warning:
        result["wrn"] = session.take_warning()
    return result


def on_session(*names: str) -> Callable[[Callable[..., Any]], Handler]:
    """Registers `(session, params) -> result or None`, plain or async: the session is found before it, its warning told after it."""

    def find(peer: Peer, params: Params) -> tuple[Session, Session]:
        session = session_of(peer, params)
        return session, session

    return registered(names, find)


def registered(names: tuple[str, ...], find: Callable[[Peer, Params], tuple[Session, Any]]) -> Callable[[Callable[..., Any]], Handler]:
    """The session that a call names and what `find` gives beside it: that is handed to the function, and its result answered."""

    def register(call: Callable[..., Any]) -> Handler:
        async def waiting(peer: Peer, params: Params) -> Result:
            session, subject = find(peer, params)
            return answer(session, await call(subject, params))

        def plain(peer: Peer, params: Params) -> Result:
            session, subject = find(peer, params)
            return answer(session, call(subject, params))

        return handles(*names)(waiting if inspect.iscoroutinefunction(call) else plain)

    return register


def refuse(member: str, description: str) -> NoReturn:
    """Params that are wrong in a way their declaration does not say."""
    raise RpcError(INVALID_PARAMS, member=member, description=description)
