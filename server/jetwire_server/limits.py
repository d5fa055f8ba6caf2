"""Every bound of the server, by floor. Exceeding one is a typed error, never a crash.

A room adds its own bounds here, with the unit in the name and the reason beside it.
"""

from __future__ import annotations

KEY_BYTES_MAX = 2_000  # JET_paramIndex... may allow this much; LMDB 1.0's page format takes 1,978 with the tree's prefix
KEY_BYTES_DEFAULT = 255  # JET_cbKeyMost of small pages, ESE's default
TRANSACTION_LEVELS_MAX = 7
DATABASES_PER_INSTANCE_MAX = 6
