"""What comes of a message: an answer, silence, or an answer that comes later; and the answers of a JSON-RPC batch, gathered."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from jetwire_protocol import jsonrpc
from jetwire_protocol.jsonrpc import Message
from jetwire_server import limits
from jetwire_server.clock import Clock


class Pending:
    """Told apart from None, which is silence: the answer comes later."""

    def __repr__(self) -> str:
        return "PENDING"


PENDING: Final = Pending()
Answer = bytes | None | Pending
Deliver = Callable[[bytes | None], None]
Run = Callable[[Message, Deliver], Answer]


class Gathered:
    """A JSON-RPC batch: its calls, run as far as each goes now, and their answers, until the last of them is there.

    With a clock it runs for a turn at a time: then `go_on` answers itself, and is to be called again once others had theirs,
    before any later message of the connection.
    """

    def __init__(self, messages: list[Message], run: Run, bytes_max: int, deliver: Deliver, clock: Clock | None) -> None:
        self._messages = messages
        self._run = run
        self._answers: list[bytes | None] = [None] * len(messages)
        self._next = 0
        self._missing = 0
        self._bytes = 0
        self._bytes_max = bytes_max
        self._deliver = deliver
        self._clock = clock

    def go_on(self) -> Answer | Gathered:
        """The whole answer, PENDING if it is delivered later, or this if there is more to run."""
        messages, clock = self._messages, self._clock
        until = clock.boot() + limits.TURN_SECONDS if clock is not None else 0.0
        while self._next < len(messages):
            if clock is not None and clock.boot() > until:
                return self
            place = self._next
            self._next += 1
            answer = self._run(messages[place], partial(self._late, place))
            if isinstance(answer, Pending):
                self._missing += 1
            else:
                self._put(place, answer)
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
        if self._next == len(self._messages) and not self._missing:
            self._deliver(self._whole())

    def _whole(self) -> bytes | None:
        given = [answer for answer in self._answers if answer is not None]
        return jsonrpc.encode_batch(given) if given else None
