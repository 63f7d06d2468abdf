"""Leases with real processes: what is killed is lost, what was out of reach is not."""

import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient

from banyan.client import Client
from banyan.config import Leases
from banyan.storage import embedded
from tests.support import processes
from tests.support.processes import Program, ServerProgram
from tests.support.waiting import eventually, processes_with

Document = dict[str, Any]

LOST_AFTER = 4.0
"""Long enough for a worker on a busy machine to be heard of in time, and not longer."""
SETTINGS = {"BANYAN_LEASES__LOST_AFTER": f"{LOST_AFTER}", "BANYAN_LEASES__HEARTBEAT": "1"}
NO_MODELS = {"BANYAN_MODELS__PATH": "[]"}
EVERY_WAY = os.environ.get("FAULTS") == "all"
"""Whether to break things in each way, or in the two that differ most."""
UNREACHABLE = "abandoned (worker unreachable)"


@dataclass
class Site:
    """A server with short leases, a client of its provider, and workers; all of it ends with the test."""

    directory: Path
    server: ServerProgram
    client: Client
    stack: ExitStack
    mark: str = field(default_factory=lambda: f"mark-{uuid.uuid4().hex}")
    """By which the processes of its tasks are found."""

    def worker(self, name: str, **settings: str) -> Program:
        """A worker for one task at a time."""
        token = self.server.token("worker")
        worker = processes.worker(self.directory, name, self.server.url, token, cores=1, **NO_MODELS, **settings)
        worker.start()
        self.stack.callback(worker.stop)
        return worker

    def task(self, script: str, **fields: Any) -> str:
        """Submit a command."""
        task = {"command": script, "state": "available", "env": {"MARK": self.mark}, **fields}
        return str(self.client.submit(task)["_id"])

    def runs_on(self, task: str, name: str) -> None:
        """Wait until this worker runs the task."""

        def look() -> bool:
            names = {worker["_id"]: worker["name"] for worker in self.client.workers()}
            live = [each for each in self.client.attempts(task) if each.get("pid") and "exit_status" not in each]
            return [names[each["worker"]] for each in live] == [name]

        eventually(look, seconds=60, show=lambda: self.client.explain(task))

    def heard_of_anew(self) -> None:
        """Wait until its only worker was heard of since now."""
        before = self.client.workers()[0]["last_seen"]
        eventually(lambda: self.client.workers()[0]["last_seen"] > before, seconds=60, show=self.client.workers)

    def statuses(self, task: str) -> list[str | None]:
        """How its attempts ended, in order."""
        return [attempt.get("exit_status") for attempt in self.client.attempts(task)]

    def ended(self, task: str) -> Document:
        """The task, once it has ended."""
        self.client.wait([task], timeout=90)
        return self.client.task(task)


@pytest.fixture
def site(mongo_uri: str, database_name: str, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield site_on(stack, mongo_uri, database_name, tmp_path)


def site_on(stack: ExitStack, uri: str, database: str, directory: Path, **settings: str) -> Site:
    server = processes.server(directory, "server", uri, database, **{**NO_MODELS, **SETTINGS, **settings})
    server.start()
    stack.callback(server.stop)
    server.wait_until_healthy()
    client = stack.enter_context(server.client("user"))
    return Site(directory=directory, server=server, client=client, stack=stack)


def out_for_longer_than_a_lease() -> None:
    """Let an outage last."""
    time.sleep(LOST_AFTER + 1)


def test_the_tasks_of_a_killed_worker_run_elsewhere_and_use_up_no_retry(site: Site) -> None:
    go = site.directory / "go"
    first = site.worker("first")
    id = site.task(f"while [ ! -e {go} ]; do sleep 0.05; done", max_retry_count=0)
    site.runs_on(id, "first")
    site.worker("second")
    first.send(signal.SIGKILL)
    site.runs_on(id, "second")
    go.touch()
    task = site.ended(id)
    assert (task["exit_status"], task["retry_count"], task["abandoned_count"]) == ("success", 0, 1)
    assert site.statuses(id) == [UNREACHABLE, "success"]
    assert {each["name"]: each["state"] for each in site.client.workers()} == {"first": "lost", "second": "active"}


@pytest.mark.skipif(not EVERY_WAY, reason="it waits for a lease of 45 s; FAULTS=all")
def test_with_the_default_leases_the_tasks_of_a_killed_worker_are_available_within_a_minute(
    mongo_uri: str, database_name: str, tmp_path: Path
) -> None:
    """By MongoDB's clock, of which the server makes its times."""
    defaults = Leases()
    settings = {
        "BANYAN_LEASES__LOST_AFTER": f"{defaults.lost_after}",
        "BANYAN_LEASES__HEARTBEAT": f"{defaults.heartbeat}",
    }
    with ExitStack() as stack:
        site = site_on(stack, mongo_uri, database_name, tmp_path, **settings)
        mongo = stack.enter_context(MongoClient[Document](mongo_uri, tz_aware=True))
        worker = site.worker("worker")
        ids = [site.task("sleep 600") for _ in range(3)]
        site.runs_on(ids[0], "worker")
        killed = mongo.admin.command("hello")["localTime"].replace(tzinfo=UTC)
        worker.send(signal.SIGKILL)
        eventually(
            lambda: site.client.tasks({"state": "available"}).total == len(ids), seconds=120, show=site.client.workers
        )
        (attempt,) = mongo[database_name]["executions"].find({"task": ObjectId(ids[0])})
        assert attempt["exit_status"] == UNREACHABLE
        assert attempt["time_terminated"] - killed <= timedelta(seconds=60)


def test_the_late_report_of_a_worker_that_was_stopped_is_stale(site: Site) -> None:
    """Its task goes on while it is stopped, and ends; the server has given it away meanwhile."""
    ghost = site.worker("ghost")
    written = site.directory / "written"
    script = f"echo $BANYAN_EXECUTION_ID >> {written}; sleep 1; echo '\"'$BANYAN_EXECUTION_ID'\"' > $BANYAN_RESULT"
    id = site.task(script)
    eventually(written.exists, seconds=60, show=ghost.tail)
    ghost.send(signal.SIGSTOP)
    site.worker("second")
    task = site.ended(id)
    first, second = site.client.attempts(id)
    assert (first["exit_status"], second["exit_status"]) == (UNREACHABLE, "success")
    assert task["result"] == second["_id"]
    ghost.send(signal.SIGCONT)
    names = ["ghost", "ghost", "second"]
    eventually(lambda: sorted(each["name"] for each in site.client.workers()) == names, seconds=60, show=ghost.tail)
    other = site.task("true")
    assert site.ended(other)["exit_status"] == "success"
    assert site.client.attempts(id) == [first, second]
    assert site.client.task(id) == task
    assert written.read_text().split() == [first["_id"], second["_id"]]


def test_an_outage_of_the_server_or_of_mongodb_costs_no_attempt(tmp_path: Path) -> None:
    with ExitStack() as stack:
        mongo = embedded.start(tmp_path / "mongo", log=tmp_path / "mongod.log", cache_gigabytes=0.25)
        stack.callback(lambda: mongo.stop())  # noqa: PLW0108 - the one that is the last
        site = site_on(stack, mongo.uri, "leases", tmp_path)
        go = tmp_path / "go"
        worker = site.worker("worker")
        id = site.task(f"while [ ! -e {go} ]; do sleep 0.1; done")
        site.runs_on(id, "worker")

        site.server.send(signal.SIGKILL, family=True)
        out_for_longer_than_a_lease()
        site.server.start()
        site.server.wait_until_healthy()
        site.heard_of_anew()

        mongo.process.send_signal(signal.SIGSTOP)
        out_for_longer_than_a_lease()
        mongo.process.send_signal(signal.SIGCONT)
        site.server.wait_until_healthy()
        site.heard_of_anew()

        if EVERY_WAY:
            site.server.send(signal.SIGSTOP, family=True)
            out_for_longer_than_a_lease()
            site.server.send(signal.SIGCONT, family=True)
            site.heard_of_anew()

            mongo.process.kill()
            mongo.stop()
            out_for_longer_than_a_lease()
            mongo = embedded.start(tmp_path / "mongo", log=tmp_path / "mongod.log", cache_gigabytes=0.25)
            site.server.wait_until_healthy()
            site.heard_of_anew()

        go.touch()
        assert site.ended(id)["exit_status"] == "success", worker.tail()
        assert site.statuses(id) == ["success"]
        assert [each["state"] for each in site.client.workers()] == ["active"]


def test_a_worker_without_a_server_stops_its_tasks_in_time_and_says_so_when_it_is_back(site: Site) -> None:
    worker = site.worker("worker", BANYAN_SERVER_LOST_AFTER="2")
    go = site.directory / "go"
    id = site.task(f"while [ ! -e {go} ]; do sleep 0.05; done")
    waiting = [site.task(f"cat {go}") for _ in range(3)]
    site.runs_on(id, "worker")
    assert processes_with(site.mark)
    site.server.send(signal.SIGKILL, family=True)
    eventually(lambda: not processes_with(site.mark), seconds=60, show=worker.tail)
    go.touch()
    site.server.start()
    site.server.wait_until_healthy()
    assert site.ended(id)["retry_count"] == 0
    assert site.statuses(id) == ["abandoned (server unreachable)", "success"]
    assert [task["exit_status"] for task in site.client.wait(waiting, timeout=60)] == ["success"] * 3
