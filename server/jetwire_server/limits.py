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
VERSION_PAGE_BYTES = 32 << 10  # what JET_paramMaxVerPages counts, as on 64-bit Windows, unless JET_paramVerPageSize is more
VERSION_BYTES_MIN = 1 << 20  # JET_paramMaxVerPages below this is taken as this: the engine's own work must fit
VERSION_BYTES_SLOW = 128 << 20  # from here on new transactions and commits wait for the checkpoint
VERSION_BYTES_BULK = 8 << 20  # commits of many rows wait while more than this is not in the pages
VERSION_BYTES_CHECKPOINT = 32 << 20  # a checkpoint starts by itself when this much is above the pages
GENERATIONS_MAX = 64  # page generations held by old snapshots; at the limit the newest one is used on, and grows
STRUCTURE_PAGES_MAX = 16_384  # looked at before a page file is opened, about 0.3 s; what lies beyond is for check and scrub
PAGE_VIEWS_MAX = 1_024  # LMDB readers of a file: generations, trees being built, scrubs; a slot costs 64 bytes

FREEZE_MS_MAX = 600_000  # the hard maximum of a freeze, renewed or not: writers must never wait longer for an operator
SNAPSHOT_PREPARED_SECONDS = 900.0  # a session prepared and not spoken of for so long is aborted: it blocks every other
SNAPSHOT_THAWED_SECONDS = 3_600.0  # the same after the thaw, when a verification may take its time; attach and detach wait for its end
THAW_COURTESY_SECONDS = 0.1  # after a thaw the snapshot's own files wait for the commits that waited, this long at most
SNAPSHOTS_TIMED_OUT_KEPT = 16  # sessions that still have to tell their caller of a time-out, after a new Prepare

ROW_PLANS_WEIGHT_MAX = 1 << 14  # columns in the remembered row shapes of one schema, each kind of cache (2-4 MB); full, it starts anew
GATE_LOOK_SECONDS = 0.05  # who waits at the gate looks at the clock this often: a freeze ends this late at most

# -- redo -------------------------------------------------------------------------------------------------------------
LOG_RECORD_BYTES_MAX = 256 << 20  # one commit's changes; a record is framed, and recovered, in one piece
LOG_KEPT_BYTES_MAX = 64 << 20  # a log of at most this much is read once at the start, a larger one twice: to check it, then to take it
LOG_BATCH_BYTES_MAX = 8 << 20  # the log writer takes at most this much (or one record) at a time, then syncs
LOG_GATHER_RECORDS = 64  # durable records are gathered while each turn of the loop brings more, up to so many ...
LOG_GATHER_TURNS = 4  # ... and for so many turns
LOG_HERE_BYTES_MAX = 256 << 10  # so much may be written and synced on the event loop's thread ...
LOG_HERE_SYNC_SECONDS = 0.0005  # ... while one of the last three syncs took less than this, and for each record gathered ...
LOG_HERE_SECONDS_A_RECORD = 0.000025  # ... so much more: about what it costs to hand one over
LOG_LAZY_SYNC_SECONDS_MAX = 0.1  # a lazy commit is durable this long after its write at the latest
LOG_SEAL_SECONDS = 0.5  # an idle log is sealed after this: damage to its last records can then be told from a torn tail
LOG_FILE_KB_MIN, LOG_FILE_KB_MAX, LOG_FILE_KB_DEFAULT = 64, 32_768, 5_120  # JET_paramLogFileSize

# -- rpc: Hello tells clients the first four; see jetwire_protocol.jsonrpc.WireLimits for what one message may weigh ---
CONNECTIONS_MAX = 8_192  # TCP, Unix and WebSocket together; one more is told so and closed
FILES_RESERVED = 2_560  # descriptors that connections leave to databases, logs and backups; a quarter, where there are few
FILES_OF_THE_SERVER = 16  # of those: its own lock, event table, standard streams
FILES_OF_AN_INSTANCE = 12  # log, scratch, backup, Compact; more instances are made only while there are so many left for each
FILES_OF_A_DATABASE = 4  # LMDB has three, a backup's copy one
FILES_UNLIMITED = 1 << 20  # descriptors, where the system has no limit
CALLS_IN_FLIGHT_MAX = 1_024  # a connection's calls that wait; more are refused
RESULT_BYTES_MAX = 64 << 20
RECORDS_BYTES = 16 << 20  # GetRecords ends a page here, however many records were asked for
WRITE_BUFFER_BYTES = 1 << 20  # more than this unread, and nothing more is read from that connection
WRITE_COPY_BYTES_MAX = 8 << 10  # a longer answer is not copied to have its line feed
WRITE_CHUNK_BYTES = 64 << 10  # answers of pipelined calls are written in pieces of about this size
UNREAD_BYTES_MAX = 128 << 20  # late answers and notifications nobody reads: the connection is dropped
SLOW_READER_SECONDS = 60.0  # a connection that reads nothing of what waits for it is dropped after this
HTTP_HEAD_SECONDS = 15.0  # a connection to the HTTP port whose first request has no whole head by then is answered 408
HTTP_BODY_SECONDS = 30.0  # a POST whose body has not come whole by then is answered 408
IDLE_SECONDS = 0.0  # a silent connection is closed after this; 0: never
SWEEP_SECONDS = 1.0  # how often connections are looked at for the two above
WEBSOCKET_PING_SECONDS = 30.0
BACKLOG = 1_024
TURN_SECONDS = 0.01  # pipelined calls of one connection, or those of a Batch, run so long before the others have their turn
DRAIN_SECONDS = 30.0  # SIGTERM waits this long for the calls that run

# -- engine -----------------------------------------------------------------------------------------------------------
NAME_BYTES_MAX = 64  # JET_cbNameMost: of tables, columns and indexes
PATH_BYTES_MAX = 246  # of a database, below its instance's directory
CATALOG_COLUMNS_MAX = 1 << 16  # of the table descriptions remembered for each database; what is made of one takes about 1.5 KB
FIXED_COLUMNS_BYTES_MAX = 32_000  # the fixed columns of a record together
INDEX_SEGMENTS_MAX = 16  # JET_ccolKeyMost
TERM_LOOK_SECONDS = 0.05  # Term waits for a snapshot to end, and looks this often
VERSION_FULLNESS_WARNED = 0.5  # Idle(IdleStatus) warns above this
KEYS_OF_A_RECORD_MAX = 250_000  # in one index: a cross product soon has billions; so many take 1.5 s
INDEX_CONDITIONS_MAX = 12  # columns an index may depend on without holding them
FILE_CHUNK_BYTES = 1 << 20  # what a stream of a file reads at once

EVENTS_KEPT = 10_000  # entries of the event table; the oldest go first
EVENTS_RETRY_SECONDS = 1.0  # how soon events are written again that the disk did not take
EVENTS_BYTES_MAX = 8 << 20  # the event table's file is written anew, without what is forgotten, beyond this

SUBSCRIPTIONS_PER_CONNECTION_MAX = 64
SESSIONS_LEFT_KEPT = 64  # of a connection, whose instances have ended: the last so many are told what became of them
# -- cursors ----------------------------------------------------------------------------------------------------------
READ_AHEAD_ROWS_MAX = 1_000  # entries a cursor takes from the store at once when it moves on and on
BULK_READ_ROWS = 4_000  # the same for GetRecords, counts and index builds
RECORD_BYTES_MAX = 32_768  # a row as stored; long values move out of it to keep it below
LONG_VALUE_INTRINSIC_BYTES_MAX = 1_024  # longer ones lie beside the row, unless SetIntrinsicLV
LONG_VALUE_BYTES_MAX = (1 << 31) - 1
LONG_VALUE_CHUNK_BYTES = 8_000  # two to a sixteen KB write; an overwrite of a few bytes writes one of them
LONG_VALUE_STREAM_BYTES = 1 << 20  # a value that grows beyond this inside one update goes round memory
LONG_VALUE_OVERWRITTEN_BYTES_MAX = 16 << 20  # a stored value that one update overwrites further than this is written anew
COUNTER_BLOCK = 1_000  # auto-increment values reserved at once: as many are lost in a crash
COUNTER_BLOCK_FROZEN = 100_000  # the same while frozen: the next block could only be had after the thaw
TEMPORARY_BYTES_IN_MEMORY_MAX = 8 << 20  # of one sort or temporary table; beyond it spills
TEMPORARY_UNDO_BYTES_MAX = 64 << 20  # what a transaction can change of one of them and still roll back
SCRUB_AFTER_SECONDS = 600.0  # an instance is read through for the first time so long after its Init
SCRUB_PAUSE_SECONDS_MIN = 60.0  # between two scrubs, whatever its parameter says
SCRUB_FAULTS_MAX = 1_000  # of one file: what is damaged further than that is not read on
DEFRAGMENT_PAUSE_SECONDS = 5.0  # between the passes of an online defragmentation
COUNTED_ENTRIES_MAX = 2_000  # positions in an index up to this long are counted, in longer ones estimated
MILESTONE_INDEXES_MAX = 64  # of a database: the indexes whose milestones are remembered
INTERSECT_INDEXES_MAX = 64
INTERSECT_BYTES_IN_MEMORY_MAX = 32 << 20  # of bookmarks that are compared at once; of more, the ranges are read several times
CALLBACKS_PER_TABLE_MAX = 64  # each of them is told of each change

# -- backup -----------------------------------------------------------------------------------------------------------
BACKUP_READ_BYTES_MAX = 16 << 20  # one ReadFile; as base64 it must fit into a result
BACKUP_BREATHE_SECONDS = 0.001  # how long a backup that checks what it read gives way to the others, each time
BACKUP_LOOK_SECONDS = 1.0  # how often it is looked whether a backup's caller still speaks
BACKUP_SILENT_SECONDS = 900.0  # a backup whose caller says nothing for so long is aborted: it pins the log and holds off snapshots

# -- the straight road ------------------------------------------------------------------------------------------------
STRAIGHT_ROWS_MAX = 1_000  # records of a scan; who wants more pays little for the general road
SCAN_CACHES_MAX = 64  # of an instance: tables whose rows are kept as JSON for scans; one more, and the oldest is forgotten
SCAN_CACHE_BYTES = 64 << 20  # of all tables; full, the largest makes room
SCAN_CACHE_STRETCH_ROWS = 32  # rows that are kept, and thrown away by a change, together
SCAN_CACHE_CHANGES_MAX = 256  # a commit that changes more rows of a table than this empties its cache
SCAN_CACHE_PAUSE_SCANS = 10_000  # scans that do without a cache after one of little use
