"""The methods, members and objects that Jetwire has beyond the engine's, in the form of the generated method table.

A member is (name, type, required, default, names it also takes, a further type, "result" if only in results).
"""

from __future__ import annotations

from typing import Any

Member = tuple[str, str, bool, Any, str, str, str]


def need(name: str, kind: str, names: str = "") -> Member:
    return (name, kind, True, None, names, "", "")


def may(name: str, kind: str, default: Any = None, names: str = "") -> Member:
    return (name, kind, False, default, names, "", "")


def own(
    name: str, role: str, note: str, params: list[Member], results: list[Member], group: str = "jetwire", **more: Any
) -> dict[str, Any]:
    return {"name": name, "group": "jetwire", "role": role, "note": note, "params": params, "results": results, **more}


HANDLES = ("JET_errInvalidSesid", "JET_errInvalidTableId")
TRANSACTION_GRBIT = "flags:JetCommitTransaction"

OWN_METHODS: list[dict[str, Any]] = [
    own("rpc.discover", "any", "The OpenRPC document of this server.", [], [need("document", "any")]),
    own("Ping", "any", "Answers an empty object.", [], []),
    own(
        "Hello",
        "any",
        "Names the client, picks the connection's options and authenticates it.",
        [may("client", "string"), may("int64", "string"), may("token", "string")],
        [
            need("server", "string"),
            need("version", "string"),
            need("protocol", "string"),
            need("role", "string"),
            need("limits", "map of int"),
            need("instances", "list of object INSTANCE_NAME"),
        ],
    ),
    own(
        "Batch",
        "any",
        'Runs calls in order in one round trip. A param {"$ref": "0/tableid"} is an earlier call\'s result. Stops at the first error.',
        [need("calls", "list of object BATCH_CALL"), may("transaction", "bool", False), may("sesid", "int")],
        [need("results", "list of any")],
    ),
    own(
        "GetRecord",
        "reader",
        "Reads one record by the values of its key; the cursor moves there.",
        [
            need("sesid", "int"),
            need("tableid", "int"),
            need("key", "list of value"),
            may("columns", "list of int", None, "column"),
            may("indexname", "string"),
        ],
        [need("record", "map of any"), need("bookmark", "base64")],
        errors=(*HANDLES, "JET_errRecordNotFound", "JET_errIndexNotFound", "JET_errColumnNotFound"),
    ),
    own(
        "GetRecords",
        "reader",
        "Reads records from the cursor's place on, in the current index and range; the cursor ends on the first one not returned.",
        [
            need("sesid", "int"),
            need("tableid", "int"),
            may("limit", "int", 100),
            may("columns", "list of int", None, "column"),
            may("direction", "string", "forward"),
        ],
        [need("records", "list of map of any"), need("more", "bool")],
        errors=(*HANDLES, "JET_errColumnNotFound", "JET_errInvalidParameter"),
    ),
    own(
        "PutRecords",
        "writer",
        "Writes many records, all or none: insert, replace, upsert or delete.",
        [
            need("sesid", "int"),
            need("tableid", "int"),
            need("records", "list of map of any"),
            may("mode", "string", "insert"),
            may("grbit", "int", 0, TRANSACTION_GRBIT),
        ],
        [need("count", "int")],
        errors=(*HANDLES, "JET_errKeyDuplicate", "JET_errWriteConflict", "JET_errRecordNotFound", "JET_errColumnNotFound"),
    ),
    own(
        "GetEvents",
        "any",
        "The event log after a sequence number.",
        [may("after", "int", 0), may("limit", "int", 100)],
        [need("events", "list of object EVENT")],
    ),
    own(
        "Subscribe",
        "any",
        "Sends `event` notifications of the topics snapshot, events, sessions and log to this connection.",
        [need("topics", "list of string")],
        [need("subscription", "int")],
    ),
    own("Unsubscribe", "any", "Ends a subscription.", [need("subscription", "int")], []),
    own(
        "SnapshotStatus",
        "any",
        "Where the snapshot session stands, whoever owns it.",
        [],
        [
            need("state", "string"),
            may("snapId", "int"),
            need("instances", "list of string"),
            need("frozenMs", "int"),
            need("remainingMs", "int"),
            need("waitingCommits", "int"),
            need("holders", "list of any"),
            may("manifest", "object MANIFEST"),
        ],
    ),
    own(
        "SnapshotRenew",
        "snapshotter",
        "A new lease for a running freeze, counted from now and never past the hard maximum.",
        [need("snapId", "int"), need("leaseMs", "int")],
        [need("deadline", "number"), need("remainingMs", "int")],
        errors=("JET_errOSSnapshotInvalidSnapId", "JET_errOSSnapshotInvalidSequence", "JET_errOSSnapshotTimeOut"),
    ),
]

MORE_PARAMS: dict[str, list[Member]] = {
    "OSSnapshotPrepare": [may("bind", "bool", False)],
    "OSSnapshotFreeze": [may("leaseMs", "int"), may("maxDrainMs", "int", 5000), may("bind", "bool", False)],
    "BeginExternalBackupInstance": [may("bind", "bool", True)],
    "ReadFileInstance": [may("offset", "int")],
}

MORE_RESULTS: dict[str, list[Member]] = {
    "OSSnapshotFreeze": [need("deadline", "number"), need("remainingMs", "int"), need("manifest", "object MANIFEST")],
    "OSSnapshotThaw": [
        need("held", "bool"),
        need("heldMs", "int"),
        need("commitsWaited", "int"),
        need("bytesWrittenWhileFrozen", "int"),
        may("manifest", "object MANIFEST"),
    ],
}


def shape(note: str, *members: Member) -> dict[str, Any]:
    return {"note": note, "members": list(members)}


OWN_TYPES: dict[str, dict[str, Any]] = {
    "INSTANCE_NAME": shape("A running instance.", need("instance", "int"), need("name", "string")),
    "BATCH_CALL": shape("One call of a Batch.", need("method", "string"), may("params", "any", {})),
    "EVENT": shape(
        "An entry of the event log.",
        need("seq", "int"),
        need("time", "number"),
        need("id", "int"),
        need("name", "string"),
        need("severity", "string"),
        need("instance", "string"),
        need("args", "map of any"),
    ),
    "MANIFEST": shape(
        "What a frozen set holds, for the restore to be proved against.",
        need("snapId", "int"),
        need("marker", "string"),
        need("time", "number"),
        need("instances", "list of object MANIFEST_INSTANCE"),
    ),
    "MANIFEST_INSTANCE": shape(
        "One frozen instance.",
        need("name", "string"),
        need("files", "list of object MANIFEST_FILE"),
        need("log", "object MANIFEST_LOG"),
        need("databases", "list of object MANIFEST_DATABASE"),
    ),
    "MANIFEST_FILE": shape("A file, by its path in the instance.", need("path", "string"), need("size", "int")),
    "MANIFEST_LOG": shape("How far the log reaches.", need("genLow", "int"), need("genHigh", "int"), need("position", "string")),
    "MANIFEST_DATABASE": shape(
        "A database's content in numbers; computed in the background, from what was pinned while frozen.",
        need("name", "string"),
        may("tables", "int"),
        may("records", "int"),
        may("digest", "string"),
    ),
}

OWN_NOTIFICATIONS: dict[str, list[Member]] = {
    "event": [need("subscription", "int"), need("topic", "string"), need("event", "object EVENT")],
}
