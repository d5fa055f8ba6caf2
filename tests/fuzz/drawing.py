"""Calls that look valid, drawn from the declarations: handles that are alive, names that are there, flags of the right group.

Half of them are steps of the table of valid calls (`tests.support.calls`), which lead to where hardly anybody gets by chance:
into a backup, a frozen snapshot, a prepared update. What an answer brings (handles, bookmarks, files) is drawn from later.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from jetwire_protocol.data.flags import GROUPS
from jetwire_protocol.data.parameters import PARAMETERS
from jetwire_protocol.declarations import METHODS, TYPES, Member, Method
from tests.support.bench import at, filled
from tests.support.calls import CALLS, COLUMNS, Params, Step

HANDLES = frozenset({"instance", "sesid", "dbid", "tableid", "snapId", "handle", "columnid", "callbackId", "subscription"})
BYTES = frozenset({"bookmark", "data", "primaryKey", "secondaryKey", "indexid"})
ALSO = {"newSesid": "sesid"}
HOME = ("sesid", "dbid", "tableid")  # handles that are good only together

DATABASES = ["world.edb", "a.edb", "d/b.edb"]
DATABASES_OF_ALL = ["default/world.edb", "default/a.edb", "world.edb"]
TABLES = ["t", "u", "MSysObjects"]
COLUMN_NAMES = [column["name"] for column in COLUMNS]
INDEX_NAMES = ["primary", "byName", "i"]
DIRECTORIES = ["bk", "default/bk", "default", ".", "log"]
WORDS: dict[str, list[str]] = {
    **dict.fromkeys(("database", "sourceDatabase", "destinationDatabase"), DATABASES),
    **dict.fromkeys(("databaseName", "newDatabaseName"), DATABASES_OF_ALL),
    **dict.fromkeys(("tablename", "newTablename", "objectName", "templateTableName"), TABLES),
    **dict.fromkeys(("columnname", "newName"), COLUMN_NAMES),
    "indexname": INDEX_NAMES,
    **dict.fromkeys(
        (
            *("destination", "source", "logPath", "backupLogPath", "checkpointFilePath"),
            *("targetInstanceLogPath", "targetInstanceCheckpointPath"),
        ),
        DIRECTORIES,
    ),
    "name": [*TABLES, *COLUMN_NAMES, *INDEX_NAMES, "default", "other"],
    "topics": ["snapshot", "events", "sessions", "log"],
    "mode": ["insert", "replace", "upsert", "delete"],
    "direction": ["forward", "backward"],
    "int64": ["string", "number"],
    "localeName": ["en-US", "de-DE", "x"],
    "file": ["edb.chk", "backup.json", "world.edb"],
    "key": ["+id", "+name", "-sum", "+tags"],
    "keyDescription": ["+name", "-note", "+nothing"],
}
# Sizes and times, which a test must not take at their word.
BOUNDED: dict[str, Sequence[int]] = {
    **dict.fromkeys(("desiredPages", "pages", "maxPages", "initial", "minExtent", "maxExtent"), (-1, 0, 1, 300, 2_000)),
    **dict.fromkeys(("leaseMs", "maxDrainMs", "durableCommit"), (-1, 0, 1, 20, 200, 10**12)),
    "bufferSize": (-1, 0, 1, 4096, 65_536, 4 << 20),
    "seconds": (0, 1),
    "passes": (0, 1, 2),
    "limit": (-1, 0, 1, 3, 1_000),
    "cp": (1200, 1252, 0, 65_001),
    "lcid": (0, 1033, 1031, 99),
}
SMALL = (0, 1, 2, 3, 7, 100, 255)
EDGES = (-1, 256, 65_536, 2**31 - 1, 2**31, 2**32, 2**63 - 1, -(2**63), 2**64 - 1)
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    1,
    2,
    3,
    -1,
    2**40,
    1.5,
    "",
    "one",
    "two",
    "x" * 300,
    "2020-02-02T02:02:02",
    {"base64": "AAECAw=="},
)
ENDING = frozenset({"StopService", "StopServiceInstance", "Term", "EnableMultiInstance"})  # rarely, or nothing else is seen
LIST_MAX = 3


class Call(NamedTuple):
    """A call that was drawn; `keeps` as in `Step`."""

    method: str
    params: Params
    keeps: dict[str, str]


class Caller:
    """Draws one call after the other. Everything comes from `chance`: the same seed and answers, the same calls."""

    def __init__(self, chance: random.Random, homes: list[Params], instance: int) -> None:
        self._chance = chance
        self._homes = homes  # of each session: its handles
        self._known: dict[str, list[Any]] = {"instance": [instance], "file": list(WORDS["file"])}
        self._planned: list[Step] = []
        self._names = 0
        self._kept: dict[str, Any] = {}
        for home in homes:
            self.learn(home)

    # -- what answers tell ----------------------------------------------------------------------------------------
    def told(self, call: Call, result: Params) -> None:
        """Remembers what a result brings."""
        self.learn(result, call.params)
        for name, path in call.keeps.items():
            with suppress(LookupError):  # a list without that place
                self._kept[name] = at(result, path)

    def learn(self, result: Any, home: Params | None = None) -> None:
        """Remembers the handles and bytes of a result; `home` are the params of its call."""
        if isinstance(result, list):
            for one in result[:LIST_MAX]:
                self.learn(one, home)
        elif isinstance(result, dict):
            result = {ALSO.get(name, name): value for name, value in result.items()}
            for name, value in result.items():
                if (name in HANDLES and type(value) is int) or (name in BYTES and isinstance(value, str)):
                    self._remember(name, value)
                elif name == "files" and isinstance(value, list):
                    for file in value:
                        self._remember("file", file)
                elif isinstance(value, (dict, list)):
                    self.learn(value, home)
            new = {name: result[name] for name in HOME if type(result.get(name)) is int}
            if new and home is not None:
                self._homes.append({**{name: home[name] for name in HOME if type(home.get(name)) is int}, **new})

    def _remember(self, name: str, value: Any) -> None:
        known = self._known.setdefault(name, [])
        if isinstance(value, (int, str)) and value not in known:
            known.append(value)
            del known[:-20]

    # -- calls ------------------------------------------------------------------------------------------------------
    def call(self, *, ending: bool = False) -> Call:
        """The next call: a step of what is planned, a new plan's first, or any call at all."""
        chance = self._chance
        if self._planned and chance.random() < 0.85:
            return self._step(self._planned.pop(0))
        while True:
            name = chance.choice(list(METHODS))
            if name not in ENDING or ending or chance.random() < 0.05:
                break
        if chance.random() < 0.5:
            form = CALLS[name]
            self._names += 1
            self._kept = {**self._home(), "instance": self._known["instance"][0], "table": "tn1", "name": f"fuzz{self._names}"}
            self._kept["keeper"] = self._kept["sesid"]
            self._planned = [*form.before, Step(name, form.params, form.keeps), *(form.after if chance.random() < 0.7 else ())]
            return self._step(self._planned.pop(0))
        return Call(name, self._params(METHODS[name]), {})

    def _step(self, step: Step) -> Call:
        """A planned step; what an earlier one did not bring is drawn."""
        for name in (word for word in _variables(step.params) if word not in self._kept):
            self._kept[name] = self._of(_HELD.get(name, name))
        return Call(step.method, filled(step.params, self._kept), step.keeps)

    def _home(self) -> Params:
        home = dict(self._chance.choice(self._homes[-12:] if self._chance.random() < 0.7 else self._homes[:3]))
        return {**{name: self._of(name) for name in HOME if name not in home}, **home}

    def _of(self, name: str) -> Any:
        """Something known of that name, mostly one of the latest; a few times what nobody has."""
        known = self._known.get(name)
        if known and self._chance.random() < 0.95:
            return self._chance.choice(known[-4:])
        return self._chance.choice((0, 99, 2**31)) if name in HANDLES else ""

    def _params(self, method: Method, depth: int = 0) -> Params:
        home = self._home()
        params: Params = {}
        for member in method.params:
            if member.name == "token":
                continue  # a wrong one ends all that is of interest
            if member.required or self._chance.random() < 0.4:
                params[member.name] = home[member.name] if member.name in home else self._value(member, member.type, depth)
        if self._chance.random() < 0.02:
            params[self._chance.choice(["sesid", "nothing", "grbit"])] = self._chance.choice(VALUES)
        return params

    def _value(self, member: Member, kind: str, depth: int) -> Any:
        chance = self._chance
        if " | " in kind:
            kind = chance.choice(kind.split(" | "))
        if kind.startswith("list of "):
            inner = kind.removeprefix("list of ")
            return [self._value(member, inner, depth + 1) for _ in range(chance.randrange(LIST_MAX + 1))]
        if kind.startswith("object "):
            members = TYPES[kind.removeprefix("object ")].members
            few = 0.3 if depth < 3 else 0.0
            drawn = {m.name: self._value(m, m.type, depth + 1) for m in members if m.required or chance.random() < few}
            if kind == "object BATCH_CALL":
                method = METHODS[chance.choice([name for name in METHODS if name not in ENDING])]
                return {"method": method.name, "params": {} if method.name == "Batch" else self._params(method, depth + 1)}
            return drawn
        if kind.startswith("map of "):
            return {name: chance.choice(VALUES) for name in chance.sample(COLUMN_NAMES, chance.randrange(4))}
        if kind == "int":
            return self._int(member)
        if kind == "base64":
            return self._of("bookmark") if chance.random() < 0.6 else base64.b64encode(chance.randbytes(chance.randrange(12))).decode()
        if kind == "string":
            return self._word(member.name)
        return {"bool": chance.random() < 0.5, "number": 1.5}.get(kind, chance.choice(VALUES))

    def _word(self, name: str) -> str:
        chance = self._chance
        if name == "file" and chance.random() < 0.8:
            return str(self._of("file"))
        words = WORDS.get(name)
        return chance.choice(words) if words and chance.random() < 0.95 else chance.choice(["", "x", "..", "a\0b", "é" * 70])

    def _int(self, member: Member) -> Any:
        chance = self._chance
        if member.name in BOUNDED:
            return chance.choice(BOUNDED[member.name])
        group, _, names = member.names.partition(":")
        if group == "flags":
            return self._flags(names)
        if group == "enum":
            return int(chance.choice(list(GROUPS[names].__members__.values())).value) if chance.random() < 0.95 else chance.choice(EDGES)
        if group == "parameter":
            return chance.choice(list(PARAMETERS))
        if group == "column":
            return chance.choice(COLUMN_NAMES) if chance.random() < 0.8 else self._of("columnid")
        if member.name in HANDLES:
            return self._of(member.name)
        return chance.choice(SMALL if chance.random() < 0.9 else EDGES)

    def _flags(self, groups: str) -> int:
        chance = self._chance
        if chance.random() < 0.5:
            return 0
        bits = [int(bit.value) for group in groups.split(",") if group in GROUPS for bit in GROUPS[group].__members__.values()]
        if not bits or chance.random() < 0.03:
            return chance.choice(EDGES)
        drawn = 0
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            drawn |= chance.choice(bits)
        return drawn


_HELD = {"snap": "snapId", "secondary": "secondaryKey", "primary": "primaryKey", "key": "data", "callback": "callbackId", "own": "dbid"}
_HELD |= {"other": "instance", "again": "instance", "chk": "file", "log": "file", "manifest": "file"}


def _variables(value: Any) -> list[str]:
    """The `$name`s in params, wherever they stand."""
    if isinstance(value, str):
        return [word.split(".")[0].split("/")[0] for word in value.split("$")[1:]]
    if isinstance(value, dict):
        value = list(value.values())
    return [name for one in value for name in _variables(one)] if isinstance(value, list) else []
