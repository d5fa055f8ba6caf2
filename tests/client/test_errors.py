"""The exceptions: one for each of the engine's errors, found by name, by code and through pickle."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import jetwire
from jetwire import errors
from jetwire.errors import EngineError, KeyDuplicate, RpcError, WriteConflict, error_for
from jetwire_protocol.errors import Err


def test_every_error_of_the_engine_has_its_class() -> None:
    for err in Err:
        if err:
            kind = getattr(errors, err.name)
            assert issubclass(kind, EngineError)
            assert type(error_for(err, f"JET_err{err.name}", {})) is kind


def test_errors_are_caught_by_any_of_their_bases() -> None:
    for base in (KeyDuplicate, EngineError, jetwire.JetwireError):
        with pytest.raises(base):
            raise error_for(Err.KeyDuplicate, "JET_errKeyDuplicate", {})
    assert not issubclass(WriteConflict, KeyDuplicate)


def test_what_the_server_adds_is_kept() -> None:
    error = error_for(Err.WriteConflict, "JET_errWriteConflict", {"description": "key 5", "retryable": True, "index": 3, "code": 9})
    assert isinstance(error, WriteConflict)
    assert str(error) == "JET_errWriteConflict (-1102): key 5"
    assert error.retryable
    assert error.data["index"] == 3
    assert error.code == -1102, "nothing in the data can pass for the code"


def test_a_code_that_is_not_known_is_still_an_error_of_the_engine() -> None:
    error = error_for(-9999, "JET_errFromTheFuture", {"description": "new"})
    assert type(error) is EngineError
    assert error.code == -9999


def test_names_that_are_none() -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        errors.Nonsense  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError):
        errors.BY_CODE  # type: ignore[attr-defined]  # noqa: B018


KEY_DUPLICATE = error_for(-1605, "", {"description": "x", "retryable": False, "indexname": "a"})


@pytest.mark.parametrize("error", [KEY_DUPLICATE, RpcError(-32602, "Invalid params", {"member": "m"})])
def test_errors_survive_pickle(error: Any) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.data == error.data
