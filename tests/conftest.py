"""What holds for all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("jetwire", deadline=None)  # how long an example takes says more about the machine than about the code
settings.load_profile("jetwire")

signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, and what tests start would ignore it, too
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the same under nohup
