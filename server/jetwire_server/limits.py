"""Every bound of the server, by floor. Exceeding one is a typed error, never a crash.

A room adds its own bounds here, with the unit in the name and the reason beside it.
"""

from __future__ import annotations

KEY_BYTES_MAX = 2_000  # JET_paramIndex... may allow this much; LMDB 1.0's page format takes 1,978 with the tree's prefix
KEY_BYTES_DEFAULT = 255  # JET_cbKeyMost of small pages, ESE's default
TRANSACTION_LEVELS_MAX = 7
DATABASES_PER_INSTANCE_MAX = 6

# -- store ------------------------------------------------------------------------------------------------------------
TREE_KEY_BYTES_MAX = 1_969  # a key below the door: LMDB's 1,978 less the nine bytes the longest tree prefix takes
VERSION_BYTES_MAX = 384 << 20  # write sets and versions above the pages; more is JET_errVersionStoreOutOfMemory
VERSION_BYTES_SLOW = 128 << 20  # from here on new transactions and commits wait for the checkpoint
VERSION_BYTES_CHECKPOINT = 32 << 20  # a checkpoint starts by itself when this much is above the pages
GENERATIONS_MAX = 64  # page generations held by old snapshots; at the limit the newest one is used on, and grows

FREEZE_MS_MAX = 600_000  # the hard maximum of a freeze, renewed or not: writers must never wait longer for an operator
SNAPSHOTS_TIMED_OUT_KEPT = 16  # sessions that still have to tell their caller of a time-out, after a new Prepare

ROW_PLANS_WEIGHT_MAX = 1 << 16  # columns in the remembered row shapes of one schema, each kind of cache; full, it starts anew
GATE_LOOK_SECONDS = 0.05  # who waits at the gate looks at the clock this often: a freeze ends this late at most
