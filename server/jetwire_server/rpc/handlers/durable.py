"""`durableCommit` notifications: what a connection committed lazily has become durable.

One of them covers all that was committed before it, so commits in quick succession share one.
"""

from __future__ import annotations

import asyncio

from jetwire_protocol.data.flags import Pfndurablecommitcallback
from jetwire_protocol.errors import JetError
from jetwire_server import limits
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.transaction import CommitId
from jetwire_server.rpc.handlers.instance import signature
from jetwire_server.rpc.peer import Peer


class _Followed:
    """The newest lazy commit of a connection in an instance, of which nobody has been told yet."""

    def __init__(self, peer: Peer, instance: Instance) -> None:
        self._peer = peer
        self._instance = instance
        self._newest: CommitId | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._telling: set[asyncio.Task[None]] = set()

    def follow(self, commit: CommitId, seconds: float) -> None:
        self._newest = commit
        loop = asyncio.get_running_loop()
        if self._timer is not None and self._timer.when() > loop.time() + seconds:
            self._stop()
        if self._timer is None:
            self._timer = loop.call_later(seconds, self._due)

    def _due(self) -> None:
        task = asyncio.get_running_loop().create_task(self._tell())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self) -> None:
        """By now the log has synced by itself, or somebody asked for sooner."""
        commit, self._newest, self._timer = self._newest, None, None
        assert commit is not None
        grbit = 0
        try:
            await self._instance.store.flush()
        except JetError:
            grbit = int(Pfndurablecommitcallback.DurableCommitCallbackLogUnavailable)
        seen = {"signLog": signature(commit.sign_log), "commitId": commit.commit_id}
        self._peer.notify("durableCommit", {"instance": self._instance.handle, "commitIdSeen": seen, "grbit": grbit})
        if self._newest is None and len(self._telling) == 1:  # nobody else: instances come and go, the connection stays
            _followed(self._peer).pop(self._instance.handle, None)

    def end(self) -> None:
        self._stop()
        for task in self._telling:
            task.cancel()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def follow(peer: Peer, instance: Instance, commit: CommitId, within_ms: int) -> None:
    """Tells the connection when this commit is durable: after `within_ms`, or when the log syncs by itself (0)."""
    if not peer.stateful:
        return
    followed = _followed(peer)
    peer.at_close("durable", lambda: _end_all(followed))
    if instance.handle not in followed:
        followed[instance.handle] = _Followed(peer, instance)
    seconds = limits.LOG_LAZY_SYNC_SECONDS_MAX
    followed[instance.handle].follow(commit, min(within_ms / 1000, seconds) if within_ms > 0 else seconds)


def _followed(peer: Peer) -> dict[int, _Followed]:
    """By the handles of their instances."""
    followed: dict[int, _Followed] = peer.state.setdefault("durable", {})
    return followed


def _end_all(followed: dict[int, _Followed]) -> None:
    for one in followed.values():
        one.end()
