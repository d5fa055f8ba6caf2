"""Power cuts, enumerated: a random life of a store is stopped at many instants, and every image of each is recovered.

Log and checkpoint file live in memory, with what was synced and what was not; page files are LMDB's own, watched while
they commit. From each instant come the images a disk may be left with: prefixes, dropped, torn (512 bytes and 4 KiB) and
reordered writes, names without contents, page files in the middle of a commit. Each is recovered in place.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from jetwire_protocol.errors import JetError
from jetwire_server import failpoints
from jetwire_server.files.local import LocalFiles
from jetwire_server.files.memory import Instant, MemoryFiles
from jetwire_server.store.embedded import checkpoint as checkpoint_module
from jetwire_server.store.embedded import pages as pages_module
from tests.crash.history import History, State, difference, same
from tests.crash.rig import abandon, dump, fast_directory, faults, make_store, settle, started, tree_of
from tests.crash.workload import Workload
from tests.support.powercut import Image, PageFile, PageInstant, Scene

ACTIONS = 40
SCENES_MAX = 60
FILE_STEP_BYTES = 1 << 16  # page files grow by this here, not by 16 MiB: an image is copied thousands of times
MARK = b"after the crash"
AGAIN = 0.01  # of the images are lived on from, to a second crash


@dataclass
class Moment:
    """An instant of a life, and what had been promised and asked for by then."""

    what: str
    log: Instant
    pages: dict[str, PageInstant]
    acknowledged: int
    handed_over: int
    unsynced_names: frozenset[str]


@dataclass
class Result:
    """What a run found. A failure names its seed, so that it can be had again."""

    images: int = 0
    lives: int = 0
    moments: int = 0
    second: int = 0  # images of a second crash, after the recovery from a first one
    kinds: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def note(self, where: str, image: Image, wrong: str | None) -> None:
        self.images += 1
        self.kinds[kind_of(image.how)] += 1
        if wrong:
            self.failures.append(f"{where}, {image.how}: {wrong}")


class WatchedFiles(LocalFiles):
    """Real files that know which names a power cut could still take back."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.unsynced: set[str] = set()

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> Any:
        if create and not self.exists(path):
            self.unsynced.add(path)
        return super().open(path, create=create, read_only=read_only)

    def sync_directory(self, path: str = "") -> None:
        super().sync_directory(path)
        self.unsynced = {name for name in self.unsynced if name.rpartition("/")[0] != path}


class Watch:
    """Takes moments of a living store, from whichever of its threads is about to change something."""

    def __init__(
        self, root: Path, history: History, rng: Random, *, sync_works: bool, share: float, files: dict[str, bytes] | None = None
    ) -> None:
        self.root = root
        self.history = history
        self.moments: list[Moment] = []
        self.page_files = WatchedFiles(root)
        self.files = MemoryFiles(files, step=self._step, sync_works=sync_works)
        self._rng = rng
        self._share = share
        self._lock = threading.RLock()  # a page commit is one moment: nobody looks at the pages halfway
        self._watched: dict[str, PageFile] = {}
        self._before: Moment | None = None

    @contextmanager
    def looking(self) -> Iterator[None]:
        failpoints.arm("pages.before_commit", self._before_commit)
        failpoints.arm("pages.after_commit", self._after_commit)
        try:
            yield
        finally:
            failpoints.disarm("pages.before_commit")
            failpoints.disarm("pages.after_commit")

    def _step(self, what: str, path: str) -> None:
        if self._rng.random() < self._share:
            with self._lock:
                pages = {name: page.still() for name, page in self._now_there().items()}
                self.moments.append(self._moment(f"{what} {path}", pages))

    def _before_commit(self) -> None:
        self._lock.acquire()
        for page in self._now_there().values():
            page.settle()
        self._before = self._moment("page commit", {})

    def _after_commit(self) -> None:
        try:
            before, self._before = self._before, None
            assert before is not None
            pages = {name: page.cut() for name, page in self._now_there().items()}
            if self._rng.random() < self._share:
                before.pages = pages
                self.moments.append(before)
        finally:
            self._lock.release()

    def _moment(self, what: str, pages: dict[str, PageInstant]) -> Moment:
        acknowledged = self.history.acknowledged  # before the instant; what is handed over, after it
        log = self.files.instant()
        unsynced = frozenset(self.page_files.unsynced)
        return Moment(what, log, pages, acknowledged, len(self.history.states) - 1, unsynced)

    def _now_there(self) -> dict[str, PageFile]:
        there = {str(path.relative_to(self.root)): path for path in self.root.rglob("*.edb")}
        self._watched = {name: self._watched.get(name) or PageFile(path) for name, path in there.items()}
        return self._watched


async def live(
    root: Path, rng: Random, *, actions: int = ACTIONS, sync_works: bool = True, share: float = 0.2
) -> tuple[History, list[Moment]]:
    """A whole life, with restarts in it; its history, and moments of it."""
    history = History()
    watch = Watch(root, history, rng, sync_works=sync_works, share=share)
    root.mkdir(parents=True, exist_ok=True)
    with watch.looking():
        for part in range(rng.choice((1, 1, 2))):
            store = make_store(watch.files, root, page_files=watch.page_files)
            await store.start()
            workload = Workload(store, history, rng)
            await (workload.run(actions) if part == 0 else workload.acts(actions // 2))
            clean = rng.random() < 0.5
            await (store.stop(checkpoint=rng.random() < 0.5) if clean else abandon(store))
    return history, watch.moments


async def live_on(root: Path, image: Image, past: History, number: int, rng: Random) -> tuple[History, list[Moment]]:
    """Goes on from an image that was good: its recovery and what comes after can be cut, too."""
    history = History()
    history.states = [past.states[number]]
    history.trees = {path: set(trees) for path, trees in past.trees.items()}
    logs = lay_out(image, root)
    watch = Watch(root, history, rng, sync_works=True, share=0.5, files=logs)
    with watch.looking():
        store = make_store(watch.files, root, page_files=watch.page_files)
        await store.start()
        await Workload(store, history, rng, serial=rng.randrange(1_000, 1_000_000)).acts(6)
        await abandon(store)
    return history, watch.moments


class Examiner:
    """Recovers images in a directory of its own and says what is wrong with each."""

    def __init__(self, root: Path, history: History) -> None:
        self._root = root
        self._history = history
        self.found = 0  # the state that the last good image had

    async def examine(self, moment: Moment, image: Image, *, go_on: bool, seed: int = 0) -> str | None:
        """None if the promise held. `go_on`: the store must be good for more, too."""
        log_files = MemoryFiles(lay_out(image, self._root), directories=image.directories)
        try:
            store = await started(log_files, self._root)
        except JetError as error:
            return f"recovery refused: {error}"
        try:
            return await self._look(store, moment, log_files, go_on, Random(seed))
        except JetError as error:
            return f"after recovery: {error}"

    async def _look(self, store: Any, moment: Moment, log_files: MemoryFiles, go_on: bool, rng: Random) -> str | None:
        history = self._history
        try:
            await settle(store)
            content = await dump(store, history.trees)
            numbers = history.candidates(content, moment.acknowledged, moment.handed_over)
            if not numbers:
                return history.verdict(content, moment.acknowledged, moment.handed_over)
            self.found = numbers[0]
            if found := faults(store):
                return f"check finds {found[:3]}"
            if not go_on:
                return None
            if wrong := await self._mark(store, history.states[numbers[0]]):
                return wrong
            expected = await dump(store, history.trees)
            if rng.random() < 0.3:
                await store.stop(checkpoint=rng.random() < 0.5)
        finally:
            await abandon(store)
        return await self._again(log_files, expected, [history.beside(number, moment.handed_over) for number in numbers])

    @staticmethod
    async def _mark(store: Any, state: State) -> str | None:
        """One more commit, in every database."""
        if not state.attached:
            return None
        writer = await store.begin()
        for path in state.attached:
            writer.put(tree_of(store, path, 2), MARK, path.encode())
        await writer.commit()
        return None

    async def _again(self, log_files: MemoryFiles, expected: dict[str, Any], states: list[State]) -> str | None:
        """A restart finds the same; databases that lie beside come back whole."""
        store = await started(log_files, self._root)
        try:
            found = await dump(store, self._history.trees, reverse=True)
            if not same(expected, found):
                return f"the second restart finds something else: {difference(expected, found)}"
            wrong = ""
            for state in states:
                wrong = await self._beside(store, state)
                if not wrong:
                    return None
            return wrong
        finally:
            await abandon(store)

    async def _beside(self, store: Any, state: State) -> str:
        for path, trees in state.detached.items():
            try:
                await store.attach_database(path)
            except JetError as error:
                return f"a detached database cannot be attached: {error}"
            await settle(store)
            content = await dump(store, self._history.trees)
            if not same({path: trees}, {path: content[path]}):
                return f"a detached database has changed: {difference({path: trees}, {path: content[path]})}"
        return ""


def lay_out(image: Image, root: Path) -> dict[str, bytes]:
    """Page files where LMDB can open them; answers the log's files, which stay in memory."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    logs = {}
    for path, data in image.files.items():
        if path.endswith(".edb"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        else:
            logs[path] = data
    return logs


def images_of(moment: Moment, rng: Random, samples: int) -> Iterator[Image]:
    """Log and pages as one cut leaves them; a name that was not synced may be gone."""
    for image in Scene(moment.log, moment.pages).images(rng, samples):
        if moment.unsynced_names and rng.random() < 0.5:
            kept = {path: data for path, data in image.files.items() if path not in moment.unsynced_names}
            yield Image(image.how + "; without the new page file", kept, image.directories)
        else:
            yield image


async def run(
    seed: int,
    *,
    lives: int = 1,
    moments_max: int = SCENES_MAX,
    samples: int = 3,
    go_on_every: int = 3,
    sync_works: bool = True,
    again: float = AGAIN,
    images_max: int = 1 << 60,
    failures_max: int = 20,
) -> Result:
    """Lives from consecutive seeds; every image of up to `moments_max` moments of each."""
    result = Result()
    known = pages_module._GROW_BYTES, checkpoint_module.CHUNK_ROWS
    pages_module._GROW_BYTES = FILE_STEP_BYTES
    try:
        for number in range(lives):
            with fast_directory("jetwire-powercut-") as directory:
                rng = Random(f"{seed}/{number}")
                checkpoint_module.CHUNK_ROWS = rng.choice((3, 10, known[1]))  # a round of several transactions, cut between them
                root = Path(directory)
                history, moments = await live(root / "life", rng, sync_works=sync_works)
                result.lives += 1
                examiner = Examiner(root / "image", history)
                for moment in rng.sample(moments, min(len(moments), moments_max)):
                    result.moments += 1
                    for image in images_of(moment, rng, samples):
                        go_on = result.images % go_on_every == 0
                        wrong = await examiner.examine(moment, image, go_on=go_on, seed=result.images)
                        result.note(f"seed {seed}/{number}, at {moment.what!r}", image, wrong)
                        if not wrong and rng.random() < again:
                            await _again(root, image, history, examiner.found, rng, result, f"seed {seed}/{number}")
                        if result.images >= images_max or len(result.failures) >= failures_max:
                            return result
    finally:
        pages_module._GROW_BYTES, checkpoint_module.CHUNK_ROWS = known
    return result


async def _again(root: Path, image: Image, past: History, number: int, rng: Random, result: Result, where: str) -> None:
    """A second crash: of the recovery, or of the life after it."""
    history, moments = await live_on(root / "again", image, past, number, rng)
    examiner = Examiner(root / "image-again", history)
    for moment in rng.sample(moments, min(len(moments), 6)):
        for second in images_of(moment, rng, 2):
            wrong = await examiner.examine(moment, second, go_on=rng.random() < 0.2, seed=result.images)
            result.note(f"{where}, after {image.how!r}, at {moment.what!r}", second, wrong)
            result.second += 1


def kind_of(how: str) -> str:
    """The class of an image, from what its maker says was lost of the log."""
    log = how.partition(";")[0]
    words = ("torn at 512", "torn at 4096", "dropped", "cut before", "sample", "names without", "contents without", "everything")
    return next((word for word in words if word in log), "other")


def run_in_process(seed: int, **options: Any) -> Result:
    return asyncio.run(run(seed, **options))
