"""Taking back what workers have not begun: they consent, or keep it, and nobody sees a difference."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from bson import ObjectId
from flask import Flask

from banyan.domain.line import Waiting
from banyan.domain.resources import Resources
from banyan.errors import Conflict, IllegalTransition
from banyan.queue.choose import Ahead
from banyan.queue.claim import claim
from banyan.queue.context import Context
from banyan.queue.report import Report, report
from banyan.queue.rescue import wake
from banyan.queue.update import Update, update
from tests.integration.conftest import Api
from tests.support.queue import ALICE, WORKERS, SimulatedWorker, post, states, task
from tests.support.waiting import eventually

Document = dict[str, Any]

AHEAD = Ahead(seconds=2.0, most=100, other=0.05, soon=Resources(millicores=1000))


@dataclass
class Listening:
    """A worker that holds tasks, waits in a claim, and answers when it is to give some back."""

    context: Context
    begun: set[ObjectId] = field(default_factory=set)
    silent: bool = False
    worker: SimulatedWorker = field(init=False)
    asked: list[ObjectId] = field(default_factory=list)
    given_back: list[ObjectId] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.worker = SimulatedWorker(self.context, resources={"cores": 1})
        self.stopped = threading.Event()

    def take(self, count: int) -> None:
        """Have so many tasks wait here; the first of them runs."""
        granted = self.worker.claim(1, ahead=AHEAD).tasks
        assert len(granted) == count

    def begin(self, id: ObjectId) -> None:
        """Start a task that it holds, and say nothing of it yet."""
        self.begun.add(next(each for each, grant in self.worker.held.items() if grant["_id"] == id))

    def listen(self) -> None:
        while not self.stopped.is_set():
            waiting = {"default": Waiting(turn=0.0, seconds=0.05, tasks=[(0, len(self.worker.held), "")])}
            ahead = Ahead(seconds=0.0, most=1, other=0.05, soon=Resources(millicores=1000), waiting=waiting)
            news = claim(self.context, self.worker.id, self.worker.ask(0, ahead=ahead, wait_seconds=0.2))
            for execution in news.take_back:
                self.asked.append(self.worker.held[execution]["_id"])
                if not self.silent:
                    self._answer(execution)

    def _answer(self, execution: ObjectId) -> None:
        if execution in self.begun:
            said = Report(execution=execution, fields={"time_started": self.context.now(), "pid": 1})
        else:
            said = Report(execution=execution, given_back=True)
            self.given_back.append(self.worker.held.pop(execution)["_id"])
        report(self.context, [said])

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.listen)
        thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            thread.join()


@pytest.fixture
def listening(context: Context) -> Callable[..., Listening]:
    """Makes such workers."""
    return lambda **more: Listening(context, **more)


def test_a_task_that_a_worker_has_not_begun_can_be_changed(
    context: Context, listening: Callable[..., Listening]
) -> None:
    ids = post(context, *[task() for _ in range(5)])
    holder = listening()
    holder.take(5)
    with holder.running():
        changed = update(context, ids[3], Update(fields={"requested_resources": {"cores": 9}}), ALICE)
    assert changed["requested_resources"] == {"cores": 9}
    assert holder.given_back == [ids[3]]
    assert states(context, ids) == ["running"] * 3 + ["available", "running"]
    wide = SimulatedWorker(context, resources={"cores": 9})
    assert [each["_id"] for each in wide.claim().tasks] == [ids[3]]


def test_a_task_that_has_begun_meanwhile_is_not_changed(context: Context, listening: Callable[..., Listening]) -> None:
    ids = post(context, *[task() for _ in range(2)])
    holder = listening()
    holder.take(2)
    holder.begin(ids[0])
    with holder.running(), pytest.raises(IllegalTransition, match="runs already"):
        update(context, ids[0], Update(fields={"priority": 5}), ALICE)
    assert context.storage.tasks.documents([ids[0]])[ids[0]]["priority"] == 0
    assert holder.asked == [ids[0]]


def test_nothing_is_changed_when_the_worker_does_not_answer(
    context: Context, listening: Callable[..., Listening]
) -> None:
    ids = post(context, *[task() for _ in range(2)])
    holder = listening(silent=True)
    holder.take(2)
    with holder.running(), pytest.raises(Conflict, match="nothing was changed"):
        update(context, ids[1], Update(fields={"priority": 5}), ALICE, wait_seconds=0.3)
    assert holder.asked
    stored = context.storage.tasks.documents([ids[1]])[ids[1]]
    assert (stored["state"], stored["priority"], "recalled" in stored) == ("running", 0, False)
    holder.worker.end()
    assert states(context, ids) == ["terminated"] * 2


def test_a_task_is_nobodys_between_its_return_and_its_edit_and_claimable_again_if_that_was_interrupted(
    context: Context,
) -> None:
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    worker.claim()
    context.storage.tasks.recall({"_id": id}, "edit")
    report(context, [Report(execution=next(iter(worker.held)), given_back=True)])
    assert states(context, [id]) == ["available"]
    assert not SimulatedWorker(context).claim().tasks
    context.storage.db["tasks"].update_one({"_id": id}, {"$set": {"wake_at": context.now()}})
    wake(context)
    assert [each["_id"] for each in SimulatedWorker(context).claim().tasks] == [id]


def test_after_a_pause_nothing_of_the_queue_waits_at_a_worker(
    context: Context, admin: Api, listening: Callable[..., Listening]
) -> None:
    ids = post(context, *[task() for _ in range(5)])
    holder = listening()
    holder.take(5)
    holder.begin(ids[0])
    with holder.running():
        assert admin.patch("/queues/default", {"paused": True}).status_code == 200
        assert states(context, ids) == ["running"] + ["available"] * 4
    assert not SimulatedWorker(context).claim().tasks
    assert admin.patch("/queues/default", {"paused": False}).status_code == 200
    assert len(SimulatedWorker(context).claim().tasks) == 4


def test_a_pause_waits_for_the_claims_that_are_being_written(context: Context, admin: Api) -> None:
    written = threading.Event()
    with ThreadPoolExecutor() as pool:
        claims = pool.submit(context.claims, lambda asked: [written.wait(60) for _ in asked], "a round of claims")
        eventually(claims.running)
        pause = pool.submit(admin.patch, "/queues/default", {"paused": True})
        with pytest.raises(TimeoutError):
            pause.result(timeout=0.3)
        written.set()
        assert pause.result(timeout=60).status_code == 200


def test_a_limit_that_comes_later_holds_for_what_waits_at_workers(
    context: Context, admin: Api, listening: Callable[..., Listening]
) -> None:
    ids = post(context, *[task() for _ in range(5)])
    holder = listening()
    holder.take(5)
    holder.begin(ids[0])
    with holder.running():
        assert admin.patch("/queues/default", {"max_running": 2}).status_code == 200
        assert states(context, ids).count("running") == 1
    assert len(SimulatedWorker(context).claim().tasks) == 1


def test_a_change_of_many_tasks_reaches_those_that_wait_at_workers(
    context: Context, provider: Api, listening: Callable[..., Listening]
) -> None:
    ids = post(context, *[task() for _ in range(30)])
    holder = listening()
    holder.take(30)
    holder.begin(ids[0])
    with holder.running():
        answer = provider.patch("/tasks?where={}", {"priority": 7}).get_json()
    assert (answer["matched"], answer["updated"]) == (30, 29)
    assert [each["_id"] for each in answer["_items"]] == [str(ids[0])]
    priorities = [each["priority"] for each in context.storage.tasks.documents(ids).values()]
    assert sorted(priorities) == [0] + [7] * 29


def test_if_match_names_the_revision_before_the_task_was_taken_back(
    context: Context, provider: Api, listening: Callable[..., Listening]
) -> None:
    (id,) = post(context, task())
    holder = listening()
    holder.take(1)
    etag = context.storage.tasks.documents([id])[id]["_etag"]
    with holder.running():
        wrong = provider.patch(f"/tasks/{id}", {"priority": 1}, headers={"If-Match": "other"})
        right = provider.patch(f"/tasks/{id}", {"priority": 1}, headers={"If-Match": etag})
    assert (wrong.status_code, right.status_code) == (412, 200)


def test_an_idle_worker_gets_what_waits_at_another_one(context: Context, listening: Callable[..., Listening]) -> None:
    ids = post(context, *[task(priority=-n) for n in range(10)])
    holder = listening()
    holder.take(10)
    holder.begin(ids[0])
    idle = SimulatedWorker(context, resources={"cores": 2})
    with holder.running():
        eventually(lambda: (context.storage.workers.load(holder.worker.id) or {}).get("waiting_seconds", 0) > 0.1)
        news = claim(context, idle.id, idle.ask(2, wait_seconds=10.0))
    assert {each["_id"] for each in news.tasks} <= {*ids[1:3]}
    assert news.tasks


def test_six_claims_by_hand_at_once_keep_the_limit_of_their_queue(context: Context, app: Flask) -> None:
    """Each is checked in the transaction that writes it."""
    context.storage.db["queues"].update_one({"name": "default"}, {"$set": {"max_running": 1}})
    ids = post(context, *[task() for _ in range(6)])
    workers = [SimulatedWorker(context) for _ in ids]
    token = context.storage.users.add(WORKERS.name, WORKERS.role, context.now())
    statuses: list[int] = []

    def claim_by_hand(id: ObjectId, worker: SimulatedWorker) -> None:
        body = {"state": "running", "update_execution_data": {"worker": str(worker.id)}}
        api = Api(client=app.test_client(), token=token)
        statuses.append(api.patch(f"/tasks/{id}", body).status_code)

    threads = [threading.Thread(target=claim_by_hand, args=each) for each in zip(ids, workers, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [422] * 5
    assert states(context, ids).count("running") == 1
