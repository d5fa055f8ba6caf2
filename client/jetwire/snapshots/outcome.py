"""How a run ended, and the exit code that says so to scripts."""

from __future__ import annotations

from enum import Enum


class Outcome(Enum):
    CONSISTENT = ("consistent", 0)
    FREEZE_LOST = ("freeze lost", 3)  # some gate opened before the provider was done: the copy proves nothing
    REFUSED = ("refused", 4)  # a server would not prepare or freeze; nothing was copied
    PROVIDER_FAILED = ("provider failed", 5)
    VERIFICATION_FAILED = ("verification failed", 6)

    def __init__(self, text: str, exit_code: int) -> None:
        self.text = text
        self.exit_code = exit_code


class RunFailed(Exception):
    """Ends a run early. The message is for the operator."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome
