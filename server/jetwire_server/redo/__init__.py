"""The redo log: every change, in order, before anything else knows of it.

Start with `log.Log`. Read on in `records` (what a record looks like), `generation` (what a log file looks like),
`reader` (what is believed after a crash, and what is refused) and `writer` (group commit).
"""
