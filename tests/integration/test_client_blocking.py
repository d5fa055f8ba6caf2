"""The blocking twin and the persistent dictionary against a real server."""

# ruff: noqa: PT012 - what is raised is raised within a transaction
from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

import jetwire
import jetwire.sync
from jetwire.errors import JetwireError, KeyDuplicate
from tests.support.server_process import ServerProcess


@pytest.fixture(params=["tcp", "unix", "ws"])
def url(request: pytest.FixtureRequest, shared_server: ServerProcess) -> str:
    return shared_server.addresses[request.param]


def test_the_same_names_without_await(url: str, database: str) -> None:
    with jetwire.sync.connect(url) as server, server.session() as session:
        db = session.open(database, create=True)
        table = db.create_table("people", {"id": "Long", "name": "Text"}, primary="id", unique={"byName": "+name"})
        with session.transaction():
            table.insert(*({"id": n, "name": f"n{n:03}"} for n in range(100)))
        assert table.get(5) == {"id": 5, "name": "n005"}
        assert [r["id"] for r in table.range(10, 12)] == [10, 11, 12]
        assert [r["id"] for r in table.range("n097", index="byName", reverse=True, page=2)] == [99, 98, 97]
        with pytest.raises(KeyDuplicate), session.transaction():
            table.insert({"id": 200, "name": "x"})
            table.insert({"id": 201, "name": "X"})
        assert table.get(200) is None
        assert table.count() == 100
        assert session.retry(lambda: table.delete({"id": 1})) == 1
        assert table.get(1) is None


def test_a_persistent_dictionary(url: str, database: str) -> None:
    with jetwire.PersistentDict(database, str, int, url=url) as numbers:
        assert len(numbers) == 0
        assert list(numbers) == []
        numbers["one"] = 1
        numbers.update({"two": 2, "three": 3})
        assert numbers["ONE"] == 1, "text compares as the engine compares it"
        assert list(numbers) == ["one", "three", "two"], "sorted by key"
        assert list(reversed(numbers)) == ["two", "three", "one"]
        assert dict(numbers.items()) == {"one": 1, "two": 2, "three": 3}
        assert sorted(numbers.values()) == [1, 2, 3]
        assert list(numbers.keys_between("p")) == ["three", "two"]
        assert list(numbers.items_between("a", "p")) == [("one", 1)]
        with pytest.raises(KeyError):
            numbers["four"]
        with pytest.raises(KeyError):
            del numbers["four"]
        assert numbers.get("four", 4) == 4
        with pytest.raises(ZeroDivisionError), numbers.transaction():
            numbers["four"] = 4
            raise ZeroDivisionError
        assert "four" not in numbers
        for name in numbers:  # changing what is walked
            numbers[name] += 10
        assert numbers.pop("two") == 12
    with jetwire.PersistentDict(database, str, int, url=url) as again:
        assert dict(again) == {"one": 11, "three": 13}
        again.clear()
        assert not again
    with pytest.raises(JetwireError, match="other types"):
        jetwire.PersistentDict(database, int, int, url=url)
    with pytest.raises(TypeError):
        jetwire.PersistentDict(database, dict, int, url=url)


@pytest.mark.parametrize(
    ("key", "value"),
    [(5, b"\x00"), (1.5, True), (datetime(2024, 1, 2, 3, tzinfo=UTC), UUID(int=7)), (UUID(int=1), "x" * 10_000), (b"k", 2.5)],
    ids=lambda v: type(v).__name__,
)
def test_kinds_of_keys_and_values(shared_server: ServerProcess, database: str, key: object, value: object) -> None:
    with jetwire.PersistentDict(database, type(key), type(value), url=shared_server.addresses["tcp"]) as things:
        things[key] = value
        assert list(things.items()) == [(key, value)]
        assert key in things


@pytest.mark.parametrize(
    "keys",
    [("k" * 126 + "1", "k" * 126 + "2"), ("e" * 127, "e" * 126 + "é"), ("日" * 126 + "本", "日" * 127), ("-" * 126 + "a", "'" * 126 + "a")],
    ids=["last letter", "last accent", "last ideograph", "punctuation"],
)
def test_two_keys_are_two_entries_however_late_they_differ(shared_server: ServerProcess, database: str, keys: tuple[str, str]) -> None:
    """An index keeps what fits into its keys, so the second would have become the value of the first."""
    with jetwire.PersistentDict(database, str, int, url=shared_server.addresses["tcp"]) as things:
        things.update(dict.fromkeys(keys, 0))
        things[keys[1]] = 1
        assert [things[key] for key in keys] == [0, 1]
        assert len(things) == 2


@pytest.mark.parametrize(
    ("kind", "wrong"), [(str, [5, None, b"a", "k" * 128]), (bytes, ["abcd", b"k" * 256]), (int, [True, "1", 1.5]), (float, [False, "NaN"])]
)
def test_a_dictionary_refuses_what_it_would_not_give_back(
    shared_server: ServerProcess, database: str, kind: type[object], wrong: list[object]
) -> None:
    """A key that is cut, a NULL or a text that is taken for base64 would be found under another name, or make it unreadable."""
    with jetwire.PersistentDict(database, kind, kind, url=shared_server.addresses["tcp"]) as things:
        for key in wrong:
            assert key not in things
            with pytest.raises(KeyError):
                things[key]
            with pytest.raises(KeyError):
                del things[key]
            with pytest.raises((TypeError, ValueError), match="a key"):
                things[key] = kind()
        for value in wrong[:1]:
            with pytest.raises(TypeError, match="a value of this dictionary is"):
                things[kind()] = value
        assert list(things.items()) == []
