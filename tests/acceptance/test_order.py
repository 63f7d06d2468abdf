"""What starts when, with real workers at which short tasks wait: nobody sees that they do."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from pymongo import MongoClient

from banyan.client import Client
from tests.support import processes
from tests.support.processes import ServerProgram
from tests.support.waiting import eventually

Document = dict[str, Any]

ONE_MORE = 0.25
"""What was already running, and its successor that was just being started, may go on for so many seconds."""


class Start(NamedTuple):
    """When a task began, in seconds, and which."""

    at: float
    task: str
    queue: str
    priority: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Posts tasks that write down when they begin, and reads that."""

    client: Client
    stamps: Path

    def add_queue(self, name: str, **more: Any) -> None:
        """A new queue."""
        self.client.add_queue({"name": name, **more})

    def post(self, *kinds: list[Document]) -> list[Document]:
        """Post tasks in one list."""
        asked = [task for kind in kinds for task in kind]
        for task in asked:
            task["env"] = {"STAMPS": str(self.stamps)}
        return [{**task, **answer} for task, answer in zip(asked, self.client.submit(asked), strict=True)]

    def run(self, *kinds: list[Document]) -> None:
        """Let the worker learn how long tasks of each kind take."""
        for kind in kinds:
            self.wait(self.post(kind))

    def wait(self, posted: list[Document]) -> None:
        """Wait until these have ended."""
        self.client.wait([task["_id"] for task in posted], timeout=120)

    def starts(self, posted: list[Document]) -> list[Start]:
        """Those that have begun, in the order in which they did."""
        begun = []
        for task in posted:
            stamp = self.stamps / task["_id"]
            if stamp.exists() and (text := stamp.read_text()):
                begun.append(Start(float(text), task["_id"], task["queue"], task.get("priority", 0)))
        return sorted(begun)

    def first_starts(self, posted: list[Document], count: int, after: float = 0.0) -> list[Start]:
        """The first so many starts (after a time)."""

        def look() -> list[Start]:
            found = [start for start in self.starts(posted) if start.at > after]
            return found[:count] if len(found) >= count else []

        return eventually(look, seconds=90)


def tasks(queue: str, count: int, command: str = "sleep 0.05", **more: Any) -> list[Document]:
    """So many equal tasks."""
    line = 'date +%s.%N > "$STAMPS/$BANYAN_TASK_ID.new"; mv "$STAMPS/$BANYAN_TASK_ID.new" "$STAMPS/$BANYAN_TASK_ID"'
    return [{"command": f"{line}; {command}", "queue": queue, "state": "available", **more} for _ in range(count)]


@pytest.fixture(scope="module")
def server(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProgram]:
    """A server for all tests here; each has queues and workers of its own."""
    database = f"test_{uuid4().hex}"
    server = processes.server(tmp_path_factory.mktemp("server"), "server", mongo_uri, database)
    server.start()
    try:
        server.wait_until_healthy()
        yield server
    finally:
        server.stop()
        with MongoClient[Document](mongo_uri) as mongo:
            mongo.drop_database(database)


@pytest.fixture
def line(server: ServerProgram, tmp_path: Path) -> Iterator[Line]:
    """Posting and reading, as an admin."""
    stamps = tmp_path / "stamps"
    stamps.mkdir()
    with server.client("admin") as client:
        yield Line(client=client, stamps=stamps)


Work = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def work(server: ServerProgram, tmp_path: Path) -> Work:
    """Runs a worker for these queues alone."""

    @contextmanager
    def run(*queues: str, cores: float = 1, name: str = "worker") -> Iterator[None]:
        settings = {"BANYAN_QUEUES": json.dumps(queues)}
        worker = processes.worker(tmp_path, name, server.url, server.token("worker"), cores=cores, **settings)
        worker.start()
        try:
            yield
        finally:
            worker.stop()

    return run


def test_of_two_classes_in_one_list_the_higher_priority_starts_first(line: Line, work: Work) -> None:
    line.add_queue("classes")
    large: Document = {"requested_resources": {"memory": "10 MiB"}}
    with work("classes"):
        line.run(tasks("classes", 6, **large), tasks("classes", 6))
        posted = line.post(tasks("classes", 60, **large), tasks("classes", 60, priority=100))
        first = line.first_starts(posted, 60)
    assert Counter(start.priority for start in first) == {100: 60}


def test_what_comes_first_starts_before_what_waits_at_the_worker(line: Line, work: Work) -> None:
    line.add_queue("urgent")
    with work("urgent"):
        line.run(tasks("urgent", 6))
        waiting = line.post(tasks("urgent", 100))
        line.first_starts(waiting, 5)
        urgent = line.post(tasks("urgent", 10, priority=9))
        posted = time.time()
        last = line.first_starts(urgent, 10)[-1].at
        between = [start for start in line.starts(waiting) if posted + ONE_MORE < start.at < last]
        left = len(waiting) - len(line.starts(waiting))
    assert between == []
    assert left > 0


@pytest.mark.parametrize(("seconds", "each", "count"), [(0.05, 120, 80), (0.4, 40, 24)])
def test_queues_start_as_their_weights_say(line: Line, work: Work, seconds: float, each: int, count: int) -> None:
    three, one = f"three-{count}", f"one-{count}"
    line.add_queue(three, weight=3)
    line.add_queue(one)
    with work(three, one):
        line.run(tasks(three, 3), tasks(one, 3))
        command = f"sleep {seconds}"
        posted = line.post(tasks(one, each, command), tasks(three, each, command))
        first = Counter(start.queue for start in line.first_starts(posted, count))
    assert first[three] == pytest.approx(count * 3 / 4, abs=2)


def test_a_queue_that_comes_later_gets_its_share_at_once(line: Line, work: Work) -> None:
    line.add_queue("early")
    line.add_queue("late")
    with work("early", "late"):
        line.run(tasks("early", 3), tasks("late", 3))
        early = line.post(tasks("early", 120))
        line.first_starts(early, 10)
        late = line.post(tasks("late", 60))
        after = time.time() + ONE_MORE
        first = Counter(start.queue for start in line.first_starts([*early, *late], 40, after))
    assert first["late"] == pytest.approx(20, abs=4)


def test_a_queue_that_was_paused_has_saved_up_no_turns(line: Line, work: Work) -> None:
    line.add_queue("resumed", paused=True)
    line.add_queue("steady")
    with work("resumed", "steady", cores=8):
        posted = line.post(tasks("resumed", 60, "sleep 0.5"), tasks("steady", 100, "sleep 0.5"))
        line.first_starts(posted, 32)
        line.client.update_queue("resumed", {"paused": False})
        after = Counter(start.queue for start in line.first_starts(posted, 32, time.time()))
    assert after["resumed"] == pytest.approx(16, abs=5)


def test_after_a_pause_nothing_starts(line: Line, work: Work) -> None:
    line.add_queue("paused")
    with work("paused"):
        line.run(tasks("paused", 6))
        posted = line.post(tasks("paused", 100))
        line.first_starts(posted, 5)
        line.client.update_queue("paused", {"paused": True})
        answered = time.time()
        eventually(lambda: not line.client.tasks({"queue": "paused", "state": "running"}).total)
        later = [start for start in line.starts(posted) if start.at > answered]
        left = line.client.tasks({"queue": "paused", "state": "available"}).total
        assert later == []
        assert left > 0
        line.client.update_queue("paused", {"paused": False})
        line.wait(posted)


def test_tasks_that_were_posted_just_before_can_be_changed_until_they_begin(line: Line, work: Work) -> None:
    line.add_queue("changed")
    with work("changed"):
        line.run(tasks("changed", 6))
        posted = line.post(tasks("changed", 300, "sleep 0.2"))
        answer = line.client.update_where({"queue": "changed", "state": {"$ne": "terminated"}}, {"priority": 5})
        begun = {start.task for start in line.starts(posted)}
        changed = {task["_id"] for task in line.client.each_task({"queue": "changed", "priority": 5})}
    assert answer["updated"] == len(changed)
    assert {task["_id"] for task in posted} - changed <= begun


def test_a_worker_that_has_nothing_to_do_gets_what_a_busy_one_holds(line: Line, work: Work) -> None:
    line.add_queue("hoard")
    with work("hoard", cores=2):
        line.run(tasks("hoard", 60, "true"))
        long = line.post(tasks("hoard", 2, "sleep 120"))
        line.first_starts(long, 2)
        short = line.post(tasks("hoard", 3, "true"))
        with work("hoard", name="second"):
            line.wait(short)
            assert {task["state"] for task in map(line.client.task, (each["_id"] for each in long))} == {"running"}
        for task in long:
            line.client.cancel(task["_id"])


def test_many_classes_are_run(line: Line, work: Work) -> None:
    line.add_queue("many")
    with work("many"):
        sizes = [{"memory": 10_000_000 + n} for n in range(100)] + [{"memory": 2**20 * (n + 1)} for n in range(100)]
        line.wait(line.post(*[tasks("many", 1, "true", requested_resources=size) for size in sizes]))
        ended = line.client.tasks({"queue": "many", "exit_status": "success"}).total
    assert ended == len(sizes)
