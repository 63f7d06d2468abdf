"""The Python client against the whole server, without a socket."""

from collections.abc import Callable

import pytest
from bson import ObjectId
from flask import Flask

from banyan.client import Client, Document
from banyan.domain.roles import Role
from banyan.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    PreconditionFailed,
    Unauthorized,
)
from banyan.queue.context import Context
from tests.support.hand_worker import HandWorker
from tests.support.wsgi import WSGITransport

URL = "http://banyan.test"

As = Callable[[str, Role], Client]


@pytest.fixture
def client_as(app: Flask, context: Context) -> As:
    """Makes a client of a new user."""

    def make(name: str, role: Role) -> Client:
        return Client(URL, context.storage.users.add(name, role, context.now()), WSGITransport(app))

    return make


@pytest.fixture
def alice(client_as: As) -> Client:
    """A provider's client."""
    return client_as("alice", Role.PROVIDER)


@pytest.fixture
def worker(client_as: As) -> HandWorker:
    """A registered worker."""
    return HandWorker(client_as("node", Role.WORKER))


def test_a_task_from_submission_to_its_history(alice: Client, worker: HandWorker) -> None:
    task = alice.submit({"command": "true", "name": "one", "state": "available"})["_id"]
    [grant] = worker.claim()
    assert (grant["_id"], grant["attempt"], grant["command"]) == (task, 1, "true")
    sample = {"task": task, "execution": grant["execution"], "resident_memory_bytes": 5}
    sample |= {"time": "2026-01-01T00:00:00+00:00"}
    told = worker.client.report(worker.id, {"reports": [], "memory_usage": [sample]})
    assert told["accepted"] == []
    ended = worker.end(grant, "failure (exit code 3)", exit_code=3, stdout_tail="hi\n", stdout_bytes=3)
    assert ended["accepted"] == [grant["execution"]]
    found = alice.task(task)
    assert (found["state"], found["exit_status"]) == ("terminated", "failure (exit code 3)")
    assert [(each["attempt"], each["exit_code"]) for each in alice.attempts(task)] == [(1, 3)]
    assert [each["resident_memory_bytes"] for each in alice.memory({"task": task})] == [5]
    assert (alice.log(task), alice.log(task, offset=1), alice.log(task, offset=1, length=1)) == (b"hi\n", b"i\n", b"i")
    assert alice.log(task, offset=3) == b""
    assert alice.history({"exit_code": 3}).total == 1


def test_lists_filters_pages_and_projections(alice: Client) -> None:
    posted = alice.submit([{"name": f"n{i}", "priority": i} for i in range(450)])
    assert len({each["_id"] for each in posted}) == 450
    assert [each["name"] for each in alice.each_task({"priority": {"$gte": 10}}, ["name"])] == [
        f"n{i}" for i in range(10, 450)
    ]
    page = alice.tasks({"priority": {"$lt": 10}}, "-priority", ["priority"], max_results=3, page=2)
    assert (page.total, page.page, [each["priority"] for each in page.items]) == (10, 2, [6, 5, 4])


def test_a_submission_with_the_same_key_counts_once(alice: Client) -> None:
    first = alice.submit({"name": "once"}, key="the key")
    assert alice.submit({"name": "once"}, key="the key") == first
    with pytest.raises(Invalid):
        alice.submit({"name": "other"}, key="the key")
    assert alice.tasks().total == 1


def test_updates_of_one_of_a_list_and_of_all_that_match(alice: Client) -> None:
    first, second = (each["_id"] for each in alice.submit([{"name": "a"}, {"name": "b"}]))
    etag = alice.update(first, {"priority": 5})["_etag"]
    alice.update(first, {"priority": 6}, etag)
    with pytest.raises(PreconditionFailed):
        alice.update(first, {"priority": 7}, etag)
    answers = alice.bulk_update([{"_id": first, "priority": 1}, {"_id": second, "priority": "high"}])
    assert [each["_status"] for each in answers] == ["OK", "ERR"]
    assert alice.update_where({"name": "b"}, {"tags": ["x"]}, dry_run=True)["matched"] == 1
    assert alice.tasks({"tags": "x"}).total == 0
    assert alice.update_where({"name": "b"}, {"tags": ["x"]})["updated"] == 1
    assert [each["_id"] for each in alice.each_task({"tags": "x"})] == [second]


def test_cancel_retry_explain_and_delete(alice: Client) -> None:
    parent = alice.submit({"command": "true"})["_id"]
    child = alice.submit({"command": "true", "dependencies": [parent], "state": "available"})["_id"]
    assert parent in alice.explain(child)["summary"]
    assert alice.cancel(parent)["state"] == "cancelled"
    assert [each["state"] for each in alice.wait([parent, child], timeout=30)] == ["cancelled", "cancelled"]
    assert alice.retry(parent)["state"] == "available"
    assert alice.task(child, ["state"])["state"] == "inactive"
    with pytest.raises(Invalid):
        alice.delete(parent)
    alice.cancel(parent)
    alice.delete(parent)
    with pytest.raises(NotFound):
        alice.task(parent)


def test_waiting_tells_each_change_until_all_have_ended(alice: Client, worker: HandWorker) -> None:
    tasks = [each["_id"] for each in alice.submit([{"command": "true", "state": "available"}] * 2)]
    changes: list[str] = []

    def work(task: Document) -> None:
        changes.append(task["state"])
        if task["state"] == "available":
            [worker.end(grant) for grant in worker.claim()]

    assert [each["exit_status"] for each in alice.wait(tasks, 30, work)] == ["success", "success"]
    assert changes == ["available", "available", "terminated", "terminated"]
    with pytest.raises(NotFound):
        alice.wait([str(ObjectId())])


def test_files_and_logs_arrive_in_pieces(alice: Client, worker: HandWorker) -> None:
    task = alice.submit({"command": "true", "state": "available"})["_id"]
    with pytest.raises(NotFound, match="no attempt yet"):
        alice.log(task)
    [grant] = worker.claim()
    execution, token = grant["execution"], grant["token"]
    sender = worker.client
    assert sender.put_log(execution, "stdout", 0, b"one ", token) == 4
    assert sender.put_log(execution, "stdout", 9, b"lost", token) == 4
    assert sender.put_log(execution, "stdout", 4, b"two", token) == 7
    assert sender.put_file(execution, "sub dir/ü.txt", 0, b"abcdef", token) == 6
    with pytest.raises((Conflict, Forbidden)):
        sender.put_log(execution, "stdout", 7, b"", "0" * len(token))
    assert alice.log(task, offset=2) == b"e two"
    assert [(each["path"], each["size"]) for each in alice.files(task)] == [("sub dir/ü.txt", 6)]
    assert alice.file(task, "sub dir/ü.txt", offset=2, length=3) == b"cde"
    assert alice.file(task, "sub dir/ü.txt", attempt=1) == b"abcdef"
    worker.end(grant, stdout_tail="one two", stdout_bytes=7)
    assert b"".join(alice.follow(task)) == b"one two"


def test_a_peak_comes_with_what_it_is_until_the_task_runs_again(alice: Client, worker: HandWorker) -> None:
    task = alice.submit({"command": "true", "state": "available"})["_id"]
    [grant] = worker.claim()
    worker.end(grant, peak_memory_bytes=4096, peak_memory_source="largest process", exit_status="failure (exit code 1)")
    shown = alice.task(task)
    assert (shown["peak_memory_bytes"], shown["peak_memory_source"]) == (4096, "largest process")
    assert alice.attempts(task)[0]["peak_memory_source"] == "largest process"
    alice.retry(task)
    assert "peak_memory_source" not in alice.task(task)


def test_users_queues_workers_and_statistics(client_as: As, alice: Client, worker: HandWorker) -> None:
    root = client_as("root", Role.ADMIN)
    made = root.add_user("ann", "provider")
    assert {each["name"]: each["role"] for each in root.users()}["ann"] == "provider"
    assert root.rotate_user("ann")["token"] != made["token"]
    root.remove_user("ann")
    assert "ann" not in {each["name"] for each in root.users()}
    root.add_queue({"name": "night", "weight": 2})
    root.update_queue("night", {"paused": True, "max_running": 1})
    assert [(each["name"], each["paused"]) for each in alice.queues()] == [("default", False), ("night", True)]
    assert [each["name"] for each in alice.workers({"state": "active"})] == ["by hand"]
    root.update_worker(worker.id, {"state": "draining"})
    worker.client.close_worker(worker.id)
    assert [each["state"] for each in alice.workers()] == ["gone"]
    alice.submit({"command": "true"})
    assert alice.statistics({"name": None})["states"] == {"inactive": 1}
    assert alice.health()["_status"] == "OK"


def test_refusals_come_back_as_errors(app: Flask, alice: Client, client_as: As) -> None:
    with pytest.raises(Unauthorized):
        Client(URL, "wrong", WSGITransport(app)).tasks()
    with pytest.raises(Forbidden):
        alice.add_queue({"name": "mine"})
    with pytest.raises(Invalid) as one:
        alice.submit({"command": "true", "requested_resources": {"memory": "lots"}})
    assert "'lots' is not a size" in str(one.value)
    with pytest.raises(Invalid) as many:
        alice.submit([{"command": "true"}, {"command": 7}])
    assert many.value.items is not None
    assert [sorted(each) for each in many.value.items] == [[], ["command"]]
    with pytest.raises(NotFound):
        alice.task("nonsense")
    task = alice.submit({"command": "true"})["_id"]
    with pytest.raises((Forbidden, NotFound)):
        client_as("bob", Role.PROVIDER).cancel(task)


def test_a_sweep_from_its_submission_to_its_deletion(alice: Client, worker: HandWorker) -> None:
    made = alice.submit_sweep({"name": "s", "command": "run {x}", "grid": {"x": [1, 2, 3]}, "barrier": {}})
    sweep = made["_id"]
    assert made["count"] == 3
    assert [each["_id"] for each in alice.sweeps({"name": "s"}).items] == [sweep]
    assert alice.sweeps(projection=["progress"]).items[0]["progress"]["fraction"] == 0
    seen: list[float] = []

    def run_one(progress: Document) -> None:
        seen.append(progress["fraction"])
        for grant in worker.claim(1):
            assert (grant["sweep"], grant["command"]) == (sweep, f"run {grant['inputs']['x']}")
            bad = grant["inputs"]["x"] == 2 and grant["attempt"] == 1
            worker.end(grant, "failure (exit code 1)" if bad else "success", result={"y": grant["index"]})

    ended = alice.wait_sweep(sweep, on_change=run_one)
    assert seen == [0, 1 / 3, 2 / 3, 1]
    assert (ended["progress"]["succeeded"], ended["progress"]["failed"]) == (2, 1)
    assert alice.task(made["barrier"])["exit_status"] == "success"
    assert alice.sweep_statistics(sweep)["exit_statuses"] == {"success": 2, "failure (exit code 1)": 1}
    retried = alice.retry_sweep(sweep)
    assert (retried["retried"], retried["refused"]) == (1, 0)
    assert alice.wait_sweep(sweep, on_change=run_one)["progress"]["succeeded"] == 3
    assert [row["y"] for row in alice.sweep_results(sweep)["_items"]] == [0, 1, 2]
    assert alice.sweep_csv(sweep).splitlines()[0] == b"index,task,state,exit_status,x,y"
    assert alice.cancel_sweep(sweep)["cancelled"] == 0
    assert alice.delete_sweep(sweep)["deleted"] == 3
    with pytest.raises(NotFound):
        alice.sweep(sweep)


def test_waiting_for_a_sweep_ends_with_the_timeout(alice: Client) -> None:
    made = alice.submit_sweep({"command": "true {x}", "grid": {"x": [1, 2]}})
    with pytest.raises(TimeoutError, match="0 of 2 tasks have ended"):
        alice.wait_sweep(made["_id"], timeout=0.01)
