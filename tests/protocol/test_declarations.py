"""The declarations: the facts' table exactly, our own beside it, and a document that the OpenRPC meta-schema accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from jetwire_protocol import data
from jetwire_protocol.data.methods import METHODS as GENERATED
from jetwire_protocol.declarations import METHOD_BY_NAME, METHODS, NOTIFICATIONS, ROLES, TYPES, Member, may_call
from jetwire_protocol.openrpc import document
from jetwire_protocol.own_methods import MORE_PARAMS, MORE_RESULTS
from jetwire_protocol.validate import check_of, validator

FACTS = Path(__file__).parents[3] / "shared" / "ese" / "methods.json"
OWN = {
    *("rpc.discover", "Ping", "Hello", "Batch", "GetRecord", "GetRecords", "PutRecords"),
    *("GetEvents", "Subscribe", "Unsubscribe", "SnapshotStatus", "SnapshotRenew"),
}


def facts() -> dict[str, Any]:
    if not FACTS.exists():
        pytest.skip("the fact tables are not here")
    table: dict[str, Any] = json.loads(FACTS.read_text(encoding="utf-8"))
    return table


def as_facts(member: Member, *, result: bool) -> dict[str, Any]:
    out: dict[str, Any] = {"name": member.name, "type": member.type}
    return out if result else {**out, "optional": not member.required, "default": member.default}


def test_the_facts_methods_are_declared_exactly() -> None:
    rows = facts()["methods"]
    assert len(rows) == 129
    assert set(METHODS) == {row["method"] for row in rows} | OWN
    for row in rows:
        name = row["method"]
        method = METHODS[name]
        params = method.params[: len(method.params) - len(MORE_PARAMS.get(name, []))]
        results = method.results[: len(method.results) - len(MORE_RESULTS.get(name, []))]
        assert [as_facts(m, result=False) for m in params] == [
            {"name": p["name"], "type": p["type"], "optional": bool(p.get("optional")), "default": p.get("default")} for p in row["params"]
        ]
        assert [as_facts(m, result=True) for m in results] == [{"name": r["name"], "type": r["type"]} for r in row["results"]]
        assert list(method.aliases) == row["aliases"]
        assert set(row["errors"]) <= set(method.errors)
        assert method.group == row["group"]
        for name in (row["method"], *row["aliases"], row["function"], *(f"Jet{a}" for a in row["aliases"])):
            assert METHOD_BY_NAME[name] is method


def test_the_facts_types_and_notifications_are_declared_exactly() -> None:
    table = facts()
    assert len(table["types"]) >= 45
    for name, row in table["types"].items():
        assert [(m.name, m.type, m.result_only) for m in TYPES[name].members] == [
            (m["name"], m["type"], bool(m.get("out"))) for m in row["members"]
        ]
        assert [m.default for m in TYPES[name].members] == [m.get("default") for m in row["members"]]
    for row in table["notifications"]:
        assert [m.name for m in NOTIFICATIONS[row["notification"]]] == [p["name"] for p in row["params"]]


def test_every_declared_type_and_name_can_be_checked() -> None:
    for method in METHODS.values():
        validator(method)
        for member in (*method.params, *method.results):
            check_of(member.type)
    assert len(GENERATED) == 129
    assert data.__name__ == "jetwire_protocol.data"


def test_every_grbit_of_a_method_with_documented_bits_takes_their_names() -> None:
    """A group that is misspelt in the generator would silently know no names."""
    without = {
        name for name, method in METHODS.items() for m in method.params if m.names.startswith("flags:") and not _takes_a_name(name, m.name)
    }
    # These take no bits at all in the engine's documentation.
    assert without == {
        *("CreateInstance", "CloseDatabase", "RenameColumn", "SetColumnDefaultValue", "IntersectIndexes", "GetSecondaryIndexBookmark"),
        *("DupCursor", "ResetTableSequential", "SetCursorFilter", "GetErrorInfo"),
        *("OSSnapshotPrepareInstance", "OSSnapshotFreeze", "OSSnapshotThaw", "OSSnapshotAbort", "OSSnapshotGetFreezeInfo"),
    }


def _takes_a_name(method: str, member: str) -> bool:
    from jetwire_protocol.data.flags import GROUPS

    names = next(m.names for m in METHODS[method].params if m.name == member)
    return any(group in GROUPS for group in names.removeprefix("flags:").split(","))


def test_the_openrpc_document_fits_the_meta_schema() -> None:
    folder = Path(__file__).parent / "data"
    openrpc = json.loads((folder / "openrpc_meta.json").read_text(encoding="utf-8"))
    schema_of_schemas = json.loads((folder / "json_schema_meta.json").read_text(encoding="utf-8"))
    # The meta-schemas declare dialects of their own; what they use is draft 7.
    for one in (openrpc, schema_of_schemas):
        one["$schema"] = "http://json-schema.org/draft-07/schema#"
    registry: Registry[Any] = Registry().with_resources(
        [(uri, Resource.from_contents(schema_of_schemas)) for uri in ("https://meta.json-schema.tools/", "https://meta.json-schema.tools")]
    )
    check = jsonschema.Draft7Validator(openrpc, registry=registry)
    written = json.loads(json.dumps(document("0")))
    assert list(check.iter_errors(written)) == []
    assert {m["name"] for m in written["methods"]} == set(METHODS)
    broken = {**written, "methods": [{**written["methods"][0], "params": [{"name": 5}]}]}
    assert list(check.iter_errors(broken))


def test_every_reference_in_the_document_leads_somewhere() -> None:
    written = json.dumps(document("0"))
    schemas = document("0")["components"]["schemas"]
    names = {part.split('"')[0] for part in written.split("#/components/schemas/")[1:]}
    assert names <= set(schemas)


def test_what_the_document_says_of_params_is_what_the_validator_does() -> None:
    """The same params through both: the document's schema and the compiled validator agree."""
    written = json.loads(json.dumps(document("0")))
    cursor = {"sesid": 1, "tableid": 2}
    tried: dict[str, list[dict[str, Any]]] = {
        "Seek": [cursor, {"sesid": 1}, {**cursor, "grbit": ["SeekEQ"]}, {**cursor, "grbit": ["X"]}],
        "SetColumn": [{**cursor, "columnid": "a", "data": None}, {**cursor, "columnid": 1.5}],
        "RetrieveColumn": [{**cursor, "columnid": 1, "retinfo": {"x": 1}}, {**cursor, "columnid": 1, "retinfo": None}],
        "Move": [{**cursor, "numRows": "First"}, {**cursor, "numRows": "Firs"}],
    }
    for name, params in tried.items():
        method = next(m for m in written["methods"] if m["name"] == name)
        schema = {
            "type": "object",
            "properties": {p["name"]: p["schema"] for p in method["params"]},
            "required": [p["name"] for p in method["params"] if p["required"]],
            "additionalProperties": False,
            "components": written["components"],
        }
        seen = set()
        for one in params:
            fits_schema = jsonschema.Draft7Validator(schema).is_valid(one)
            try:
                validator(METHODS[name])(one)
                fits_validator = True
            except Exception:
                fits_validator = False
            assert fits_schema == fits_validator, (name, one)
            seen.add(fits_schema)
        assert seen == {True, False}


def test_roles_are_denied_unless_named() -> None:
    assert {method.role for method in METHODS.values()} <= {"any", *ROLES}
    assert not may_call("", METHODS["Ping"])
    assert not may_call("nobody", METHODS["Ping"])
    for method in METHODS.values():
        assert may_call("admin", method)
    allowed = {role: {name for name, method in METHODS.items() if may_call(role, method)} for role in ROLES}
    assert allowed["reader"] < allowed["writer"] < allowed["schema"] < allowed["admin"]
    assert "PutRecords" not in allowed["reader"]
    assert "CreateTable" not in allowed["writer"]
    assert "OSSnapshotFreeze" not in allowed["schema"]
    assert "OSSnapshotFreeze" in allowed["snapshotter"]
    assert "RetrieveColumn" not in allowed["snapshotter"]
    assert {"Term", "SetSystemParameter", "RestoreInstance"} <= allowed["admin"] - allowed["schema"]
