"""What comes of a message: an answer, silence, or an answer that comes later; and the answers of a JSON-RPC batch, gathered."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from jetwire_protocol import jsonrpc
from jetwire_protocol.jsonrpc import Message


class Pending:
    """Told apart from None, which is silence: the answer comes later."""

    def __repr__(self) -> str:
        return "PENDING"


PENDING: Final = Pending()
Answer = bytes | None | Pending
Deliver = Callable[[bytes | None], None]


class Gathered:
    """The answers of a JSON-RPC batch, until the last of them is there."""

    def __init__(self, messages: list[Message], bytes_max: int, deliver: Deliver) -> None:
        self._messages = messages
        self._answers: list[bytes | None] = [None] * len(messages)
        self._missing = 0
        self._bytes = 0
        self._bytes_max = bytes_max
        self._deliver = deliver
        self._started = False

    def start(self, run: Callable[[Message, Deliver], Answer]) -> Answer:
        """Runs every message as far as it goes now. The whole answer, or PENDING if it is delivered later."""
        for place, message in enumerate(self._messages):
            answer = run(message, partial(self._late, place))
            if isinstance(answer, Pending):
                self._missing += 1
            else:
                self._put(place, answer)
        self._started = True
        return PENDING if self._missing else self._whole()

    def _put(self, place: int, answer: bytes | None) -> None:
        if answer is not None:
            self._bytes += len(answer)
            if self._bytes > self._bytes_max:
                call = self._messages[place]
                answer = jsonrpc.encode_error(call.id, jsonrpc.TOO_LARGE, jsonrpc.MESSAGES[jsonrpc.TOO_LARGE], {"limit": "result"})
        self._answers[place] = answer

    def _late(self, place: int, answer: bytes | None) -> None:
        self._put(place, answer)
        self._missing -= 1
        if self._started and not self._missing:
            self._deliver(self._whole())

    def _whole(self) -> bytes | None:
        given = [answer for answer in self._answers if answer is not None]
        return jsonrpc.encode_batch(given) if given else None
