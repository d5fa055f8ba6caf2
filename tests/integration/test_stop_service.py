"""A commit that waits for a thaw when the service is stopped: it is answered, its connection goes on, and it commits all the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import jetwire
from jetwire import EngineError
from tests.support.server_process import ServerProcess

TABLE = {
    "name": "t",
    "columns": [{"name": "id", "coltyp": "Long"}],
    "indexes": [{"name": "p", "key": ["+id"], "grbit": ["IndexPrimary"]}],
}


@pytest.mark.parametrize("kind", ["tcp", "ws"])
@pytest.mark.parametrize("how", ["CommitTransaction", "PutRecords", "Update"])
async def test_a_commit_that_waits_is_answered_when_the_service_is_stopped(tmp_path: Path, kind: str, how: str) -> None:
    with ServerProcess(tmp_path / "data") as server:
        async with jetwire.connect(server.addresses[kind]) as one, jetwire.connect(server.addresses["tcp"]) as other:
            call = one.connection.call
            instance = (await call("Hello"))["instances"][0]["instance"]
            sesid = (await call("BeginSession", instance=instance))["sesid"]
            dbid = (await call("CreateDatabase", sesid=sesid, database="a.edb"))["dbid"]
            made = await call("CreateTableColumnIndex", sesid=sesid, dbid=dbid, tablecreate=TABLE)
            table = {"sesid": sesid, "tableid": made["tableid"]}
            if how == "CommitTransaction":
                await call("BeginTransaction", sesid=sesid)
                await call("PutRecords", **table, records=[{"id": 1}])
            elif how == "Update":
                await call("PrepareUpdate", **table, prep="Insert")
                await call("SetColumn", **table, columnid="id", data=1)
            snap = (await other.connection.call("OSSnapshotPrepare"))["snapId"]
            await other.connection.call("OSSnapshotFreeze", snapId=snap)
            params = {"CommitTransaction": {"sesid": sesid}, "PutRecords": {**table, "records": [{"id": 1}]}, "Update": table}[how]
            waiting = asyncio.create_task(call(how, **params))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            await other.connection.call("StopServiceInstance", instance=instance)
            async with asyncio.timeout(5):
                with pytest.raises(EngineError, match="ClientRequestToStopJetService"):
                    await waiting
            assert await call("Ping") == {}
            await other.connection.call("OSSnapshotThaw", snapId=snap)
        server.stop()
    with ServerProcess(tmp_path / "data") as server:
        async with jetwire.connect(server.addresses["tcp"]) as again:
            session = await again.begin_session()
            table_again = await (await session.open("a.edb")).table("t")
            rows = [row["id"] async for row in table_again.range()]
            assert rows == [1]
