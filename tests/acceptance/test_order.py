"""What starts when, with real workers that have short tasks wait: nobody sees that they do."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from banyan.client import Client
from banyan.wire import parse_date
from tests.support import processes
from tests.support.processes import ServerProgram
from tests.support.waiting import eventually

Document = dict[str, Any]

ONE_MORE = timedelta(seconds=0.2)
"""What was already running, and its successor that was just being started, may go on for so long."""


@pytest.fixture(scope="module")
def server(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProgram]:
    """A server for all tests here; each has queues and workers of its own."""
    server = processes.server(tmp_path_factory.mktemp("server"), "server", mongo_uri, "test_order")
    server.start()
    try:
        server.wait_until_healthy()
        yield server
    finally:
        server.stop()


@pytest.fixture
def admin(server: ServerProgram) -> Iterator[Client]:
    """A client that may do everything."""
    with server.client("admin") as client:
        yield client


Start = Callable[..., Any]


@pytest.fixture
def work(server: ServerProgram, tmp_path: Path) -> Start:
    """Runs a worker for these queues alone."""

    @contextmanager
    def run(*queues: str, cores: float = 1, name: str = "worker") -> Iterator[None]:
        settings = {"BANYAN_QUEUES": json.dumps(queues), "BANYAN_CAPABILITIES": "[]"}
        worker = processes.worker(tmp_path, name, server.url, server.token("worker"), cores=cores, **settings)
        worker.start()
        try:
            yield
        finally:
            worker.stop()

    return run


def tasks(queue: str, count: int, command: str = "sleep 0.05", **more: Any) -> list[Document]:
    """So many equal tasks."""
    return [{"command": command, "queue": queue, "state": "available", **more}] * count


def run_some(client: Client, *kinds: list[Document]) -> None:
    """Let the worker learn how long tasks of each kind take."""
    for kind in kinds:
        client.wait([task["_id"] for task in client.submit(kind)])


def starts(client: Client, posted: list[Document]) -> list[Document]:
    """Tasks that have begun in the order in which they did, each with its `time_started`."""
    ids = [task["_id"] for task in posted]
    found = client.each_task({"_id": {"$in": ids}}, ["time_started", "priority", "queue", "state", "exit_status"])
    begun = [task for task in found if task.get("time_started")]
    history = {each["task"]: each for each in client.each("/execution_history", {"task": {"$in": ids}})}
    for task in begun:
        task["began"] = parse_date(history[task["_id"]]["time_started"])
    return sorted(begun, key=lambda task: task["began"])


def wait_for_starts(client: Client, posted: list[Document], count: int) -> list[Document]:
    """The first so many starts."""
    return eventually(lambda: len(found := starts(client, posted)) >= count and found[:count], seconds=60) or []


def test_of_two_classes_in_one_list_the_higher_priority_starts_first(admin: Client, work: Start) -> None:
    admin.add_queue({"name": "classes"})
    large: Document = {"requested_resources": {"memory": "10 MiB"}}
    with work("classes"):
        run_some(admin, tasks("classes", 6, **large), tasks("classes", 6))
        posted = admin.submit([*tasks("classes", 60, **large), *tasks("classes", 60, priority=100)])
        first = wait_for_starts(admin, posted, 60)
    assert Counter(task["priority"] for task in first) == {100: 60}


def test_what_comes_first_starts_before_what_waits_at_the_worker(admin: Client, work: Start) -> None:
    admin.add_queue({"name": "urgent"})
    with work("urgent"):
        run_some(admin, tasks("urgent", 6))
        waiting = admin.submit(tasks("urgent", 100))
        wait_for_starts(admin, waiting, 5)
        urgent = admin.submit(tasks("urgent", 10, priority=9))
        posted = datetime.now(UTC)
        admin.wait([task["_id"] for task in urgent])
        first, last = (starts(admin, urgent)[end]["began"] for end in (0, -1))
        between = [task for task in starts(admin, waiting) if posted + ONE_MORE < task["began"] < last]
    assert between == []
    assert first < last


@pytest.mark.parametrize(("seconds", "each", "count"), [(0.05, 120, 80), (0.4, 40, 24)])
def test_queues_start_as_their_weights_say(admin: Client, work: Start, seconds: float, each: int, count: int) -> None:
    three, one = f"three-{count}", f"one-{count}"
    admin.add_queue({"name": three, "weight": 3})
    admin.add_queue({"name": one})
    with work(three, one):
        run_some(admin, tasks(three, 3), tasks(one, 3))
        command = f"sleep {seconds}"
        posted = admin.submit([*tasks(one, each, command), *tasks(three, each, command)])
        first = Counter(task["queue"] for task in wait_for_starts(admin, posted, count))
    assert first[three] == pytest.approx(count * 3 / 4, abs=2)


def test_a_queue_that_comes_later_gets_its_share_at_once(admin: Client, work: Start) -> None:
    admin.add_queue({"name": "early"})
    admin.add_queue({"name": "late"})
    with work("early", "late"):
        run_some(admin, tasks("early", 3), tasks("late", 3))
        early = admin.submit(tasks("early", 120))
        wait_for_starts(admin, early, 10)
        late = admin.submit(tasks("late", 60))
        posted = datetime.now(UTC)
        admin.wait([task["_id"] for task in late[:20]])
        last = starts(admin, late)[19]["began"]
        meanwhile = [task for task in starts(admin, early) if posted + ONE_MORE < task["began"] < last]
    assert len(meanwhile) == pytest.approx(18, abs=4)


def test_a_queue_that_was_paused_has_saved_up_no_turns(admin: Client, work: Start) -> None:
    admin.add_queue({"name": "resumed", "paused": True})
    admin.add_queue({"name": "steady"})
    with work("resumed", "steady", cores=8):
        posted = admin.submit([*tasks("resumed", 60, "sleep 0.5"), *tasks("steady", 100, "sleep 0.5")])
        wait_for_starts(admin, posted, 32)
        admin.update_queue("resumed", {"paused": False})
        resumed = datetime.now(UTC)
        after = eventually(
            lambda: (
                len(found := [each for each in starts(admin, posted) if each["began"] > resumed]) >= 32 and found[:32]
            ),
            seconds=60,
        )
    counts = Counter(task["queue"] for task in after or [])
    assert counts["resumed"] == pytest.approx(16, abs=5)


def test_after_a_pause_nothing_starts(admin: Client, work: Start) -> None:
    admin.add_queue({"name": "paused"})
    with work("paused"):
        run_some(admin, tasks("paused", 6))
        posted = admin.submit(tasks("paused", 100))
        wait_for_starts(admin, posted, 5)
        admin.update_queue("paused", {"paused": True})
        answered = datetime.now(UTC)
        eventually(lambda: not admin.tasks({"queue": "paused", "state": "running"}).total)
        later = [task for task in starts(admin, posted) if task["began"] > answered]
        left = admin.tasks({"queue": "paused", "state": "available"}).total
        assert later == []
        assert left > 50
        admin.update_queue("paused", {"paused": False})
        admin.wait([task["_id"] for task in posted])


def test_tasks_that_were_posted_just_before_can_all_be_changed(admin: Client, work: Start) -> None:
    admin.add_queue({"name": "changed"})
    with work("changed"):
        run_some(admin, tasks("changed", 6))
        posted = admin.submit(tasks("changed", 300, "sleep 0.02"))
        answer = admin.update_where({"queue": "changed", "state": {"$ne": "terminated"}}, {"priority": 5})
        changed = {task["_id"] for task in admin.each_task({"queue": "changed", "priority": 5})}
        begun = {task["_id"] for task in posted} - changed
    assert answer["updated"] == len(changed) > 250
    assert len(begun) < 50


def test_a_worker_that_has_nothing_to_do_gets_what_a_busy_one_holds(admin: Client, work: Start) -> None:
    admin.add_queue({"name": "hoard"})
    with work("hoard", cores=2):
        run_some(admin, tasks("hoard", 60, "true"))
        long = admin.submit(tasks("hoard", 2, "sleep 120"))
        wait_for_starts(admin, long, 2)
        short = admin.submit(tasks("hoard", 3, "true"))
        with work("hoard", name="second"):
            admin.wait([task["_id"] for task in short], timeout=60)
            assert {task["state"] for task in map(admin.task, (each["_id"] for each in long))} == {"running"}
        for task in long:
            admin.cancel(task["_id"])


def test_many_classes_are_run(admin: Client, work: Start) -> None:
    admin.add_queue({"name": "many"})
    with work("many"):
        sizes = [{"memory": 10_000_000 + n} for n in range(100)] + [{"memory": 2**20 * (n + 1)} for n in range(100)]
        posted = admin.submit([task for size in sizes for task in tasks("many", 1, "true", requested_resources=size)])
        admin.wait([task["_id"] for task in posted], timeout=120)
        ended = admin.tasks({"queue": "many", "exit_status": "success"}).total
    assert ended == len(sizes)
