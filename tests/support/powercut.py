"""What a power cut may leave behind: images of files in memory, and of LMDB page files, at one instant.

The model is a page cache above a disk. Between two syncs of a file the disk may have taken each sector of 512 bytes or
4 KiB at any moment or not at all: so every prefix, writes dropped, torn and reordered all come from one choice per
sector: after how many of the writes it was taken. Sizes and names are such choices, too. What was synced is there.

An LMDB commit without a writable map writes its data pages, syncs, writes one meta page, syncs: `PageFile` takes the
file before and after and builds the states in between. A `Scene` holds the log's files and the page files of one
instant, so that recovery meets both as one power cut would leave them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import gt, ne
from pathlib import Path
from random import Random

from jetwire_server.files.memory import Instant, Length, MemoryFiles, Write

SECTORS = (512, 4096)
Choice = Callable[[int], int]  # sector -> after how many changes the disk took it


@dataclass(frozen=True)
class Image:
    """A directory as found after the power came back. `how` says what was lost, for the report of a failure."""

    how: str
    files: dict[str, bytes]
    directories: frozenset[str] = frozenset()

    def open(self, **options: object) -> MemoryFiles:
        return MemoryFiles(self.files, directories=self.directories, **options)  # type: ignore[arg-type]

    def write_to(self, root: Path) -> None:
        for path in sorted(self.directories):
            (root / path).mkdir(parents=True, exist_ok=True)
        for path, data in self.files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)


# -- one file -----------------------------------------------------------------------------------------------------
def render(durable: bytes, journal: tuple[Write | Length, ...], taken: Choice, sized: int, unit: int) -> bytes:
    """The file if the disk took each sector after `taken(sector)` of the changes, and the length after `sized` of them."""
    image = bytearray(durable)
    length, final = len(durable), len(durable)
    for number, change in enumerate(journal):
        if isinstance(change, Length):
            start, data = change.length, bytes(max(0, length - change.length))  # what is cut off comes back as zeros
            length = change.length
        else:
            start, data = change.offset, change.data
            length = max(length, start + len(data))
        image.extend(bytes(max(0, max(length, start + len(data)) - len(image))))
        at = start
        while at < start + len(data):
            sector = at // unit
            end = min((sector + 1) * unit, start + len(data))
            if taken(sector) > number:
                image[at:end] = data[at - start : end - start]
            at = end
        if number < sized:
            final = length
    del image[final:]
    return bytes(image) + bytes(final - len(image))


# -- all files in memory ------------------------------------------------------------------------------------------
def images(instant: Instant, rng: Random, samples: int) -> Iterator[Image]:
    """First each prefix, each change dropped, each write torn in several ways, names alone, contents alone; then samples."""
    return (recipe() for recipe in recipes(instant, rng, samples))


def recipes(instant: Instant, rng: Random, samples: int) -> list[Callable[[], Image]]:
    """The same, unmade: an image may be large, so only the one being looked at is built."""
    orders = sorted({c.order for journal in instant.journals.values() for c in journal} | {order for order, _ in instant.namings})
    made: list[Callable[[], Image]] = [partial(_compose, instant, f"cut before change {cut}", partial(gt, cut)) for cut in orders]
    made.append(partial(_compose, instant, "everything", lambda _: True))
    made += [partial(_compose, instant, f"change {order} dropped", partial(ne, order)) for order in orders[:-1]]  # the last is a prefix
    made.append(partial(_compose, instant, "names without contents", lambda _: True, contents=lambda *_: (lambda _: 0, 0)))
    made.append(partial(_compose, instant, "contents without names", lambda _: False, contents=_all_of))
    for number, journal in instant.journals.items():
        for index, change in enumerate(journal):
            if isinstance(change, Write):
                made += _torn(instant, number, index, change)
    made += [partial(_sampled, instant, rng.getrandbits(64), sample) for sample in range(samples)]
    return made


Contents = Callable[[int, tuple[Write | Length, ...], int], tuple[Choice, int]]
"""(number of the content, its journal, unit) -> which changes each sector has, and which the length"""


def _all_of(_number: int, journal: tuple[Write | Length, ...], _unit: int) -> tuple[Choice, int]:
    return (lambda _: len(journal)), len(journal)


def _compose(instant: Instant, how: str, done: Callable[[int], bool], *, unit: int = 512, contents: Contents | None = None) -> Image:
    """An image of the changes that are `done`; of a sector, a change that is not done stops all later ones."""

    def whole(_number: int, journal: tuple[Write | Length, ...], unit: int) -> tuple[Choice, int]:
        stops: dict[int, int] = {}
        for index, change in enumerate(journal):
            if done(change.order):
                continue
            if isinstance(change, Length):  # the file system keeps changes of one file's length in order with what follows
                journal = journal[:index]
                break
            if change.data:
                for sector in range(change.offset // unit, (change.offset + len(change.data) - 1) // unit + 1):
                    stops.setdefault(sector, index)
        sized = max((index + 1 for index, change in enumerate(journal) if done(change.order)), default=0)
        return (lambda sector: min(stops.get(sector, sized), sized)), sized

    made: dict[int, bytes] = {}
    for number, durable in instant.durable.items():
        journal = instant.journals[number]
        taken, sized = (contents or whole)(number, journal, unit)
        made[number] = render(durable, journal, taken, sized, unit)
    return Image(how, _named(instant, made, done), instant.directories)


def _named(instant: Instant, made: Mapping[int, bytes], done: Callable[[int], bool]) -> dict[str, bytes]:
    names = dict(instant.names)
    for order, changes in instant.namings:
        if done(order):
            for path, number in changes.items():
                if number is None:
                    names.pop(path, None)
                else:
                    names[path] = number
    return {path: made[number] for path, number in names.items()}


def _torn(instant: Instant, number: int, index: int, change: Write) -> Iterator[Callable[[], Image]]:
    """Everything before the write is there; of the write itself, some sectors."""
    for unit in SECTORS:
        first, last = change.offset // unit, (change.offset + max(len(change.data), 1) - 1) // unit
        if first == last:
            continue  # a sector is whole or not at all: that is a prefix
        middle = (first + last + 1) // 2
        for how, kept in {
            "only its first sector": range(first, first + 1),
            "only its last sector": range(last, last + 1),
            "its first half": range(first, middle),
            "its second half": range(middle, last + 1),
            "every other sector": range(first, last + 1, 2),
        }.items():
            yield partial(
                _compose,
                instant,
                f"change {change.order} torn at {unit}: {how}",
                partial(gt, change.order),
                unit=unit,
                contents=partial(_partly, number, index, change.order, kept),
            )


def _partly(
    torn: int, index: int, order: int, kept: range, number: int, journal: tuple[Write | Length, ...], _unit: int
) -> tuple[Choice, int]:
    if number == torn:
        return (lambda sector: index + (sector in kept)), index + 1
    before = sum(change.order < order for change in journal)
    return (lambda _: before), before


def _sampled(instant: Instant, seed: int, sample: int) -> Image:
    """Each file, sector and name for itself; some files keep all or nothing, so that extremes meet."""
    rng = Random(seed)
    unit = rng.choice(SECTORS)
    kept = {order for order, _ in instant.namings if rng.random() < 0.6}

    def contents(_number: int, journal: tuple[Write | Length, ...], _unit: int) -> tuple[Choice, int]:
        count = len(journal)
        style = rng.choice(("nothing", "all", "prefix", "sectors", "sectors", "latest"))
        size = rng.choice((0, count, rng.randint(0, count)))
        if style == "nothing":
            return (lambda _: 0), size
        if style == "all":
            return (lambda _: count), count
        if style == "prefix":
            some = rng.randint(0, count)
            return (lambda _: some), some
        chosen: dict[int, int] = {}

        def taken(sector: int) -> int:
            if sector not in chosen:
                late = style == "latest" and rng.random() < 0.9
                chosen[sector] = count if late else rng.choice((0, count, rng.randint(0, count)))
            return chosen[sector]

        return taken, size

    return _compose(instant, f"sample {sample} at {unit}", lambda order: order in kept, unit=unit, contents=contents)


# -- page files ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class PageInstant:
    """A page file in the middle of a commit: the state before, and the data and meta pages that the commit wrote."""

    before: bytes
    after: bytes
    data: tuple[int, ...]
    meta: tuple[int, ...]
    page: int

    def recipes(self, rng: Random, samples: int) -> list[Callable[[], tuple[str, bytes]]]:
        """Nothing, all, data pages alone, each data page missing or torn, the meta page torn; then samples."""
        everything = frozenset(self.data)

        def state(how: str, data: Iterable[int] = (), torn: Iterable[int] = ()) -> Callable[[], tuple[str, bytes]]:
            whole, half, seed = frozenset(data), frozenset(torn), rng.getrandbits(64)
            return lambda: (how, self._build(whole, half, Random(seed)))

        made = [state("before the commit"), state("all data pages, no meta page", everything)]
        for number in self.data:
            made.append(state(f"without data page {number}", everything - {number}))
            made.append(state(f"data page {number} alone, torn", torn={number}))
        made += [state(f"meta page {number} torn", everything, {number}) for number in self.meta]
        made.append(lambda: ("after the commit", self.after))
        for sample in range(samples):
            some = [number for number in self.data if rng.random() < 0.5]
            torn = [number for number in self.data if number not in some and rng.random() < 0.3]
            made.append(state(f"sample {sample}: {len(some)} of {len(self.data)} data pages, {len(torn)} torn", some, torn))
        return made

    def images(self, rng: Random, samples: int) -> Iterator[tuple[str, bytes]]:
        return (recipe() for recipe in self.recipes(rng, samples))

    def dishonest(self) -> tuple[str, bytes]:
        """The control: the meta page there and the data pages not, as on a disk whose sync lies."""
        return "the meta page without its data pages", self._build(frozenset(self.meta), frozenset(), Random(0))

    def _build(self, whole: frozenset[int], torn: frozenset[int], rng: Random) -> bytes:
        image = bytearray(self.before)
        for number in sorted(whole | torn):
            start, end = number * self.page, min((number + 1) * self.page, len(self.after))
            image.extend(bytes(max(0, end - len(image))))
            for at in range(start, end, SECTORS[0]):
                if number in whole or rng.random() < 0.5:
                    stop = min(at + SECTORS[0], end)
                    image[at:stop] = self.after[at:stop]
        return bytes(image)


class PageFile:
    """Watches one LMDB data file (not a writable map). `settle()` before a commit, `cut()` after it.

    The file may not exist yet. Meta pages are the first two.
    """

    def __init__(self, path: Path, page: int = 4096) -> None:
        self._path = path
        self._page = page
        self._before = b""
        self.settle()

    def settle(self) -> None:
        """What is in the file now is durable: nothing of LMDB is in flight."""
        self._before = self._read()

    def cut(self) -> PageInstant:
        """The commit since `settle` as a power cut in the middle of it would find it; settles again."""
        before, after = self._before, self._read()
        self._before = after
        pages = range((max(len(before), len(after)) + self._page - 1) // self._page)
        changed = [n for n in pages if before[n * self._page : (n + 1) * self._page] != after[n * self._page : (n + 1) * self._page]]
        return PageInstant(before, after, tuple(n for n in changed if n > 1), tuple(n for n in changed if n <= 1), self._page)

    def still(self) -> PageInstant:
        """The file at rest, for a scene in which only others are in flight."""
        now = self._read()
        return PageInstant(now, now, (), (), self._page)

    def _read(self) -> bytes:
        return self._path.read_bytes() if self._path.exists() else b""


# -- both at once -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Scene:
    """The log's files and the page files at one instant; `pages` by their path below the same root."""

    log: Instant
    pages: dict[str, PageInstant] = field(default_factory=dict)

    def images(self, rng: Random, samples: int) -> Iterator[Image]:
        """Every image of the log and every state of the pages once, paired in turn; then samples of all pairs."""
        logs = recipes(self.log, rng, samples)
        states = {path: page.recipes(rng, samples) for path, page in self.pages.items()}
        for number in range(max([len(logs), *map(len, states.values())])):
            yield self._join(logs[number % len(logs)](), {path: some[number % len(some)]() for path, some in states.items()})
        for _ in range(samples):
            yield self._join(rng.choice(logs)(), {path: rng.choice(some)() for path, some in states.items()})

    @staticmethod
    def _join(log: Image, pages: Mapping[str, tuple[str, bytes]]) -> Image:
        how = "; ".join([log.how, *(f"{path}: {what}" for path, (what, _) in pages.items())])
        return Image(how, {**log.files, **{path: data for path, (_, data) in pages.items()}}, log.directories)
