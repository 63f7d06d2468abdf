"""Retention: what leaves when its time has come, what stays, and what it costs."""

import threading
from datetime import timedelta

import pytest
from bson import ObjectId

from banyan.errors import Invalid, NotFound
from banyan.queue.context import Context
from banyan.queue.delete import delete
from banyan.queue.rescue import mend
from banyan.queue.retention import remove_empty_sweeps, retain, walk
from banyan.queue.retry import retry
from banyan.storage.files import Quota
from banyan.storage.mongo import Storage
from tests.integration.test_queue_sweeps import Sweep
from tests.support.queue import SimulatedWorker, after, context_of, post, states, task

DAY = timedelta(days=1)
QUOTA = Quota(max_file_bytes=1000, max_attempt_bytes=1000, max_files=5)
KINDS = ("tasks", "history", "files", "memory_usage")


def leave(context: Context, kind: str, days: float = 2, age: timedelta = DAY) -> None:
    """Go on with one walk as if it were so many days later."""
    walk(context, kind, context.now() + days * DAY, age)


def left(context: Context, id: ObjectId) -> dict[str, int]:
    """What there is of a task."""
    db = context.storage.db
    attempts = [attempt["_id"] for attempt in context.storage.executions.of_task(id)]
    return {
        "tasks": db["tasks"].count_documents({"_id": id}),
        "history": len(attempts),
        "files": sum(len(context.storage.files.list(attempt)) for attempt in attempts),
        "memory_usage": db["memory_usage"].count_documents({"task": id}),
    }


def run(context: Context, worker: SimulatedWorker, exit_status: str = "success") -> None:
    """Run what can be claimed; each attempt leaves a file and a sample."""
    for execution, grant in {each["execution"]: each for each in worker.claim().tasks}.items():
        context.storage.files.append(execution, "stdout", 0, b"said", QUOTA, context.now())
        sample = {"task": grant["_id"], "execution": execution, "time": context.now(), "resident_memory_bytes": 1}
        context.storage.memory.add([sample], context.now())
    worker.end(exit_status)


@pytest.fixture
def worker(context: Context) -> SimulatedWorker:
    return SimulatedWorker(context)


@pytest.mark.parametrize(
    ("kind", "leaves", "told"),
    [
        ("tasks", {"tasks", "history", "files", "memory_usage"}, ""),
        ("history", {"history", "files"}, "/1"),
        ("files", {"files"}, "/1"),
        ("memory_usage", {"memory_usage"}, None),
    ],
)
def test_each_kind_leaves_with_what_belongs_to_it_and_its_worker_is_told(
    context: Context, worker: SimulatedWorker, kind: str, leaves: set[str], told: str | None
) -> None:
    [id] = post(context, task())
    run(context, worker)
    everything = dict.fromkeys(KINDS, 1)
    leave(context, kind, days=0.9)
    assert left(context, id) == everything
    leave(context, kind)
    assert left(context, id) == {name: int(name not in leaves) for name in KINDS}
    assert list(worker.claim().forget) == ([] if told is None else [f"{id}{told}"])
    assert not [name for name in ("doomed_files", "doomed_samples") if context.storage.db[name].find_one()]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_leaves_of_what_has_not_ended(context: Context, worker: SimulatedWorker, kind: str) -> None:
    waiting, running, again = post(context, task(hold=True), task(priority=1), task(max_retry_count=1))
    run(context, worker, "failure (exit code 1)")  # one has ended, one is to be tried again
    retry(context, running)
    worker.claim(1)
    before = {id: left(context, id) for id in (waiting, running, again)}
    leave(context, kind)
    assert {id: left(context, id) for id in (waiting, running, again)} == before
    assert states(context, [waiting, running, again]) == ["available", "running", "available"]


@pytest.mark.parametrize("kind", ["tasks", "history", "files"])
def test_a_parent_stays_until_its_children_have_ended(context: Context, worker: SimulatedWorker, kind: str) -> None:
    parent, other = post(context, task(), task())
    elsewhere = {"requires": {"place": "elsewhere"}}
    post(context, task(dependencies=after(parent), **elsewhere), task(dependencies=after(other)))
    for _ in range(2):
        run(context, worker)
    leave(context, kind)
    assert (left(context, parent)[kind], left(context, other)[kind]) == (1, 0)
    SimulatedWorker(context, labels=elsewhere["requires"]).run_all()
    leave(context, kind, days=2.01)
    assert left(context, parent)[kind] == 1, "it is not looked at again at once"
    leave(context, kind, days=2.1)
    assert left(context, parent)[kind] == 0


def test_a_child_can_be_tried_again_when_its_parent_has_left(context: Context, worker: SimulatedWorker) -> None:
    [parent] = post(context, task())
    [child] = post(context, task(dependencies=after(parent)))
    run(context, worker)
    leave(context, "tasks", days=1 + 1e-9, age=DAY)
    run(context, worker)
    context.storage.db["tasks"].update_one({"_id": child}, {"$set": {"_updated": context.now() + DAY}})
    leave(context, "tasks", days=1.5)
    assert (left(context, parent)["tasks"], left(context, child)["tasks"]) == (0, 1)
    retry(context, child)
    assert worker.run_all() == 1


def test_attempts_of_a_task_that_is_begun_anew_keep_their_numbers(context: Context, worker: SimulatedWorker) -> None:
    [id] = post(context, task())
    run(context, worker)
    leave(context, "history")
    assert worker.claim().forget == [f"{id}/1"]
    retry(context, id)
    run(context, worker)
    assert [attempt["attempt"] for attempt in context.storage.executions.of_task(id)] == [2]
    leave(context, "history", days=4)
    assert left(context, id) == {"tasks": 1, "history": 0, "files": 0, "memory_usage": 2}


def test_a_retry_and_the_walk_that_meet_leave_nothing_half(context: Context, worker: SimulatedWorker) -> None:
    ids = post(context, *[task() for _ in range(20)])
    run(context, worker)
    refused: list[ObjectId] = []

    def begin_anew() -> None:
        for id in ids:
            try:
                retry(context, id)
            except NotFound:
                refused.append(id)

    thread = threading.Thread(target=begin_anew)
    thread.start()
    leave(context, "tasks")
    thread.join()
    there = set(context.storage.tasks.load(ids))
    assert there == set(ids) - set(refused)
    for id in ids:
        assert left(context, id)["history"] == int(id in there)
    assert worker.run_all() == len(there)


def test_a_walk_goes_on_in_batches_and_looks_at_each_task_once(context: Context, worker: SimulatedWorker) -> None:
    ids = post(context, *[task() for _ in range(10)])
    run(context, worker)
    for remaining in (6, 2, 0, 0):
        walk(context, "memory_usage", context.now() + 2 * DAY, DAY, batch=4)
        assert context.storage.db["memory_usage"].count_documents({}) == remaining
    store = context.storage.retention
    assert store.ended_after(store.place("memory_usage"), context.now() + DAY, 4) == []
    retry(context, ids[3])
    run(context, worker)
    assert [each.task for each in store.ended_after(store.place("memory_usage"), context.now() + DAY, 4)] == [ids[3]]


def test_a_look_follows_the_index_and_reads_no_more_than_its_batch(context: Context, worker: SimulatedWorker) -> None:
    post(context, *[task() for _ in range(200)], *[task(hold=True) for _ in range(200)])
    worker.run_all()
    place = context.storage.retention.ended_after(context.storage.retention.place("files"), context.now(), 100)[-1]
    context.storage.db.command("profile", 2)
    try:
        assert len(context.storage.retention.ended_after(place, context.now(), 10)) == 10
    finally:
        context.storage.db.command("profile", 0)
    [look] = context.storage.db["system.profile"].find({"ns": f"{context.storage.db.name}.tasks", "op": "query"})
    assert (look["keysExamined"], look["docsExamined"]) <= (25, 10)


def test_two_servers_at_once_remove_each_thing_once(context: Context, mongo_uri: str, worker: SimulatedWorker) -> None:
    ids = post(context, *[task() for _ in range(30)])
    run(context, worker)
    storage = Storage.connect(mongo_uri, context.storage.db.name)
    both = [context, context_of(storage)]
    threads = [threading.Thread(target=leave, args=(each, kind)) for each in both for kind in ("history", "tasks")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    storage.close()
    assert context.storage.tasks.load(ids) == {}
    assert [context.storage.db[name].count_documents({}) for name in ("executions", "files", "memory_usage")] == [0] * 3


def test_a_sweep_leaves_when_its_tasks_have(context: Context) -> None:
    done, open_ = Sweep.of(context, 3), Sweep.of(context, 3)
    bare = Sweep.of(context, 2, barrier=False)
    done.worker.run_all()
    post(context, task(_id=ObjectId(), dependencies=after(open_.points[0]), hold=True))
    later = context.now() + 2 * DAY
    remove_empty_sweeps(context, later)
    assert context.storage.db["sweeps"].count_documents({}) == 3
    for days in (2, 2.2, 2.4):  # points stay until the barrier has ended, and that is looked at first
        leave(context, "tasks", days=days)
    remove_empty_sweeps(context, later)
    assert [sweep["_id"] for sweep in context.storage.db["sweeps"].find()] == [open_.id]
    assert len(open_.points) == 1
    assert context.storage.sweeps.load(bare.id) is None


def test_a_task_with_many_edges_leaves_without_a_transaction_for_all_of_them(
    context: Context, worker: SimulatedWorker
) -> None:
    parents = post(context, *[task() for _ in range(6)])
    (hub,) = post(context, task(dependencies=after(*parents)))
    children = post(context, *[task(dependencies=after(hub)) for _ in range(6)])
    held = post(context, task(dependencies=after(hub), hold=True))
    worker.run_all()
    assert set(delete(context, [hub, *parents], many=5)) == {hub, *parents}
    edges = list(context.storage.db["continuations"].find())
    assert {(edge["parent"], edge["child"]) for edge in edges} == {(hub, child) for child in [*children, *held]}
    assert all(edge["satisfied"] for edge in edges), "they tell how it ended"
    assert states(context, children) == ["terminated"] * 6
    delete(context, [*children[:5]], many=2)
    delete(context, [children[5]])
    assert [edge["child"] for edge in context.storage.db["continuations"].find()] == held


def test_a_task_that_is_being_deleted_is_gone_for_all_who_want_something_of_it(
    context: Context, worker: SimulatedWorker
) -> None:
    (parent,) = post(context, task())
    (child,) = post(context, task(dependencies=after(parent)))
    worker.claim()
    worker.end("failure (exit code 1)")
    assert context.storage.tasks.begin_leaving(child)
    retry(context, parent)  # which would bring back its child
    assert states(context, [parent, child]) == ["available", "cancelled"]
    with pytest.raises(NotFound, match="being deleted"):
        retry(context, child)
    with pytest.raises(Invalid, match="there is no task"):
        post(context, task(dependencies=after(child, on="any")))
    assert not context.storage.tasks.begin_leaving(parent)
    mend(context)
    assert context.storage.tasks.load([parent, child]).keys() == {parent}


def test_it_is_off_for_tasks_and_a_month_for_samples(context: Context, worker: SimulatedWorker) -> None:
    [id] = post(context, task())
    run(context, worker)
    then = context.now() - timedelta(days=29)
    context.storage.db["tasks"].update_one({"_id": id}, {"$set": {"_updated": then}})
    retain(context)
    assert left(context, id) == dict.fromkeys(KINDS, 1)
    context.storage.db["tasks"].update_one({"_id": id}, {"$set": {"_updated": then - 2 * DAY}})
    retain(context)
    assert left(context, id)["memory_usage"] == 1, "another server had its turn just now"
    context.storage.db["meta"].update_one({"_id": "retention"}, {"$set": {"turn": then}})
    retain(context)
    assert left(context, id) == {"tasks": 1, "history": 1, "files": 1, "memory_usage": 0}
