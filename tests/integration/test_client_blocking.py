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
