"""Machines that fail one task after the other get no more, until someone or time lets them."""

import pytest
from bson import ObjectId

from banyan.queue.cancel import cancel
from banyan.queue.context import Context
from banyan.queue.explain import explain
from banyan.queue.register import change_state
from banyan.queue.report import Report, report
from banyan.queue.rescue import rescue
from tests.integration.conftest import Api
from tests.support.clock import moved
from tests.support.queue import SimulatedWorker, context_of, post, states, task

BROKEN = "failure (worker: no work directory: [Errno 30] Read-only file system)"
HOST_DIED = "failure (worker: model host died)"
DISK_FULL = "failure (worker: disk full)"


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
    assert reason["message"] == (
        f"the only worker that could run it has failed it by the machine's own fault ({name} on test: {DISK_FULL}); "
        "mend that machine and start its worker again, or start another worker"
    )
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
