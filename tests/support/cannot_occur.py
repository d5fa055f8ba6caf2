"""Documented errors and flags that no call can get from Jetwire, and why: a reason, and who is meant by it.

Strict: what could occur and was merely never tried does not belong here. `EVERYWHERE` stands for all functions that
document the name. A name that is shown after all fails a test (tests/quality/test_coverage.py).
"""

from __future__ import annotations

EVERYWHERE = "*"

# reason -> C name of an error or flag -> the functions it is impossible for
REASONS: dict[str, dict[str, tuple[str, ...]]] = {
    "calls of one session queue, and another connection's session is InvalidSesid": {"JET_errSessionSharingViolation": (EVERYWHERE,)},
    "served after StopService: it gives something back": {"JET_errClientRequestToStopJetService": ("EndSession", "Rollback")},
    "it names its instance": {
        "JET_errRunningInMultiInstanceMode": (
            *("BeginExternalBackupInstance", "EndExternalBackupInstance", "GetAttachInfoInstance", "GetLogInfoInstance"),
            *("OpenFileInstance", "ReadFileInstance", "CloseFileInstance", "TruncateLogInstance", "RestoreInstance"),
        ),
    },
    "the server always runs in multi-instance mode": {"JET_errRunningInOneInstanceMode": (EVERYWHERE,)},
    "it takes a session, and there is none before the instance runs": {
        "JET_errInitInProgress": ("SetSessionParameter",),
        "JET_errInvalidInstance": ("SetSessionParameter",),
    },
    "an instance that was never initialised is given back": {"JET_errNotInitialized": ("Term",)},
}


def reason(function: str, name: str) -> str | None:
    """Why the function never answers it; None if it can."""
    for why, names in REASONS.items():
        if function in names.get(name, ()) or EVERYWHERE in names.get(name, ()):
            return why
    return None
