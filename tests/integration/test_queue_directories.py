"""Tasks that run in a directory which not every worker has: tried where it may be, and ended where it is nowhere."""

from datetime import timedelta

import pytest
from bson import ObjectId

from banyan.queue.cancel import cancel
from banyan.queue.context import Context
from banyan.queue.explain import explain
from banyan.queue.explain_queue import explain_queue
from banyan.queue.register import change_state
from banyan.queue.report import Report, report
from banyan.queue.rescue import rescue
from banyan.queue.retry import retry
from banyan.queue.update import Update, update
from tests.support.clock import moved
from tests.support.queue import ALICE, SimulatedWorker, context_of, post, states, task

HERE = "/home/alice/sweep"
LACKING = f"failure (no directory: {HERE})"
BROKEN = "failure (worker: disk full)"


def here(**fields: object) -> dict[str, object]:
    return task(directory=HERE, **fields)


def granted(worker: SimulatedWorker, most: int = 1000) -> list[ObjectId]:
    return [grant["_id"] for grant in worker.claim(most).tasks]


def counts(context: Context, id: ObjectId) -> tuple[str, str | None, int, int]:
    document = context.storage.tasks.documents([id])[id]
    return document["state"], document.get("exit_status"), document["retry_count"], document.get("abandoned_count", 0)


@pytest.fixture
def workers(context: Context) -> list[SimulatedWorker]:
    return [SimulatedWorker(context) for _ in range(2)]


def test_a_worker_without_the_directory_gives_the_task_back_and_nothing_is_counted(
    context: Context, workers: list[SimulatedWorker]
) -> None:
    (id,) = post(context, here(max_retry_count=1))
    before = context.storage.tasks.documents([id])[id]["time_available"]
    assert granted(workers[0]) == [id]
    workers[0].end(LACKING)
    assert counts(context, id) == ("available", None, 0, 0)
    assert context.storage.tasks.documents([id])[id]["time_available"] == before, "it waits for as long as before"
    assert "failing" not in (context.storage.workers.load(workers[0].id) or {})
    assert granted(workers[0]) == []
    assert granted(workers[1]) == [id]
    workers[1].end("success")
    assert counts(context, id) == ("terminated", "success", 0, 0)
    ends = [attempt["exit_status"] for attempt in context.storage.executions.of_task(id)]
    assert ends == [LACKING, "success"]


def test_where_no_worker_that_fits_has_it_the_task_fails_whatever_retries_are_left(
    context: Context, workers: list[SimulatedWorker]
) -> None:
    SimulatedWorker(context, capabilities=("model:m",))
    (id,) = post(context, here(max_retry_count=5))
    for each in workers:
        assert granted(each) == [id]
        each.end(LACKING, error=f"no directory {HERE}")
    assert counts(context, id) == ("terminated", LACKING, 0, 0)
    (reason,) = explain(context, id)["reasons"]
    assert reason["message"] == f"it has ended: {LACKING}"
    assert reason["error"] == f"no directory {HERE}"
    for way_out in (HERE, "--dir DIR", "--fresh", f"banyan retry {id} --set directory=DIR"):
        assert way_out in reason["help"]


def test_the_only_worker_is_asked_each_time_so_that_a_directory_made_meanwhile_is_found(context: Context) -> None:
    worker = SimulatedWorker(context)
    for exit_status in (LACKING, LACKING, "success"):
        (id,) = post(context, here())
        assert granted(worker) == [id]
        worker.end(exit_status)
        assert counts(context, id)[:2] == ("terminated", exit_status)


def test_other_tasks_of_that_directory_are_not_offered_to_it_for_ten_minutes_and_other_directories_are(
    context: Context, workers: list[SimulatedWorker]
) -> None:
    clock = moved(context.storage)
    post(context, here())
    workers[0].claim()
    workers[0].end(LACKING)
    workers[1].claim()
    (second,) = post(context, here())
    assert granted(workers[0]) == []
    others = post(context, task(directory="/elsewhere"), task(), here(requested_resources={"cores": 3}))
    assert set(granted(workers[0])) == set(others[:2]), "nor to it in another class"
    clock.seconds += 590
    for each in workers:
        context.storage.workers.renew(each.id, context.now())
    assert granted(workers[0]) == []
    clock.seconds += 20
    assert set(granted(workers[0])) == {second, others[2]}


def test_the_ten_minutes_can_be_set(context: Context) -> None:
    short = context_of(context.storage, queue={"avoid_directory_seconds": 60})
    clock = moved(context.storage)
    first, _ = SimulatedWorker(short), SimulatedWorker(short)
    post(short, here())
    first.claim()
    first.end(LACKING)
    (id,) = post(short, here())
    assert granted(first) == []
    clock.seconds += 61
    assert granted(first) == [id]


def test_a_worker_that_could_not_take_the_task_anyway_is_no_hope(context: Context) -> None:
    with_disk = SimulatedWorker(context, labels={"disk": "ssd"})
    SimulatedWorker(context)
    SimulatedWorker(context, labels={"disk": "ssd"}, queues=("another",))
    (id,) = post(context, here(requires={"disk": "ssd"}))
    assert granted(with_disk) == [id]
    with_disk.end(LACKING)
    assert counts(context, id)[:2] == ("terminated", LACKING)


def test_when_the_other_worker_leaves_the_task_is_tried_once_more_and_ends(
    context: Context, workers: list[SimulatedWorker]
) -> None:
    clock = moved(context.storage)
    first, second = post(context, here(), here())
    assert granted(workers[0], 1) == [first]
    workers[0].end(LACKING)
    assert granted(workers[0]) == []
    change_state(context, workers[1].id, "draining")
    clock.seconds += 11
    context.storage.workers.renew(workers[0].id, context.now())
    rescue(context)
    assert granted(workers[0]) == [first, second]
    workers[0].end(LACKING)
    assert [counts(context, id)[:2] for id in (first, second)] == [("terminated", LACKING)] * 2


def test_a_worker_that_failed_it_otherwise_is_tried_again_where_the_other_lacks_the_directory(
    context: Context, workers: list[SimulatedWorker]
) -> None:
    clock = moved(context.storage)
    lacking, broken = workers
    post(context, here())
    lacking.claim()
    lacking.end(LACKING)
    (other,) = granted(broken)
    broken.end("success")
    (id,) = post(context, here())
    assert granted(broken) == [id]
    broken.end(BROKEN)
    assert granted(lacking) == []
    clock.seconds += 11
    for each in workers:
        context.storage.workers.renew(each.id, context.now())
    rescue(context)
    assert granted(broken) == [id]
    broken.end("success")
    assert counts(context, other)[1] == counts(context, id)[1] == "success"


def test_a_task_that_is_sent_to_another_directory_is_offered_to_all_workers_again(
    context: Context, workers: list[SimulatedWorker]
) -> None:
    (id,) = post(context, here())
    workers[0].claim()
    workers[0].end(LACKING)
    assert granted(workers[0]) == []
    update(context, id, Update(fields={"directory": "/tmp"}), ALICE)
    assert granted(workers[0]) == [id]
    workers[0].end("success")
    assert counts(context, id)[:2] == ("terminated", "success")


def test_a_retry_asks_all_workers_anew(context: Context, workers: list[SimulatedWorker]) -> None:
    (id,) = post(context, here())
    for each in workers:
        each.claim()
        each.end(LACKING)
    assert counts(context, id)[1] == LACKING
    retry(context, id)
    assert granted(workers[0]) == [id]
    workers[0].end(LACKING)
    assert counts(context, id)[:2] == ("available", None), "the other one may have it by now"
    assert granted(workers[1]) == [id]
    workers[1].end("success")
    assert counts(context, id)[1] == "success"


def test_thousands_of_tasks_where_no_worker_has_the_directory_are_tried_about_once_each(
    context: Context, workers: list[SimulatedWorker]
) -> None:
    ids = post(context, *(here() for _ in range(300)))
    attempts = 0
    for _ in range(20):
        for each in workers:
            attempts += len(granted(each, 50))
            each.end(LACKING)
    assert set(states(context, ids)) == {"terminated"}
    assert attempts <= 350


def test_a_cancelled_task_does_not_come_back(context: Context, workers: list[SimulatedWorker]) -> None:
    (id,) = post(context, here())
    workers[0].claim()
    cancel(context, [id], {"user": "alice"})
    workers[0].end(LACKING)
    assert states(context, [id]) == ["cancelled"]


def test_a_report_that_is_repeated_changes_nothing(context: Context, workers: list[SimulatedWorker]) -> None:
    (id,) = post(context, here())
    workers[0].claim()
    (execution,) = workers[0].held
    for _ in range(2):
        report(context, [Report(execution=execution, exit_status=LACKING)])
    assert counts(context, id) == ("available", None, 0, 0)
    assert granted(workers[1]) == [id]
    report(context, [Report(execution=execution, exit_status=LACKING)])
    assert states(context, [id]) == ["running"]


def test_a_late_report_says_nothing_of_the_directory_that_the_task_has_now(
    context: Context, workers: list[SimulatedWorker]
) -> None:
    (id,) = post(context, here())
    workers[0].claim()
    (execution,) = workers[0].held
    report(context, [Report(execution=execution, exit_status=LACKING)])
    known = (context.storage.workers.load(workers[0].id) or {})["lacking_directories"]
    context.storage.db["tasks"].update_one({"_id": id}, {"$set": {"directory": "/elsewhere"}})
    report(context, [Report(execution=execution, exit_status=LACKING)])
    assert (context.storage.workers.load(workers[0].id) or {})["lacking_directories"] == known


def test_lacking_directories_put_no_worker_into_quarantine_nor_out_of_suspicion(
    context: Context, workers: list[SimulatedWorker]
) -> None:
    for directory in ("/a", "/b", "/c", "/d"):
        post(context, task(directory=directory))
        workers[0].claim()
        workers[0].end(f"failure (no directory: {directory})")
    assert (context.storage.workers.load(workers[0].id) or {})["state"] == "active"
    post(context, task(), task())
    for status in (BROKEN, "failure (no directory: /a)"):
        workers[0].claim(1)
        workers[0].end(status)
    assert (context.storage.workers.load(workers[0].id) or {})["failing"]


def test_explain_knows_which_worker_lacks_the_directory(context: Context, workers: list[SimulatedWorker]) -> None:
    (id,) = post(context, here())
    workers[0].claim()
    workers[0].end(LACKING)
    first, second = explain(context, id)["reasons"]
    assert first["reason"] == "waiting"
    assert first["workers"] == [workers[1].id]
    assert (second["reason"], second["directory"], second["workers"]) == ("no_directory", HERE, [workers[0].id])
    assert "lacks its directory /home/alice/sweep; it goes to the other one that fits" in second["message"]
    change_state(context, workers[1].id, "draining")
    avoided, lacking = explain(context, id)["reasons"]
    assert avoided["reason"] == "avoided"
    assert "or lacked its directory (worker-" in avoided["message"]
    assert lacking["message"].endswith("if it is still not there, the task fails")
    assert explain_queue(context)["reasons"][0]["reason"] == "avoided"


def test_only_so_many_directories_are_kept_and_none_for_longer_than_it_counts(context: Context) -> None:
    worker, now = SimulatedWorker(context), context.now()
    later = now + timedelta(seconds=600)
    for number in range(250):
        context.storage.workers.lack(worker.id, [f"/{number}"], now, later)
    context.storage.workers.lack(worker.id, ["/249", "/new"], now, later)
    kept = (context.storage.workers.load(worker.id) or {})["lacking_directories"]
    assert [note["path"] for note in kept] == [*(f"/{number}" for number in range(51, 249)), "/249", "/new"]
    context.storage.workers.lack(worker.id, ["/last"], later, later + timedelta(seconds=600))
    kept = (context.storage.workers.load(worker.id) or {})["lacking_directories"]
    assert [note["path"] for note in kept] == ["/last"]
