"""Tasks: guarded writes, claims by class, marks of unfinished settlements."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database

from banyan.domain.task import State, Task
from banyan.domain.transitions import Cancel, Change, Claim, End, Release, decide
from banyan.storage.tasks import TaskStore, encoded, first_fields, view

NOW = datetime(2024, 5, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
WORKER = ObjectId()


@pytest.fixture
def tasks(db: Database[dict[str, Any]]) -> TaskStore:
    store = TaskStore(db)
    store.prepare()
    return store


def add(tasks: TaskStore, **fields: Any) -> Task:
    """An available task of the class `k`."""
    id = ObjectId()
    document = {"_id": id, "_etag": "first", "state": "inactive", "command": "true", "priority": 0, "order": id}
    document |= {"queue": "default", "owner": "alice", "task_class": "k", **fields}
    if document["state"] == "inactive":
        task = view(document)
        document |= first_fields(task, changed(task, Release()))
    tasks.insert([encoded(document)])
    return tasks.load([id])[id]


def changed(task: Task, event: Any, now: datetime = NOW) -> Change:
    change = decide(task, event, now)
    assert change is not None
    return change


def claim(tasks: TaskStore, task: Task, request: str = "r") -> ObjectId:
    execution = ObjectId()
    assert tasks.commit([(task, changed(task, Claim(execution, WORKER, request)))], NOW) == {task.id}
    return execution


def test_of_two_changes_decided_on_the_same_revision_one_is_written(tasks: TaskStore) -> None:
    task = add(tasks)
    first = changed(task, Claim(ObjectId(), WORKER, "r"))
    second = changed(task, Cancel({"user": "alice"}))
    assert tasks.commit([(task, first)], NOW) == {task.id}
    assert tasks.commit([(task, second)], NOW) == set()
    assert tasks.load([task.id])[task.id].state == State.RUNNING


def test_a_claimable_task_whose_pause_is_over_is_found_until_it_is_to_be_looked_at_later(tasks: TaskStore) -> None:
    due, later, gone = (add(tasks, timeout=5.0) for _ in range(3))
    claim(tasks, gone)
    for task, seconds in ((due, 0), (later, 1), (gone, 0)):
        tasks.edit(tasks.load([task.id])[task.id], {"avoid": [WORKER], "avoid_until": NOW + SECOND * seconds}, NOW)
    (found,) = tasks.avoiding(NOW, 10)
    assert (found["_id"], found["avoid"], found["timeout"]) == (due.id, [WORKER], 5.0)
    assert [each["_id"] for each in tasks.avoiding(NOW + SECOND, 10)] == [due.id, later.id]
    assert [each["_id"] for each in tasks.avoiding(NOW + SECOND, 1)] == [due.id]
    tasks.keep_avoiding([due.id, later.id], NOW, NOW + SECOND * 5)
    assert [each["_id"] for each in tasks.avoiding(NOW + SECOND * 4, 10)] == [later.id], "which was not due"


def test_a_batch_tells_which_of_its_changes_were_written(tasks: TaskStore) -> None:
    lost, kept = add(tasks), add(tasks)
    claim(tasks, lost)
    cancel = [(task, changed(task, Cancel({"user": "alice"}))) for task in (lost, kept)]
    assert tasks.commit(cancel, NOW) == {kept.id}


def test_every_write_changes_the_revision(tasks: TaskStore) -> None:
    task = add(tasks)
    claim(tasks, task)
    again = tasks.load([task.id])[task.id]
    assert again.revision != task.revision
    assert tasks.edit(again, {"priority": 5}, NOW) is not None
    assert tasks.edit(again, {"priority": 6}, NOW) is None


def test_the_best_of_a_class_come_first_and_claimed_ones_not_at_all(tasks: TaskStore) -> None:
    low, high, old = add(tasks), add(tasks, priority=5), add(tasks)
    assert [d["_id"] for d in tasks.claimable(["k"], 10)] == [high.id, low.id, old.id]
    claim(tasks, high)
    assert [d["_id"] for d in tasks.claimable(["k"], 1)] == [low.id]


def test_a_task_is_not_offered_to_a_worker_that_it_avoids(tasks: TaskStore) -> None:
    task = add(tasks, avoid=[WORKER])
    assert tasks.claimable(["k"], 10, {"avoid": {"$ne": WORKER}}) == []
    assert [d["_id"] for d in tasks.claimable(["k"], 10, {"avoid": {"$ne": ObjectId()}})] == [task.id]


def test_the_head_of_each_class_is_its_best_task(tasks: TaskStore) -> None:
    add(tasks)
    best = add(tasks, priority=1)
    other = add(tasks, task_class="other")
    heads = {head["class_key"]: head["_id"] for head in tasks.class_heads()}
    assert heads == {"k": best.id, "other": other.id}


def test_what_a_worker_holds_is_found_until_it_ends(tasks: TaskStore) -> None:
    task = add(tasks)
    execution = claim(tasks, task, "question")
    (held,) = tasks.held_by(WORKER)
    assert (held["execution"], held["claim_request"]) == (execution, "question")
    assert tasks.holders() == [WORKER]
    running = tasks.load([task.id])[task.id]
    tasks.commit([(running, changed(running, End(execution, "success")))], NOW)
    assert tasks.held_by(WORKER) == []
    assert tasks.holders() == []


def test_a_task_that_is_not_due_is_found_once_it_is(tasks: TaskStore) -> None:
    later = NOW + timedelta(seconds=10)
    task = add(tasks, not_before=later)
    assert tasks.class_heads() == []
    assert tasks.waking(NOW, 10) == []
    assert [each.id for each in tasks.waking(later, 10)] == [task.id]


def test_a_parent_that_ends_stays_marked_until_it_is_cleared_at_the_same_revision(tasks: TaskStore) -> None:
    task = add(tasks, has_continuations=True)
    tasks.commit([(task, changed(task, Cancel({"user": "alice"})))], NOW)
    assert tasks.unsettled(10) == [task.id]
    tasks.clear_unsettled({task.id: "older"})
    assert tasks.unsettled(10) == [task.id]
    tasks.clear_unsettled({task.id: tasks.load([task.id])[task.id].revision})
    assert tasks.unsettled(10) == []


def test_a_new_edge_marks_a_parent_that_has_ended(tasks: TaskStore) -> None:
    live, ended = add(tasks), add(tasks)
    tasks.commit([(ended, changed(ended, Cancel({"user": "alice"})))], NOW)
    tasks.mark_parents([live.id, ended.id], None)
    found = tasks.load([live.id, ended.id])
    assert [found[id].has_continuations for id in (live.id, ended.id)] == [True, True]
    assert tasks.unsettled(10) == [ended.id]


def test_progress_reaches_only_the_attempt_that_is_current(tasks: TaskStore) -> None:
    task = add(tasks)
    execution = claim(tasks, task)
    tasks.report_progress({task.id: ObjectId()}, {task.id: {"progress": {"fraction": 0.1}}})
    assert "progress" not in (tasks.document(task.id) or {})
    tasks.report_progress({task.id: execution}, {task.id: {"progress": {"fraction": 0.5}}})
    assert (tasks.document(task.id) or {})["progress"] == {"fraction": 0.5}


def test_one_worker_at_a_time_reserves_for_a_task(tasks: TaskStore) -> None:
    task = add(tasks)
    until = NOW + timedelta(seconds=60)
    assert tasks.reserve(task.id, WORKER, until, NOW)
    assert tasks.reserve(task.id, WORKER, until, NOW)
    assert not tasks.reserve(task.id, ObjectId(), until, NOW)
    assert tasks.reserve(task.id, ObjectId(), until, until + timedelta(seconds=1))


def test_only_ended_and_settled_tasks_are_deleted(tasks: TaskStore) -> None:
    live, ended, unsettled = add(tasks), add(tasks), add(tasks, has_continuations=True)
    for task in (ended, unsettled):
        tasks.commit([(task, changed(task, Cancel({"user": "alice"})))], NOW)
    assert tasks.delete([live.id, ended.id, unsettled.id]) == [ended.id]
    assert set(tasks.load([live.id, ended.id, unsettled.id])) == {live.id, unsettled.id}


def test_pending_counts_go_down_and_can_be_set(tasks: TaskStore) -> None:
    task = add(tasks, pending_dependency_count=3)
    tasks.discount({task.id: 2})
    assert (tasks.document(task.id) or {})["pending_dependency_count"] == 1
    tasks.set_pending({task.id: 7})
    assert (tasks.document(task.id) or {})["pending_dependency_count"] == 7
