"""The OSSnapshot family: a freeze that cannot be left on, that says whether it held.

Read in this order: `states.py` (the whole protocol as one table), `participant.py` (what is asked of an instance),
`session.py` (one snapshot session), `service.py` (the server-wide door: the calls by name), `manifest.py`, `marker.py`.
"""
