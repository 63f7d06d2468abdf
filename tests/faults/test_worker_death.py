"""What a killed worker leaves: no process, and results that are told by its next life."""

import json
import signal
import sqlite3
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from pymongo import MongoClient

from banyan.client import Client
from banyan.storage import embedded
from banyan.storage.mongo import Storage
from tests.support import processes
from tests.support.adding_up import faults
from tests.support.crashing import context_of
from tests.support.processes import Program, ServerProgram
from tests.support.waiting import eventually, processes_with

ROOT = Path(__file__).parents[2]
MODELS = json.dumps([str(ROOT / "tests" / "support" / "probe_models")])
UNREACHABLE = "abandoned (worker unreachable)"
PROMISED_SECONDS = 5.0
ESCAPE = "setsid -f sleep 600; (setsid sleep 600 &); trap '' TERM HUP; nohup sleep 600 & sleep 600"
MANY = 500


@dataclass
class Site:
    """A server with the usual leases, a client of its provider, and the log of its workers."""

    directory: Path
    server: ServerProgram
    client: Client
    stack: ExitStack

    def worker(self, **settings: str) -> Program:
        """A worker on the same work directory as the one before."""
        token = self.server.token("worker")
        settings = {"BANYAN_MODELS__PATH": MODELS} | settings
        worker = processes.worker(self.directory, "worker", self.server.url, token, cores=4, **settings)
        worker.start()
        self.stack.callback(worker.stop)
        return worker

    def begun(self, task: str) -> bool:
        """Whether its first attempt has a process."""
        return any(attempt.get("pid") for attempt in self.client.attempts(task)[:1])

    def ended(self) -> int:
        """How many tasks have ended."""
        return self.client.tasks({"state": "terminated"}, max_results=1).total

    def spooled(self) -> int:
        """How many ends the worker keeps that nobody has acknowledged."""
        path = self.directory / "worker" / ".banyan-spool"
        with closing(sqlite3.connect(path)) as database:
            return int(database.execute("SELECT count(*) FROM ends").fetchone()[0])


@pytest.fixture
def site(mongo_uri: str, database_name: str, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield site_on(stack, mongo_uri, database_name, tmp_path)


def site_on(stack: ExitStack, uri: str, database: str, directory: Path) -> Site:
    """A server on this database."""
    server = processes.server(directory, "server", uri, database, BANYAN_MODELS__PATH=MODELS)
    server.start()
    stack.callback(server.stop)
    server.wait_until_healthy()
    client = stack.enter_context(server.client("user"))
    return Site(directory=directory, server=server, client=client, stack=stack)


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_no_process_of_its_tasks_outlives_a_killed_worker(site: Site, scheduler: str) -> None:
    mark = f"mark-{uuid.uuid4().hex}"
    env = {"MARK": mark}
    worker = site.worker(BANYAN_MODELS__SCHEDULER=scheduler)
    site.client.submit({"command": ESCAPE, "state": "available", "env": env})
    inputs = {"do": "ignore cancel", "mark": mark}
    model = site.client.submit({"model": "probe", "inputs": inputs, "state": "available", "env": env})["_id"]
    said = site.directory / "worker" / model / "1" / "work" / "said"
    eventually(said.exists, seconds=90, show=worker.tail)
    eventually(lambda: len(processes_with(mark)) >= 7, seconds=60, show=lambda: processes_with(mark))
    pids = [pid for pid, _ in processes_with(mark)]
    family = [each for each in psutil.process_iter() if each.pid in pids or _above(each, pids)]
    worker.send(signal.SIGKILL)
    _, left = psutil.wait_procs(family, timeout=PROMISED_SECONDS)
    assert (left, processes_with(mark)) == ([], [])


def _above(process: psutil.Process, pids: list[int]) -> bool:
    """Whether it is a supervisor or a host of these."""
    try:
        words = " ".join(process.cmdline())
        return ("model_host" in words or "worker.supervisor" in words) and any(
            child.pid in pids for child in process.children(recursive=True)
        )
    except psutil.Error:
        return False


def test_the_next_life_tells_what_had_ended_and_frees_what_had_not(site: Site) -> None:
    """Long before any lease is over."""
    go, begun = site.directory / "go", site.directory / "begun"
    worker = site.worker()
    short = site.client.submit({"command": f"touch {begun}; while [ ! -e {go} ]; do sleep 0.05; done; echo kept"})[
        "_id"
    ]
    long = site.client.submit({"command": f"[ -e {go} ] || sleep 600"})["_id"]
    site.client.update(short, {"state": "available"})
    site.client.update(long, {"state": "available"})
    eventually(lambda: all(map(site.begun, (short, long))), seconds=60, show=worker.tail)
    site.server.send(signal.SIGSTOP, family=True)
    go.touch()
    eventually(lambda: site.spooled() == 1, seconds=60, show=worker.tail)
    worker.send(signal.SIGKILL)
    site.server.send(signal.SIGCONT, family=True)
    again = site.worker()
    assert [task["exit_status"] for task in site.client.wait([short, long], timeout=40)] == ["success"] * 2, (
        again.tail()
    )
    (told,) = site.client.attempts(short)
    assert (told["exit_status"], told["stdout_tail"]) == ("success", "kept\n")
    assert [attempt["exit_status"] for attempt in site.client.attempts(long)] == [UNREACHABLE, "success"]
    assert site.client.task(long)["retry_count"] == 0


def test_a_killed_worker_gets_nothing_more_although_its_lease_goes_on(
    site: Site, mongo_uri: str, database_name: str
) -> None:
    """Work that comes then goes at once to those who are there, and waits for no lease."""
    dead = site.worker()
    other = processes.worker(site.directory, "other", site.server.url, site.server.token("worker"), cores=4)
    other.start()
    site.stack.callback(other.stop)
    with MongoClient[dict[str, object]](mongo_uri) as mongo:
        workers = mongo[database_name]["workers"]
        asking = {"claim_request": {"$exists": True}}
        eventually(lambda: workers.count_documents(asking) == 2, seconds=60, show=other.tail)
    dead.send(signal.SIGKILL)
    ids = [site.client.submit({"command": "true", "state": "available"})["_id"] for _ in range(20)]
    assert {task["exit_status"] for task in site.client.wait(ids, timeout=40)} == {"success"}
    assert [len(site.client.attempts(id)) for id in ids] == [1] * 20


@pytest.mark.parametrize("victim", ["worker", "server", "mongod"])
def test_many_tasks_survive_a_kill_in_the_middle_of_them(
    request: pytest.FixtureRequest, tmp_path: Path, victim: str
) -> None:
    with ExitStack() as stack:
        mongo = embedded.start(tmp_path / "mongo", log=tmp_path / "mongod.log") if victim == "mongod" else None
        mongods = [mongo] if mongo is not None else []
        stack.callback(lambda: [each.stop() for each in mongods])  # type: ignore[func-returns-value]
        uri = mongo.uri if mongo is not None else request.getfixturevalue("mongo_uri")
        name = "many" if mongo is not None else request.getfixturevalue("database_name")
        site = site_on(stack, uri, name, tmp_path)
        worker = site.worker()
        ids = [each["_id"] for each in site.client.submit([{"command": "sleep 0.02", "state": "available"}] * MANY)]
        eventually(lambda: site.ended() > MANY // 5, seconds=120, show=worker.tail)
        if mongo is not None:
            mongo.process.kill()
            mongo.stop()
            mongods[:] = [embedded.start(tmp_path / "mongo", log=tmp_path / "mongod.log")]
        elif victim == "worker":
            worker.send(signal.SIGKILL)
            worker = site.worker()
        else:
            site.server.send(signal.SIGKILL, family=True)
            site.server.start()
        site.server.wait_until_healthy()
        assert {task["exit_status"] for task in site.client.wait(ids, timeout=200)} == {"success"}, worker.tail()
        with closing(Storage.connect(uri, name)) as storage:
            eventually(lambda: not faults(context_of(storage)), show=lambda: faults(context_of(storage)))
            found = Counter(each["exit_status"] for each in storage.db["executions"].find())
        assert found["success"] == MANY
        assert found.keys() == ({"success", UNREACHABLE} if victim == "worker" else {"success"})
