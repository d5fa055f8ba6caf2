"""Page generations: the pages of all databases as they were after a checkpoint, shared by the snapshots that began there.

LMDB cannot open an older state later, so a generation lives as long as a transaction reads on it. Its `base` is the
newest commit that is whole in its pages; whoever reads through it looks into the timeline first for anything newer.
"""

from __future__ import annotations

from jetwire_protocol.errors import Err, JetError
from jetwire_server.metrics import Gauge
from jetwire_server.store.embedded.layout import tree_prefix
from jetwire_server.store.embedded.pages import PageFile
from jetwire_server.store.embedded.view import View
from jetwire_server.store.interface import SLOT_SHIFT, Row, Tree, tree_number
from jetwire_server.store.snapshots import Snapshots

ALIVE = Gauge("jetwire_page_generations", "Page generations that snapshots read on.")


class Generation:
    """See `timeline.Base`."""

    __slots__ = ("_prefixes", "base", "current", "snapshots", "users", "views")

    def __init__(self, base: int, views: dict[int, View]) -> None:
        self.base = base
        self.views = views
        self.current = True
        self.users = 0
        self.snapshots = Snapshots()
        self._prefixes: dict[Tree, tuple[bytes, View]] = {}

    def get(self, tree: Tree, key: bytes) -> bytes | None:
        known = self._prefixes.get(tree)
        if known is None:
            known = self._find(tree)
        return known[1].get(known[0], key)

    def newest(self, tree: Tree, key: bytes) -> tuple[int, bytes] | None:
        prefix, view = self._prefixes.get(tree) or self._find(tree)
        return view.newest(prefix, key)

    def chunk(self, tree: Tree, low: bytes | None, high: bytes | None, reverse: bool, limit: int) -> list[Row]:
        prefix, view = self._prefixes.get(tree) or self._find(tree)
        return view.chunk(prefix, low, high, reverse, limit)

    def count(self, tree: Tree) -> int:
        """The rows of a tree in these pages."""
        _, view = self._prefixes.get(tree) or self._find(tree)
        return view.statistic(tree_number(tree)).count

    def attach(self, slot: int, view: View) -> None:
        self.views[slot] = view

    def detach(self, slot: int) -> None:
        """Lets go of a database, for whoever still reads on this generation too."""
        view = self.views.pop(slot, None)
        if view is not None:
            self._prefixes = {tree: known for tree, known in self._prefixes.items() if tree >> SLOT_SHIFT != slot}
            view.close()

    def close(self) -> None:
        for view in self.views.values():
            view.close()
        self.views = {}
        self._prefixes = {}

    def _find(self, tree: Tree) -> tuple[bytes, View]:
        view = self.views.get(tree >> SLOT_SHIFT)
        if view is None:
            raise JetError(Err.InvalidDatabaseId, f"slot {tree >> SLOT_SHIFT} is not attached")
        known = self._prefixes[tree] = (tree_prefix(tree_number(tree)), view)
        return known


class Generations:
    """All that are alive, oldest first; the last one is what new transactions begin on."""

    def __init__(self) -> None:
        self.alive: list[Generation] = [Generation(0, {})]

    @property
    def current(self) -> Generation:
        return self.alive[-1]

    def advance(self, base: int, files: dict[int, PageFile]) -> None:
        """A new current generation on the newest state of all pages."""
        views: dict[int, View] = {}
        try:
            for slot, file in files.items():
                views[slot] = file.view()
        except BaseException:
            for view in views.values():
                view.close()
            raise
        before = self.current
        before.current = False
        self.alive.append(Generation(base, views))
        ALIVE.value = len(self.alive)
        if not before.users:
            self._bury(before)

    def enter(self, snapshot: int) -> Generation:
        generation = self.alive[-1]
        generation.users += 1
        generation.snapshots.opened(snapshot)
        return generation

    def leave(self, generation: Generation, snapshot: int) -> bool:
        """True if an old generation died with this."""
        generation.users -= 1
        generation.snapshots.closed(snapshot)
        if generation.users or generation is self.alive[-1]:
            return False
        self._bury(generation)
        return True

    def old_snapshots(self) -> list[int]:
        """Ascending: the snapshots that read on generations older than the current one."""
        return [snapshot for generation in self.alive[:-1] for snapshot in generation.snapshots.all()]

    def attach(self, slot: int, file: PageFile) -> None:
        """For every generation: what is in the file is older than all that anybody may see change."""
        for generation in self.alive:
            generation.attach(slot, file.view())

    def detach(self, slot: int) -> None:
        for generation in self.alive:
            generation.detach(slot)

    def close(self) -> None:
        for generation in self.alive:
            generation.close()

    def _bury(self, generation: Generation) -> None:
        self.alive.remove(generation)
        ALIVE.value = len(self.alive)
        generation.close()
