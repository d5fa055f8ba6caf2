"""Streaming backup on the wire, with and without an instance's handle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jetwire_protocol.data.flags import Snp, Snt
from jetwire_protocol.errors import Err, JetError, Wrn
from jetwire_protocol.validate import Params
from jetwire_server.backup.directory import Status, backup_instance
from jetwire_server.backup.external import Request
from jetwire_server.backup.inplace import restore_instance
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.instance import State as Life
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.handlers.common import Result, engine_of
from jetwire_server.rpc.peer import Peer


def _instance(peer: Peer, params: Params) -> Instance:
    """The instance that is named, or the only one that runs: the older calls name none."""
    engine = engine_of(peer)
    return engine.instance(params["instance"]) if "instance" in params else engine.only_instance()


@handles("BeginExternalBackup", "BeginExternalBackupInstance")
async def begin_external_backup(peer: Peer, params: Params) -> Result:
    backups = peer.service.backups
    bound = peer.stateful and params.get("bind", True)
    if bound:
        peer.at_close("backup", lambda: backups.connection_closed(peer))
    await backups.begin(_instance(peer, params), params["grbit"], peer if bound else None)
    return {}


@handles("GetAttachInfo", "GetAttachInfoInstance")
def get_attach_info(peer: Peer, params: Params) -> Result:
    return {"files": peer.service.backups.get_attach_info(_instance(peer, params))}


@handles("OpenFile", "OpenFileInstance")
async def open_file(peer: Peer, params: Params) -> Result:
    handle, size = await peer.service.backups.open(_instance(peer, params), params["file"])
    return {"handle": handle, "fileSize": size}


@handles("ReadFile", "ReadFileInstance")
async def read_file(peer: Peer, params: Params) -> dict[str, Any]:
    """`offset`, of what was read already, is for a caller whose connection broke."""
    instance = _instance(peer, params)
    return {"buffer": await peer.service.backups.read(instance, params["handle"], params["bufferSize"], params.get("offset"))}


@handles("CloseFile", "CloseFileInstance")
async def close_file(peer: Peer, params: Params) -> Result:
    await peer.service.backups.close(_instance(peer, params), params["handle"])
    return {}


@handles("GetLogInfo", "GetLogInfoInstance")
async def get_log_info(peer: Peer, params: Params) -> Result:
    files, low, high, base = await peer.service.backups.get_log_info(_instance(peer, params))
    if "instance" not in params:
        return {"files": files}
    return {"files": files, "logInfo": {"genLow": low, "genHigh": high, "baseName": base}}


@handles("GetTruncateLogInfoInstance")
async def get_truncate_log_info(peer: Peer, params: Params) -> Result:
    return {"files": await peer.service.backups.get_truncate_log_info(_instance(peer, params))}


@handles("TruncateLog", "TruncateLogInstance")
async def truncate_log(peer: Peer, params: Params) -> Result:
    await peer.service.backups.truncate(_instance(peer, params))
    return {}


@handles("EndExternalBackup", "EndExternalBackupInstance")
async def end_external_backup(peer: Peer, params: Params) -> Result:
    await peer.service.backups.end(_instance(peer, params), params.get("grbit", 0))
    return {}


@handles("StopBackup", "StopBackupInstance")
def stop_backup(peer: Peer, params: Params) -> Result:
    instance = _instance(peer, params)
    if instance.state not in (Life.RUNNING, Life.STOPPED):
        raise JetError(Err.InvalidParameter, "the instance is not running")
    peer.service.backups.stop(instance)
    return {}


# -- into and from a directory ----------------------------------------------------------------------------------------
def _status(peer: Peer, snp: int) -> Status:
    """Progress as `status` notifications: begin, progress, complete."""

    def tell(done: int, total: int) -> None:
        snt = Snt.Begin if not done else Snt.Complete if done == total else Snt.Progress
        peer.notify("status", {"sesid": 0, "snp": snp, "snt": int(snt), "snprog": {"unitDone": done, "unitTotal": total}})

    return tell


def _below(instance: Instance, path: str | None) -> str | None:
    """Calls that name no instance give paths from the data directory on: `INSTANCE/NAME`."""
    if path is None:
        return None
    head, _, rest = path.replace("\\", "/").partition("/")
    if head.lower() != instance.name.lower() or not rest:
        raise JetError(Err.InvalidPath, f"{path!r} does not begin with {instance.name}/")
    return rest


async def _back_up(peer: Peer, instance: Instance, destination: str | None, grbit: int) -> Result:
    service = peer.service.backups
    await backup_instance(service, instance, destination, grbit, _status(peer, Snp.Backup))
    return {}


@handles("BackupInstance")
async def backup_to_directory(peer: Peer, params: Params) -> Result:
    return await _back_up(peer, engine_of(peer).instance(params["instance"]), params["destination"], params["grbit"])


@handles("Backup")
async def backup_only_instance(peer: Peer, params: Params) -> Result:
    instance = engine_of(peer).only_instance()
    return await _back_up(peer, instance, _below(instance, params["destination"]), params["grbit"])


async def _restore(peer: Peer, instance: Instance, source: str, destination: str | None) -> Result:
    root = f"{engine_of(peer).root}/{instance.name}"
    await restore_instance(instance, root, peer.service.clock, source, destination, _status(peer, Snp.Restore))
    return {}


@handles("RestoreInstance")
async def restore_from_directory(peer: Peer, params: Params) -> Result:
    return await _restore(peer, engine_of(peer).instance(params["instance"]), params["source"], params["destination"])


@handles("Restore")
async def restore_only_instance(peer: Peer, params: Params) -> Result:
    """The instance is the one the path begins with. It is the only one, hence no other may run; it need not be made before."""
    engine = engine_of(peer)
    name = params["source"].replace("\\", "/").partition("/")[0]
    others = [one for one in engine.instances.values() if one.name.lower() != name.lower() and one.state is not Life.CREATED]
    if others:
        raise JetError(Err.RunningInMultiInstanceMode, f"{others[0].name} runs; RestoreInstance names its instance")
    known = next((one for one in engine.instances.values() if one.name.lower() == name.lower()), None)
    if known is None and not Path(engine.root, name).is_dir():
        raise JetError(Err.InvalidPath, f"{params['source']!r} is not there")
    instance = known or await engine.create_instance(name)
    try:
        source = _below(instance, params["source"])
        assert source is not None
        return await _restore(peer, instance, source, _below(instance, params["destination"]))
    finally:
        if known is None and instance.state is Life.CREATED:
            await instance.term()


@handles("ExternalRestore")
async def external_restore(peer: Peer, params: Params) -> Result:
    """Every path from the data directory on; a map's `databaseName` is the name in the backup."""
    info = params["logInfo"] or {"genLow": params["genLow"], "genHigh": params["genHigh"], "baseName": None}
    request = Request(
        checkpoint_path=params["checkpointFilePath"],
        log_path=params["logPath"],
        backup_log_path=params["backupLogPath"] or "",
        databases=[(row["databaseName"], row["newDatabaseName"]) for row in params["rstmap"]],
        gen_low=info["genLow"],
        gen_high=info["genHigh"],
        base_name=info["baseName"] or "",
        target_log_path=params["targetInstanceLogPath"] or "",
        target_checkpoint_path=params["targetInstanceCheckpointPath"] or "",
    )
    done = await peer.service.backups.external.run(request, _status(peer, Snp.Restore))
    result: Result = {"logInfo": {"genLow": done.gen_low, "genHigh": done.gen_high, "baseName": done.base_name}}
    return result | ({"wrn": int(Wrn.TargetInstanceRunning)} if done.target_runs else {})
