"""Submissions that are too large for one transaction: nobody sees a difference, whoever is quick, dies or deletes."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from banyan.domain.continuations import Edge
from banyan.errors import Conflict, Invalid, TooLarge
from banyan.queue.context import Context
from banyan.queue.delete import delete
from banyan.queue.graph import Joining
from banyan.queue.parts import PART_BYTES, WHOLE_BYTES, complete, complete_interrupted, submit_in_parts
from banyan.queue.submit import submit
from banyan.storage.tasks import encoded
from tests.support.queue import (
    ALICE,
    Document,
    Interrupting,
    SimulatedWorker,
    after,
    context_of,
    post,
    states,
    task,
)

HEAVY = "x" * 200_000
MANY = WHOLE_BYTES // len(HEAVY) + 10
"""So many heavy tasks are too large for one transaction."""


def interrupted(context: Context, act: Callable[[], object]) -> Context:
    """The same queue with `act` after each part of a submission."""
    return replace(context, hub=Interrupting(context, act))


def heavy(count: int = MANY, **fields: Any) -> list[Document]:
    return [task(_id=ObjectId(), stdin=HEAVY, **fields) for _ in range(count)]


def ids_of(tasks: list[Document]) -> list[ObjectId]:
    return [each["_id"] for each in tasks]


def left_over(context: Context) -> int:
    return sum(context.storage.db[name].count_documents({}) for name in ("submissions", "submission_parts"))


def in_order_of_claims(context: Context) -> list[ObjectId]:
    return [attempt["task"] for attempt in context.storage.db["executions"].find().sort("_id")]


def test_a_large_list_is_stored_whole_and_runs_in_order(context: Context) -> None:
    tasks = heavy()
    recorded: list[list[Document]] = []
    answers = submit(context, tasks, ALICE, lambda session, results: recorded.append(results))
    assert [answer["_id"] for answer in answers] == ids_of(tasks)
    assert recorded == [answers]
    assert {answer["state"] for answer in answers} == {"available"}
    assert left_over(context) == 0
    assert SimulatedWorker(context).run_all() == MANY
    assert in_order_of_claims(context) == ids_of(tasks)


def test_what_is_refused_leaves_nothing(context: Context) -> None:
    def refuse(session: object, answers: object) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        submit(context, heavy(), ALICE, refuse)
    with pytest.raises(Invalid, match="there is no task"):
        submit(context, [*heavy(), task(dependencies=after(ObjectId()))], ALICE)
    assert (left_over(context), context.storage.tasks.count({})) == (0, 0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_task_begins_before_its_parents_however_quick_the_worker_is(context: Context, seed: int) -> None:
    worker = SimulatedWorker(context)
    tasks = heavy()
    chance = random.Random(seed)
    first_to_last = chance.sample(tasks, MANY)
    for place, each in enumerate(first_to_last):
        parents = chance.sample(ids_of(first_to_last[:place]), min(place, chance.randrange(4)))
        each["dependencies"] = after(*parents, on="any")
    first_to_last[-1]["dependencies"] = after(*ids_of(first_to_last[:-1]), on="any")
    submit(interrupted(context, worker.run_all), tasks, ALICE)
    worker.run_all()
    order = {id: place for place, id in enumerate(in_order_of_claims(context))}
    assert len(order) == MANY
    for each in tasks:
        assert all(order[parent["task"]] < order[each["_id"]] for parent in each["dependencies"])
    assert context.storage.tasks.count({"pending_dependency_count": {"$ne": 0}}) == 0


def test_an_older_child_waits_for_all_of_them(context: Context) -> None:
    worker = SimulatedWorker(context)
    (child,) = post(context, task(state="inactive"))
    submit(interrupted(context, worker.run_all), heavy(continuations=[child]), ALICE)
    worker.run_all()
    assert in_order_of_claims(context)[-1] == child
    assert len(in_order_of_claims(context)) == MANY + 1


def test_older_parents_that_have_ended_let_them_begin_or_cancel_them(context: Context) -> None:
    worker = SimulatedWorker(context)
    good, bad = post(context, task(), task())
    worker.claim(1)
    worker.end()
    worker.claim()
    worker.end("failure (exit code 1)")
    tasks = heavy()
    for index, each in enumerate(tasks):
        each["dependencies"] = after(good if index % 2 else bad)
    submit(context, tasks, ALICE)
    assert states(context, ids_of(tasks)) == ["cancelled", "available"] * (MANY // 2) + ["cancelled"] * (MANY % 2)


def test_a_parent_that_is_deleted_meanwhile_cancels_those_that_needed_its_success(context: Context) -> None:
    (parent,) = post(context, task())
    SimulatedWorker(context).run_all()
    tasks = heavy()
    tasks[-2]["dependencies"] = after(parent)
    tasks[-1]["dependencies"] = after(parent, on="any")
    submit(interrupted(context, lambda: delete(context, [parent])), tasks, ALICE)
    assert states(context, ids_of(tasks)[-3:]) == ["available", "cancelled", "available"]


def test_how_a_new_parent_ended_counts_although_it_was_deleted_before_its_child_was_made(context: Context) -> None:
    tasks = heavy()
    tasks[-1]["dependencies"] = after(tasks[0]["_id"])
    tasks[0]["priority"] = 1
    worker = SimulatedWorker(context)

    def fail_and_delete() -> None:
        if worker.claim(1).tasks:
            worker.end("failure (exit code 1)")
        delete(context, [tasks[0]["_id"]])

    submit(interrupted(context, fail_and_delete), tasks, ALICE)
    assert states(context, [tasks[-1]["_id"]]) == ["cancelled"]


def test_an_accepted_submission_is_completed_although_its_server_died(context: Context) -> None:
    def die() -> None:
        raise SystemError("the server dies here")

    tasks, unit = heavy(), ObjectId()
    tasks[0]["dependencies"] = after(tasks[-1]["_id"], on="any")
    with pytest.raises(SystemError):
        submit(interrupted(context, die), tasks, ALICE, unit=unit)
    made = context.storage.tasks.count({})
    assert 0 < made <= PART_BYTES // len(HEAVY)
    complete_interrupted(context)
    assert context.storage.tasks.count({}) == made, "another server may still be at it"
    long_ago = context.now() - timedelta(minutes=1)
    context.storage.db["submissions"].update_one({"_id": unit}, {"$set": {"touched": long_ago}})
    complete_interrupted(context)
    assert (left_over(context), context.storage.tasks.count({})) == (0, MANY)
    assert SimulatedWorker(context).run_all() == MANY
    assert in_order_of_claims(context)[-1] == tasks[0]["_id"]


def test_two_servers_that_complete_a_submission_make_each_part_once(context: Context) -> None:
    unit = ObjectId()
    submit(interrupted(context, lambda: complete(context, unit)), heavy(), ALICE, unit=unit)
    assert (left_over(context), context.storage.tasks.count({})) == (0, MANY)


def test_groups_end_in_parts_too(context: Context) -> None:
    groups = heavy(command=None)
    groups[-1]["dependencies"] = after(groups[0]["_id"])
    submit(context, groups, ALICE)
    assert set(states(context, ids_of(groups))) == {"terminated"}


def test_parts_of_what_was_never_accepted_are_removed_in_time(context: Context) -> None:
    old = ObjectId.from_datetime(context.now() - timedelta(days=1))
    context.storage.db["submission_parts"].insert_one({"_id": old, "submission": ObjectId(), "number": 0})
    complete_interrupted(context)
    assert left_over(context) == 0


def test_more_than_the_limit_is_refused(context: Context) -> None:
    small = context_of(context.storage, limits={"max_submission_bytes": "1 kB"})
    with pytest.raises(TooLarge, match="max_submission_bytes"):
        submit(small, [task(), task(), task()], ALICE)
    assert context.storage.tasks.count({}) == 0


def test_a_list_that_is_sent_again_while_it_is_being_stored_is_refused_and_the_first_one_is_completed(
    context: Context,
) -> None:
    tasks = heavy()
    refused: list[str] = []

    def send_again() -> None:
        if not refused:
            for again in (tasks, tasks[-1:]):
                with pytest.raises(Invalid, match="there is a task") as error:
                    submit(context, [dict(each) for each in again], ALICE)
                refused.append(str(error.value))

    submit(interrupted(context, send_again), [dict(each) for each in tasks], ALICE)
    assert len(refused) == 2
    assert (context.storage.tasks.count({}), left_over(context)) == (MANY, 0)


def test_of_two_lists_with_the_same_ids_that_come_together_one_is_accepted(context: Context) -> None:
    tasks = heavy()

    def send(_: int) -> str:
        try:
            return f"accepted {len(submit(context, [dict(each) for each in tasks], ALICE))}"
        except (Conflict, Invalid):
            return "refused"

    with ThreadPoolExecutor() as pool:
        assert sorted(pool.map(send, range(2))) == [f"accepted {MANY}", "refused"]
    assert (context.storage.tasks.count({}), left_over(context)) == (MANY, 0)


def test_ids_that_became_tasks_while_the_list_was_put_aside_are_refused(context: Context) -> None:
    ids = post(context, task(), task())
    tasks = list(context.storage.tasks.documents(ids).values())
    edges = [Edge(parent=ids[0], child=ids[1])]
    stored = [encoded(each) for each in tasks]
    with pytest.raises(Conflict, match=f"makes a task {min(ids)}"):
        submit_in_parts(context, ObjectId(), tasks, stored, Joining.of(edges, ids), ALICE, lambda session: None, ids)
    assert (context.storage.tasks.count({}), left_over(context)) == (2, 0)


def test_an_id_that_was_taken_at_the_same_instant_holds_up_nothing_else(context: Context) -> None:
    tasks = heavy()
    taken = dict(tasks[-1])

    def take(session: object, answers: object) -> None:
        if context.storage.tasks.document(taken["_id"]) is None:
            submit(context, [task(_id=taken["_id"], name="the other")], ALICE)

    submit(context, tasks, ALICE, take)
    assert (context.storage.tasks.count({}), left_over(context)) == (MANY, 0)
    (kept,) = context.storage.tasks.documents([taken["_id"]]).values()
    assert kept["name"] == "the other"
