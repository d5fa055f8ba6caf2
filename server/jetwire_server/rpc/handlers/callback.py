"""Callbacks of tables, as notifications to the connection that registered them."""

from __future__ import annotations

from typing import Any

from jetwire_protocol.errors import Err, JetError
from jetwire_protocol.validate import Params
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.temptable import TempCursor
from jetwire_server.engine.update import Updates
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.handlers.columns import cursor_of, on_cursor
from jetwire_server.rpc.handlers.common import Result, answer
from jetwire_server.rpc.peer import Peer


@handles("RegisterCallback")
def register_callback(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    if isinstance(cursor, TempCursor):
        raise JetError(Err.IllegalOperation, "a temporary table has no callbacks")
    context = params["context"]

    def tell(callback_id: int, changing: Updates, what: int, arg: Any) -> None:
        told = {
            "callbackId": callback_id,
            "sesid": changing.session.id,
            "dbid": changing.dbid,
            "tableid": changing.id,
            "cbtyp": int(what),
            "arg1": arg,
            "arg2": None,
            "context": context,
        }
        peer.notify("callback", told)

    return answer(session, {"callbackId": cursor.database.callbacks.register(cursor, params["cbtyp"], tell)})


@on_cursor("UnregisterCallback")
def unregister_callback(cursor: Cursor, params: Params) -> None:
    cursor.database.callbacks.unregister(cursor, params["cbtyp"], params["callbackId"])
