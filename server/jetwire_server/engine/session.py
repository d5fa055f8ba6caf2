"""A session: what its calls share, and how it begins and ends. The calls themselves stand with their subjects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jetwire_protocol.data.flags import EndSessionGrbit, Sesparam
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.database import OpenDatabase
from jetwire_server.engine.misc import MiscCalls

if TYPE_CHECKING:
    from jetwire_server.engine.instance import Instance

_CONTEXT_NONE = (0, -1, (1 << 32) - 1, (1 << 64) - 1)


class Session(MiscCalls):
    """One user of an instance. Its calls run one after the other; whoever serves it sees to that.

    `warning` is the JET_wrn of the last call that had one: `take_warning` reads and clears it.
    """

    def __init__(self, instance: Instance, sesid: int) -> None:
        super().__init__(instance, sesid)
        self.opened: dict[int, OpenDatabase] = {}
        self.warning = 0
        self.owner: object = None  # the connection that may use it: kept here, judged by whoever serves
        self.context: int | None = None
        self.context_bound = False  # between SetSessionContext and ResetSessionContext
        self.parameters: dict[int, Any] = {}

    def take_warning(self) -> int:
        warning, self.warning = self.warning, 0
        return int(warning)

    # -- begin and end ------------------------------------------------------------------------------------------
    async def dup_session(self) -> Session:
        """Another session of the same instance; they share nothing."""
        self.check()
        return await self.instance.begin_session()

    async def end_session(self, grbit: int = 0) -> None:
        """Rolls back every level, closes cursors, databases and temporary tables. Also after StopService."""
        if self.refusal is not None and self.refusal != Err.ClientRequestToStopJetService:
            raise JetError(self.refusal)
        if grbit & ~int(EndSessionGrbit.ForceSessionClosed):
            raise JetError(Err.InvalidParameter, "only ForceSessionClosed is taken, and it changes nothing")
        if self.context_bound:
            raise JetError(Err.SessionInUse, "its context is set")
        await self.finish(Err.InvalidSesid)

    async def finish(self, reason: Err) -> None:
        """Ends the session come what may; `reason` is what a call that still comes is answered."""
        self.refusal = reason
        for cursor in list(self.cursors.values()):
            cursor.close()
        txn, self.txn = self.txn, None
        try:
            if txn is not None:
                self._count_reads(txn)
                await txn.rollback()
        finally:
            self._ended(False)
            for handle in list(self.opened.values()):
                self._close(handle)
            self.instance.forget_session(self)
        await self.lasting.make_again()
        await self.free_unused()

    # -- contexts: one session, handed from one owner to another --------------------------------------------------
    def set_session_context(self, context: int, owner: object = None) -> None:
        """Binds the session to this owner until it is reset; another owner needs the context it was reset with."""
        self.check()
        if context in _CONTEXT_NONE:
            raise JetError(Err.InvalidParameter, "a context is neither 0 nor -1")
        if self.context_bound:
            raise JetError(Err.SessionContextAlreadySet if owner is self.owner else Err.SessionSharingViolation)
        if owner is not self.owner and (self.context is None or self.context != context):
            raise JetError(Err.SessionSharingViolation)
        self.owner = owner
        self.context = context
        self.context_bound = True

    def reset_session_context(self, owner: object = None) -> None:
        """Frees the session for an owner that knows the context. Also after StopService."""
        if self.refusal is not None and self.refusal != Err.ClientRequestToStopJetService:
            raise JetError(self.refusal)
        if not self.context_bound or owner is not self.owner:
            raise JetError(Err.SessionContextNotSetByThisThread)
        self.context_bound = False

    # -- parameters ---------------------------------------------------------------------------------------------
    def get_session_parameter(self, paramid: int) -> Any:
        self.check()
        if paramid == Sesparam.TransactionLevel:
            return self.level
        if paramid == Sesparam.CommitDefault:
            return self.instance.commit_default if self.commit_default is None else self.commit_default
        if paramid in _SETTABLE:
            return self.parameters.get(paramid, _SETTABLE[paramid])
        raise JetError(Err.InvalidSesparamId, f"session parameter {paramid}")

    def set_session_parameter(self, paramid: int, value: Any) -> None:
        self.check()
        if paramid == Sesparam.CommitDefault:
            if not isinstance(value, int) or value & ~_COMMIT_DEFAULTS:
                raise JetError(Err.InvalidParameter, f"commit default {value!r}")
            self.commit_default = value
        elif paramid in _SETTABLE:
            self.parameters[paramid] = value
        elif paramid == Sesparam.TransactionLevel:
            raise JetError(Err.FeatureNotAvailable, "the level is read only")
        else:
            raise JetError(Err.InvalidSesparamId, f"session parameter {paramid}")


_COMMIT_DEFAULTS = 1 | 16
_SETTABLE: dict[int, Any] = {Sesparam.CorrelationID: 0, Sesparam.OperationContext: None}
