"""The blocking twin and the persistent dictionary against a real server."""

# ruff: noqa: PT012 - what is raised is raised within a transaction
from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

import jetwire
import jetwire.sync
from jetwire import PersistentDict
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


@pytest.mark.parametrize("empty", ["", b""], ids=["text", "bytes"])
def test_an_empty_key_is_a_key(url: str, database: str, empty: Any) -> None:
    kind = type(empty)
    with PersistentDict(database, kind, int, url=url) as there:
        there.update({empty: 1, kind(b"a") if kind is bytes else "a": 2})
        assert empty in there
        assert there[empty] == 1
        assert list(there.keys_between(empty, empty)) == [empty]
        assert there.popitem() == (empty, 1)
        there[empty] = 3
        there.clear()
        assert len(there) == 0


def test_keys_that_cannot_be_there_are_not_there(url: str, database: str) -> None:
    with PersistentDict(database, int, str, url=url) as numbers:
        for wrong in (1 << 63, -(1 << 63) - 1, 10**400):
            assert wrong not in numbers
            assert numbers.get(wrong, "none") == "none"
            with pytest.raises(ValueError, match="64 bits"):
                numbers[wrong] = ""
        for right in ((1 << 63) - 1, -(1 << 63)):
            numbers[right] = "edge"
            assert numbers[right] == "edge"


def test_half_a_character_is_no_key(url: str, database: str) -> None:
    with PersistentDict(database, str, str, url=url) as texts:
        assert "\ud800" not in texts
        with pytest.raises(ValueError, match="surrogates"):
            texts["\ud800"] = ""


def test_values_of_classes_of_their_own(url: str, database: str) -> None:
    """As numpy's floats are, and texts of a library that mark what is safe."""

    class Safe(str):
        def __str__(self) -> str:
            return "something else"

    class Exact(float):
        pass

    with jetwire.sync.connect(url) as server, server.session() as session:
        table = session.open(database, create=True).create_table("t", {"id": "Text", "x": "IEEEDouble"}, primary="id")
        table.insert({"id": Safe("a"), "x": Exact("nan")}, {"id": "b", "x": Exact(0.5)})
        record = table.get(Safe("a"))
        assert record is not None
        assert repr(record["x"]) == "nan"
        assert [one["id"] for one in table.range(Safe("a"), "b")] == ["a", "b"]


def test_programs_that_open_and_change_one_dictionary_at_once(url: str, database: str) -> None:
    wrong: list[Exception] = []

    def work() -> None:
        try:
            with PersistentDict(database, str, int, url=url) as there:
                for n in range(20):
                    there["one"] = n
                    there[f"new{n}"] = n
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    with PersistentDict(database, str, int, url=url) as there:
        assert len(there) == 21
        there.clear()
        assert dict(there) == {}
