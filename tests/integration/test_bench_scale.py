"""What the questions of scale rest on: copied tasks are real ones, simulated workers speak the real protocol."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from banyan.queue.context import Context
from bench.filling import check_copies, fill_available, fill_ended
from bench.simulated_workers import crowd, idle
from tests.integration.conftest import Api
from tests.support.queue import SimulatedWorker
from tests.support.server import Server, running

Document = dict[str, Any]


def test_copies_are_tasks_like_those_that_they_were_copied_from(context: Context, provider: Api) -> None:
    classes = [{"command": "true", "state": "available", "requested_resources": {"cores": n}} for n in (1, 2)]
    posted = [ObjectId(item["_id"]) for item in provider.post("/tasks", classes).get_json()["_items"]]
    fill_available(context.storage, posted, 6)
    check_copies(context.storage, posted)
    assert SimulatedWorker(context).run_all() == 8
    fill_ended(context.storage, posted[0], 5)
    ended = provider.get("/tasks", query_string={"where": '{"state": "terminated"}'}).get_json()["_items"]
    assert len({task["execution"] for task in ended}) == len(ended) == 13
    for task in ended:
        (attempt,) = provider.get(f"/tasks/{task['_id']}/execution_history").get_json()["_items"]
        assert (attempt["_id"], attempt["exit_status"]) == (task["execution"], "success")


def test_a_copy_that_differs_is_found(context: Context, provider: Api) -> None:
    posted = [ObjectId(provider.post("/tasks", {"command": "true", "state": "available"}).get_json()["_id"])]
    fill_available(context.storage, posted, 1)
    context.storage.db["tasks"].update_one({"_id": {"$nin": posted}}, {"$set": {"command": "false"}})
    with pytest.raises(ValueError, match=r"differs from it in .*'command'"):
        check_copies(context.storage, posted)


def test_simulated_workers_claim_and_report_each_task_once(mongo_uri: str, database_name: str, tmp_path: Path) -> None:
    with running(mongo_uri, database_name, tmp_path) as server, server.client("user") as client:
        posted = [task["_id"] for task in client.submit([{"command": "true", "state": "available"}] * 30)]
        seen = asyncio.run(_claim_all(server))
        assert sorted(seen) == sorted(posted)
        assert client.statistics()["exit_statuses"] == {"success": 30}


async def _claim_all(server: Server) -> list[str]:
    workers = await crowd([server.url], server.token("worker"), 3, {"cores": 5})
    seen: list[str] = []
    while granted := [task for worker in workers for task in await worker.claim(5)]:
        seen += [task["_id"] for task in granted]
        await asyncio.gather(*(worker.report() for worker in workers))
    for worker in workers:
        worker.close()
    return seen


def test_an_idle_simulated_worker_is_woken(mongo_uri: str, database_name: str, tmp_path: Path) -> None:
    with running(mongo_uri, database_name, tmp_path) as server, server.client("user") as client:
        assert asyncio.run(_woken(server)) == client.tasks().items[0]["_id"]


async def _woken(server: Server) -> str:
    workers = await crowd([server.url], server.token("worker"), 2)
    came: asyncio.Queue[Document] = asyncio.Queue()
    waiting = idle(workers, came.put_nowait)
    with server.client("user") as client:
        await asyncio.to_thread(client.submit, {"command": "true", "state": "available"})
    task = await asyncio.wait_for(came.get(), 30)
    for each in waiting:
        each.cancel()
    for worker in workers:
        worker.close()
    return str(task["_id"])
