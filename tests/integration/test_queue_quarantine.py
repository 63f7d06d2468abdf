"""Machines that fail one task after the other get no more, until someone or time lets them."""

import threading
import time

import pytest
from bson import ObjectId

from banyan.queue.cancel import cancel
from banyan.queue.claim import News
from banyan.queue.context import Context
from banyan.queue.explain import explain
from banyan.queue.register import change_state
from banyan.queue.report import Report, report
from banyan.queue.rescue import rescue
from banyan.wire import format_date
from tests.integration.conftest import Api
from tests.support.clock import moved
from tests.support.queue import SimulatedWorker, context_of, post, states, task
from tests.support.waiting import eventually

BROKEN = "failure (worker: no work directory: [Errno 30] Read-only file system)"
HOST_DIED = "failure (worker: model host died)"
DISK_FULL = "failure (worker: disk full)"
DISK_FILLED = "failure (worker: disk filled by this task)"


def fail(context: Context, worker: SimulatedWorker, *statuses: str) -> list[ObjectId]:
    """Let the worker end one new task after the other like this; the tasks, which are cancelled if they come back."""
    ids = []
    for status in statuses:
        (id,) = post(context, task())
        worker.claim(1)
        worker.end(status)
        cancel(context, [id], {"user": "alice"})
        ids.append(id)
    return ids


def state(context: Context, worker: SimulatedWorker) -> str:
    return str((context.storage.workers.load(worker.id) or {})["state"])


@pytest.fixture
def worker(context: Context) -> SimulatedWorker:
    return SimulatedWorker(context)


def test_a_worker_that_fails_three_different_tasks_in_a_row_gets_no_more(
    context: Context, worker: SimulatedWorker
) -> None:
    fail(context, worker, BROKEN, BROKEN)
    assert state(context, worker) == "active"
    fail(context, worker, DISK_FULL)
    assert state(context, worker) == "quarantined"
    told = (context.storage.workers.load(worker.id) or {})["quarantine"]
    assert told["reason"] == f"it failed 3 tasks in a row by its own fault, the last one with: {DISK_FULL}"
    assert (told["until"] - told["since"]).total_seconds() == 600
    post(context, task())
    news = worker.claim()
    assert (news.tasks, news.drain) == ([], True)


@pytest.mark.parametrize(
    "good", ["success", "failure (exit code 1)", "failure (SIGSEGV)", "timed out", "out of memory"]
)
def test_an_end_that_is_not_the_machines_fault_begins_the_count_anew(
    context: Context, worker: SimulatedWorker, good: str
) -> None:
    fail(context, worker, BROKEN, BROKEN, good, BROKEN, BROKEN)
    assert state(context, worker) == "active"


@pytest.mark.parametrize("neutral", ["cancelled", "abandoned (server unreachable)"])
def test_an_end_that_tells_nothing_of_the_machine_changes_nothing(
    context: Context, worker: SimulatedWorker, neutral: str
) -> None:
    fail(context, worker, BROKEN, BROKEN, neutral)
    assert state(context, worker) == "active"
    fail(context, worker, BROKEN)
    assert state(context, worker) == "quarantined"


def test_exit_codes_are_never_the_machines(context: Context, worker: SimulatedWorker) -> None:
    fail(context, worker, *["failure (exit code 1)"] * 10)
    assert state(context, worker) == "active"


def test_one_batch_is_read_in_its_order(context: Context, worker: SimulatedWorker) -> None:
    post(context, *[task() for _ in range(6)])
    worker.claim()
    statuses = [BROKEN, BROKEN, "success", BROKEN, BROKEN, BROKEN]
    said = [Report(execution=id, exit_status=status) for id, status in zip(worker.held, statuses, strict=True)]
    report(context, said[:5])
    assert state(context, worker) == "active"
    report(context, said[:5])  # told once more
    assert state(context, worker) == "active"
    report(context, said[3:])
    assert state(context, worker) == "quarantined"


def test_one_task_that_fails_again_and_again_is_not_three(context: Context, worker: SimulatedWorker) -> None:
    (id,) = post(context, task())
    for _ in range(4):
        worker.claim()
        worker.end(DISK_FULL)
        context.storage.tasks.stop_avoiding(worker.id)
    assert (states(context, [id]), state(context, worker)) == (["available"], "active")


def test_tasks_that_fill_the_disk_do_not_put_their_worker_into_quarantine(
    context: Context, worker: SimulatedWorker
) -> None:
    for end in (DISK_FULL, DISK_FULL, *[DISK_FILLED] * 4):
        post(context, task())
        worker.claim()
        worker.end(end)
    assert state(context, worker) == "active"
    post(context, task())
    worker.claim()
    worker.end(DISK_FULL)
    assert state(context, worker) == "quarantined"


def test_a_model_that_kills_its_hosts_does_not_put_workers_into_quarantine(context: Context) -> None:
    worker = SimulatedWorker(context, capabilities=("shell", "model:a", "model:b", "model:c"))

    def die(*models: str) -> None:
        ids = post(context, *[task(command=None, model=model) for model in models])
        worker.claim()
        worker.end(HOST_DIED)
        cancel(context, ids, {"user": "alice"})

    die("a", "a", "a", "a", "b")
    assert state(context, worker) == "active"
    die("c")
    assert state(context, worker) == "quarantined"


def test_an_administrator_sees_why_and_releases_it(
    context: Context, worker: SimulatedWorker, admin: Api, provider: Api
) -> None:
    (id,) = post(context, task())
    worker.claim()
    worker.end(DISK_FULL)
    fail(context, worker, DISK_FULL, DISK_FULL)
    shown = provider.get(f"/workers/{worker.id}").get_json()
    assert (shown["state"], shown["quarantine"]["reason"][:34]) == ("quarantined", "it failed 3 tasks in a row by its ")
    assert "failing" not in shown
    told = explain(context, id)
    assert [reason["reason"] for reason in told["reasons"]] == ["quarantined", "no_worker"]
    assert DISK_FULL in told["summary"]
    assert f"when an administrator sets the state of worker {worker.id} to active" in told["summary"]
    assert provider.patch(f"/workers/{worker.id}", {"state": "active"}).status_code == 403
    assert admin.patch(f"/workers/{worker.id}", {"state": "active"}).status_code == 200
    assert "quarantine" not in provider.get(f"/workers/{worker.id}").get_json()
    assert [grant["_id"] for grant in worker.claim().tasks] == [id]
    worker.end(BROKEN)
    fail(context, worker, BROKEN)
    assert state(context, worker) == "active"


def test_time_releases_it_and_the_next_failure_sends_it_back(context: Context, worker: SimulatedWorker) -> None:
    clock = moved(context.storage)
    (id,) = post(context, task())
    worker.claim()
    worker.end(BROKEN)
    fail(context, worker, BROKEN, BROKEN)
    clock.seconds += 599
    rescue(context)
    assert state(context, worker) == "quarantined"
    clock.seconds += 2
    rescue(context)
    assert state(context, worker) == "active"
    assert [grant["_id"] for grant in worker.claim().tasks] == [id]
    worker.end(BROKEN)
    assert state(context, worker) == "quarantined"
    clock.seconds += 601
    rescue(context)
    worker.claim()
    worker.end("success")
    fail(context, worker, BROKEN, BROKEN)
    assert state(context, worker) == "active"


def test_explain_says_what_helps_where_the_only_worker_has_failed_it(context: Context, worker: SimulatedWorker) -> None:
    (id,) = post(context, task())
    worker.claim()
    worker.end(DISK_FULL)
    (reason,) = explain(context, id)["reasons"]
    name = (context.storage.workers.load(worker.id) or {})["name"]
    again = context.storage.tasks.documents([id])[id]["avoid_until"]
    assert reason["message"] == (
        f"the only worker that could run it has failed it by the machine's own fault ({name} on test: {DISK_FULL}); "
        f"it is tried there again after {format_date(again)}; to have it run elsewhere, start another worker"
    )
    assert (reason["again"], reason["workers"]) == (again, [worker.id])
    SimulatedWorker(context)
    assert explain(context, id)["reasons"][0]["reason"] == "waiting"


def test_quarantine_can_be_switched_off_or_left_to_people(context: Context) -> None:
    never = context_of(context.storage, quarantine={"after": 0})
    worker = SimulatedWorker(never)
    fail(never, worker, *[BROKEN] * 5)
    assert state(never, worker) == "active"
    lasting = context_of(context.storage, quarantine={"after": 1, "seconds": 0})
    worker.context = lasting
    fail(lasting, worker, BROKEN)
    moved(context.storage).seconds += 10**8
    context.storage.workers.renew(worker.id, context.now())
    rescue(lasting)
    assert state(lasting, worker) == "quarantined"
    change_state(lasting, worker.id, "active")
    assert state(lasting, worker) == "active"


# Avoided for one task


def test_the_only_worker_is_tried_again_after_pauses_that_grow_until_the_fifth_loss(
    context: Context, worker: SimulatedWorker
) -> None:
    clock = moved(context.storage)
    (id,) = post(context, task())
    for pause in (10, 20, 40, 80):
        assert [grant["_id"] for grant in worker.claim().tasks] == [id]
        worker.end(BROKEN)
        clock.seconds += pause - 2
        context.storage.workers.renew(worker.id, context.now())
        rescue(context)
        assert worker.claim().tasks == [], f"before {pause} s are over"
        clock.seconds += 4
        rescue(context)
    assert [grant["_id"] for grant in worker.claim().tasks] == [id]
    worker.end(BROKEN)
    document = context.storage.tasks.documents([id])[id]
    assert (document["state"], document["exit_status"], document["retry_count"]) == ("terminated", BROKEN, 0)
    assert "avoid_until" not in document


def test_a_worker_is_not_tried_again_while_another_one_could_take_the_task(
    context: Context, worker: SimulatedWorker
) -> None:
    clock = moved(context.storage)
    (id,) = post(context, task(requires={"disk": "ssd"}))
    with_disk = [SimulatedWorker(context, labels={"disk": "ssd"}) for _ in range(2)]
    with_disk[0].claim()
    with_disk[0].end(BROKEN)

    def offered(seconds: float) -> bool:
        clock.seconds += seconds
        for each in with_disk:
            context.storage.workers.renew(each.id, context.now())
        rescue(context)
        return bool(with_disk[0].claim().tasks)

    assert not offered(11)
    assert not offered(300)
    change_state(context, with_disk[1].id, "draining")
    assert offered(11), "the other one takes nothing more; one that does not fit does not count"
    with_disk[0].end("success")
    document = context.storage.tasks.documents([id])[id]
    assert (document["exit_status"], "avoid_until" in document) == ("success", False)


def test_of_several_that_failed_it_the_first_is_tried_again_and_then_the_next(context: Context) -> None:
    clock = moved(context.storage)
    (id,) = post(context, task())
    both = [SimulatedWorker(context) for _ in range(2)]
    for each in both:
        assert [grant["_id"] for grant in each.claim().tasks] == [id]
        each.end(BROKEN)
    for first in (True, False):
        clock.seconds += 100
        for each in both:
            context.storage.workers.renew(each.id, context.now())
        rescue(context)
        avoided = context.storage.tasks.documents([id])[id].get("avoid")
        assert avoided == ([both[1].id] if first else None)
        change_state(context, both[0].id, "draining")


def test_a_claim_that_waits_is_woken_when_its_worker_is_tried_again(context: Context, worker: SimulatedWorker) -> None:
    clock = moved(context.storage)
    (id,) = post(context, task())
    worker.claim()
    worker.end(BROKEN)
    news: list[News] = []
    waiting = threading.Thread(target=lambda: news.append(worker.claim(wait_seconds=20.0)))
    waiting.start()
    eventually(lambda: (context.storage.workers.load(worker.id) or {}).get("claim_request"), show=lambda: news)
    clock.seconds += 11
    started = time.monotonic()
    rescue(context)
    waiting.join(timeout=30)
    assert [grant["_id"] for grant in news[0].tasks] == [id]
    assert time.monotonic() - started < 15, "it was not woken"


def test_the_pause_can_be_set(context: Context) -> None:
    long = context_of(context.storage, quarantine={"avoid_seconds": 1000})
    worker = SimulatedWorker(long)
    (id,) = post(long, task())
    before = context.now()
    worker.claim()
    worker.end(BROKEN)
    pause = (context.storage.tasks.documents([id])[id]["avoid_until"] - before).total_seconds()
    assert 1000 <= pause < 1060
