"""Instances: made, initialised, ended; their parameters."""

from __future__ import annotations

from typing import Any

from jetwire_protocol.data.flags import InstanceMiscInfo
from jetwire_protocol.data.parameters import PARAMETERS, Param
from jetwire_protocol.errors import Err, JetError
from jetwire_protocol.validate import Params
from jetwire_server.engine.indexes import UnicodeIndex
from jetwire_server.engine.instance import Instance, State
from jetwire_server.engine.parameters import Parameters
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.handlers.common import Result, engine_of, session_of
from jetwire_server.rpc.peer import Peer

LEGACY_INSTANCE = "default"  # what a null instance means to Init


@handles("CreateInstance")
async def create_instance(peer: Peer, params: Params) -> Result:
    instance = await engine_of(peer).create_instance(params["name"], params["displayName"], params["grbit"])
    return {"instance": instance.handle}


@handles("Init")
async def init(peer: Peer, params: Params) -> Result:
    engine = engine_of(peer)
    if params["recoveryOptions"] is not None and params["recoveryOptions"]["rstmap"]:
        raise JetError(Err.FeatureNotAvailable, "a restore map; restore with RestoreInstance")
    if params["instance"] is not None:
        instance = engine.instance(params["instance"])
    else:
        known = [one for one in engine.instances.values() if one.name.lower() == LEGACY_INSTANCE]
        instance = known[0] if known else await engine.create_instance(LEGACY_INSTANCE)

    async def start() -> int:
        warning = await instance.init(params["grbit"])
        await peer.service.instances_changed()
        return warning

    warning = await instance.carry_through(start())
    return {"instance": instance.handle, **({"wrn": warning} if warning else {})}


@handles("Term")
async def term(peer: Peer, params: Params) -> Result:
    instance = engine_of(peer).instance(params["instance"])

    async def end() -> None:
        await instance.term(params["grbit"])
        await peer.service.instances_changed()

    await instance.carry_through(end())
    return {}


@handles("EnableMultiInstance")
def enable_multi_instance(peer: Peer, params: Params) -> Result:
    settings = [(row["paramid"], _given(row["paramid"], row)) for row in params["sysParams"]]
    succeeded = engine_of(peer).enable_multi_instance(settings)
    return {"succeeded": succeeded, "sysParams": [{"err": 0} for _ in settings]}


def instance_info(instance: Instance) -> Result:
    """INSTANCE_INFO: an instance and its attached databases."""
    paths = [database.path for database in instance.databases.values()]
    return {
        "instanceId": instance.handle,
        "instanceName": instance.name,
        "databaseFileName": paths,
        "databaseDisplayName": paths,
    }


@handles("GetInstanceInfo")
def get_instance_info(peer: Peer, params: Params) -> Result:
    running = (State.RUNNING, State.STOPPED)
    return {"instances": [instance_info(one) for one in engine_of(peer).instances.values() if one.state in running]}


@handles("GetInstanceMiscInfo")
def get_instance_misc_info(peer: Peer, params: Params) -> Result:
    instance = engine_of(peer).instance(params["instance"])
    if params["infoLevel"] != InstanceMiscInfo.LogSignature:
        raise JetError(Err.InvalidParameter, f"infoLevel {params['infoLevel']}")
    instance.check_serving()
    return {"signature": signature(instance.log_signature)}


def signature(stored: bytes) -> Result:
    """SIGNATURE: a random number and the moment it was made."""
    return {"random": int.from_bytes(stored[:4], "little"), "logtimeCreate": None, "computerName": None}


@handles("StopService")
def stop_service(peer: Peer, params: Params) -> Result:
    engine_of(peer).only_instance().stop_service()
    return {}


@handles("StopServiceInstance")
def stop_service_instance(peer: Peer, params: Params) -> Result:
    engine_of(peer).instance(params["instance"]).stop_service(params["grbit"])
    return {}


# -- parameters -------------------------------------------------------------------------------------------------------
def _given(paramid: int, params: Params) -> Any:
    """The value that was sent for a parameter: which of the two members counts depends on its type."""
    kind = PARAMETERS[paramid][0] if paramid in PARAMETERS else "int"
    if kind == "string":
        return params["paramString"] or ""
    value = params["paramValue"]
    if isinstance(value, dict):
        if kind != "object UNICODEINDEX":
            raise JetError(Err.InvalidParameter, f"parameter {paramid} is a number")
        return UnicodeIndex(value["lcid"], value["localeName"], value["mapFlags"])
    if kind == "object UNICODEINDEX":
        raise JetError(Err.InvalidParameter, "a locale is an object")
    return value


def _scope(peer: Peer, params: Params) -> tuple[Instance | None, Parameters]:
    """Where a parameter lives: a session's instance before the instance, and without either the whole server."""
    engine = engine_of(peer)
    if params["sesid"] is not None:
        instance = session_of(peer, params).instance
    elif params["instance"] is not None:
        instance = engine.instance(params["instance"])
        instance.check_not_between()
    else:
        return None, engine.parameters
    return instance, instance.parameters


@handles("SetSystemParameter")
def set_system_parameter(peer: Peer, params: Params) -> Result:
    paramid = params["paramid"]
    instance, _ = _scope(peer, params)
    value = _given(paramid, params)
    if params["sesid"] is not None and paramid == Param.CommitDefault:
        peer.session(params["sesid"]).commit_default = value
    elif instance is not None:
        instance.set_parameter(paramid, value)
    else:
        engine_of(peer).set_parameter(paramid, value)
    return {}


@handles("GetSystemParameter")
def get_system_parameter(peer: Peer, params: Params) -> Result:
    paramid = params["paramid"]
    _, parameters = _scope(peer, params)
    if paramid == Param.ErrorToString:
        return {"paramValue": params["paramValue"], "paramString": parameters.error_text(params["paramValue"])}
    value = parameters.get(paramid)
    if isinstance(value, str):
        return {"paramValue": None, "paramString": value}
    if isinstance(value, UnicodeIndex):
        return {"paramValue": {"lcid": value.lcid, "localeName": value.locale, "mapFlags": value.flags}, "paramString": None}
    return {"paramValue": int(value or 0), "paramString": None}
