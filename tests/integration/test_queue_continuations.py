"""Children follow their parents: every shape of graph, every way to end, over the real MongoDB."""

from datetime import timedelta

import pytest
from bson import ObjectId

from banyan.errors import IllegalTransition, Invalid
from banyan.queue.cancel import cancel
from banyan.queue.context import Context
from banyan.queue.explain import explain
from banyan.queue.rescue import rescue, settle_marked
from banyan.queue.retry import retry
from banyan.queue.settle import advance
from banyan.queue.submit import submit
from banyan.queue.update import Update, edit_continuations, update
from tests.support.queue import ALICE, SimulatedWorker, after, post, states, task


def test_a_chain_of_a_thousand_runs_in_order(context: Context) -> None:
    ids = [ObjectId() for _ in range(1000)]
    chain = [task(_id=id, dependencies=after(ids[i - 1]) if i else []) for i, id in enumerate(ids)]
    post(context, *chain)
    assert SimulatedWorker(context).run_all() == 1000
    ends = context.storage.tasks.documents(ids, ["time_claimed"])
    times = [ends[id]["time_claimed"] for id in ids]
    assert times == sorted(times)


def test_a_task_with_five_thousand_children_settles_them_all(context: Context) -> None:
    (parent,) = post(context, task())
    children = post(context, *[task(dependencies=after(parent)) for _ in range(5000)])
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end()
    assert states(context, children) == ["available"] * 5000
    assert context.storage.tasks.count({"pending_dependency_count": {"$ne": 0}}) == 0


def test_a_barrier_with_five_thousand_parents_waits_for_the_last(context: Context) -> None:
    parents = post(context, *[task() for _ in range(5000)])
    (barrier,) = post(context, task(dependencies=after(*parents)))
    worker = SimulatedWorker(context, resources={"cores": 5000})
    worker.claim(5000)
    *most, last = worker.held
    worker.end(executions=most)
    assert states(context, [barrier]) == ["inactive"]
    document = context.storage.tasks.document(barrier)
    assert document is not None
    assert document["pending_dependency_count"] == 1
    worker.end(executions=[last])
    assert states(context, [barrier]) == ["available"]


def test_settling_examines_no_more_than_the_edges_concerned(context: Context) -> None:
    """One parent of a barrier with 2,000 parents: a few index keys, not 2,000."""
    parents = post(context, *[task() for _ in range(2000)])
    (barrier,) = post(context, task(dependencies=after(*parents)))
    pipeline = [
        {"$match": {"child": {"$in": [barrier]}, "settled": False}},
        {"$sort": {"child": 1, "settled": 1, "satisfied": 1}},
        {"$group": {"_id": "$child", "first": {"$first": "$settled"}}},
    ]
    explained = context.storage.db.command(
        "explain", {"aggregate": "continuations", "pipeline": pipeline, "cursor": {}}, verbosity="executionStats"
    )
    assert "DISTINCT_SCAN" in str(explained)
    stats = (
        explained["stages"][0]["$cursor"]["executionStats"] if "stages" in explained else explained["executionStats"]
    )
    assert stats["totalKeysExamined"] <= 2


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("success", {"success": "available", "failure": "cancelled", "any": "available"}),
        ("failure (exit code 1)", {"success": "cancelled", "failure": "available", "any": "available"}),
    ],
)
def test_each_edge_asks_for_its_own_end(context: Context, end: str, expected: dict[str, str]) -> None:
    (parent,) = post(context, task())
    children = {on: post(context, task(dependencies=after(parent, on=on)))[0] for on in expected}
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end(end)
    assert dict(zip(expected, states(context, children.values()), strict=True)) == expected
    late = {on: post(context, task(dependencies=after(parent, on=on)))[0] for on in expected}
    assert dict(zip(expected, states(context, late.values()), strict=True)) == expected


def test_a_cancelled_parent_breaks_all_edges_but_any(context: Context) -> None:
    (parent,) = post(context, task())
    children = [post(context, task(dependencies=after(parent, on=on)))[0] for on in ("success", "failure", "any")]
    cancel(context, [parent], {"user": "alice"})
    assert states(context, children) == ["cancelled", "cancelled", "available"]


def test_a_cancelled_child_names_the_parent_that_is_the_cause(context: Context) -> None:
    (parent,) = post(context, task())
    (child,) = post(context, task(dependencies=after(parent)))
    (grandchild,) = post(context, task(dependencies=after(child)))
    SimulatedWorker(context).claim()
    cancel(context, [parent], {"user": "alice"})
    assert states(context, [parent, child]) == ["pending_cancellation", "inactive"]
    worker = SimulatedWorker(context)
    (held,) = context.storage.tasks.documents([parent]).values()
    worker.end("cancelled", executions=[held["execution"]])
    documents = context.storage.tasks.documents([parent, child, grandchild])
    assert [documents[id]["cancelled_by"] for id in (parent, child, grandchild)] == [
        {"user": "alice"},
        {"task": parent},
        {"task": child},
    ]


def test_groups_end_by_themselves_and_pass_it_on(context: Context) -> None:
    (first,) = post(context, task())
    (group,) = post(context, task(command=None, dependencies=after(first)))
    (last,) = post(context, task(dependencies=after(group)))
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end()
    assert states(context, [first, group, last]) == ["terminated", "terminated", "available"]
    alone = submit(context, [task(command=None)], ALICE)
    assert alone[0]["state"] == "terminated"


def test_an_inactive_child_is_promoted_and_a_held_one_is_not(context: Context) -> None:
    (parent,) = post(context, task())
    (child,) = post(context, task(state="inactive", dependencies=after(parent)))
    (held,) = post(context, task(hold=True, dependencies=after(parent)))
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end()
    assert states(context, [child, held]) == ["available", "inactive"]
    update(context, held, Update(fields={"hold": False}), ALICE)
    assert states(context, [held]) == ["available"]


def test_a_held_available_task_is_not_claimed_until_it_is_let_go(context: Context) -> None:
    (held,) = post(context, task(hold=True))
    worker = SimulatedWorker(context)
    assert states(context, [held]) == ["available"]
    assert not worker.claim().tasks
    update(context, held, Update(fields={"hold": False}), ALICE)
    assert [grant["_id"] for grant in worker.claim().tasks] == [held]


def test_a_task_is_not_claimed_before_its_time(context: Context) -> None:
    soon = context.now() + timedelta(milliseconds=200)
    (later,) = post(context, task(not_before=context.now() + timedelta(hours=1)))
    (due,) = post(context, task(not_before=soon))
    worker = SimulatedWorker(context)
    assert not worker.claim().tasks
    while context.now() <= soon:
        rescue(context)
    rescue(context)
    assert [grant["_id"] for grant in worker.claim().tasks] == [due]
    assert states(context, [later]) == ["available"]


def test_a_retry_by_hand_keeps_the_date_that_the_user_gave(context: Context) -> None:
    date = context.now() + timedelta(hours=1)
    (id,) = post(context, task(not_before=date, max_retry_count=1, retry_delay=7200.0))
    cancel(context, [id], {"user": "alice"})
    retry(context, id)
    worker = SimulatedWorker(context)
    assert not worker.claim().tasks
    kept = context.storage.tasks.documents([id])[id]
    assert (kept["state"], kept["wake_at"]) == ("available", kept["not_before"])
    assert next(reason["reason"] for reason in explain(context, id)["reasons"]) == "not_before"


def test_the_delay_of_a_retry_leaves_the_users_date_alone(context: Context) -> None:
    (id,) = post(context, task(max_retry_count=1, retry_delay=7200.0, not_before=context.now() - timedelta(hours=1)))
    given = context.storage.tasks.documents([id])[id]["not_before"]
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end("failure (exit code 1)")
    waits = context.storage.tasks.documents([id])[id]
    assert (waits["not_before"], waits["wake_at"]) == (given, waits["retry_at"])
    assert not worker.claim().tasks
    assert next(reason["reason"] for reason in explain(context, id)["reasons"]) == "retry_delay"
    update(context, id, Update(fields={"hold": True}), ALICE)
    update(context, id, Update(fields={"hold": False}), ALICE)
    assert not worker.claim().tasks
    assert context.storage.tasks.documents([id])[id]["wake_at"] == waits["retry_at"]
    cancel(context, [id], {"user": "alice"})
    retry(context, id)
    assert "retry_at" not in context.storage.tasks.documents([id])[id]
    assert [grant["_id"] for grant in worker.claim().tasks] == [id]


def test_retry_brings_back_descendants_that_were_cancelled_for_its_sake_alone(context: Context) -> None:
    parent, other = post(context, task(), task(priority=-1))
    (child,) = post(context, task(dependencies=after(parent)))
    (grandchild,) = post(context, task(dependencies=after(child)))
    (shared,) = post(context, task(dependencies=after(parent, other)))
    (by_hand,) = post(context, task(dependencies=after(parent)))
    cancel(context, [by_hand], {"user": "alice"})
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end("failure (exit code 1)")
    assert states(context, [child, grandchild, shared, by_hand]) == ["cancelled"] * 4
    retry(context, parent)
    assert states(context, [parent, child, grandchild, shared, by_hand]) == [
        "available",
        "inactive",
        "inactive",
        "cancelled",
        "cancelled",
    ]
    left = context.storage.tasks.documents([shared, by_hand], ["cancelled_by"])
    assert left[shared]["cancelled_by"] == {"task": other}
    assert left[by_hand]["cancelled_by"] == {"user": "alice"}
    retry(context, other)
    assert states(context, [shared]) == ["inactive"]
    assert worker.run_all() == 5
    assert states(context, [parent, other, child, grandchild, shared]) == ["terminated"] * 5
    documents = context.storage.tasks.documents([parent])
    assert documents[parent]["attempt_count"] == 2


def test_retry_is_refused_once_a_child_has_begun_and_says_what_to_do(context: Context) -> None:
    (parent,) = post(context, task())
    (child,) = post(context, task(dependencies=after(parent)))
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end()
    retry(context, parent)
    assert states(context, [parent, child]) == ["available", "inactive"], "it had not begun, and waits again"
    worker.claim()
    worker.end()
    worker.claim()
    for state in ("running", "terminated"):
        with pytest.raises(IllegalTransition, match=f"{child} is {state} already; 'rerun' lets .* 'keep' leaves"):
            retry(context, parent)
        assert states(context, [parent, child]) == ["terminated", state]
        worker.end()


def test_removing_the_last_pending_edge_promotes_a_child_whose_other_parents_are_done(context: Context) -> None:
    (done,) = post(context, task())
    SimulatedWorker(context).run_all()
    (waits,) = post(context, task(state="inactive"))
    (child,) = post(context, task(state="inactive", dependencies=after(done, waits)))
    (free,) = post(context, task(state="inactive", dependencies=after(waits)))
    update(context, waits, Update(remove=[child, free]), ALICE)
    assert states(context, [child, free]) == ["available", "inactive"]


def test_edges_between_a_retry_and_a_cycle_are_refused(context: Context) -> None:
    one, two = post(context, task(state="inactive"), task(state="inactive"))
    update(context, one, Update(add=[two]), ALICE)
    with pytest.raises(Invalid, match="wait for each other"):
        submit(context, [task(dependencies=after(two), continuations=[one])], ALICE)
    assert context.storage.tasks.count({}) == 2


@pytest.mark.parametrize("marked_edges", [False, True])
def test_an_interrupted_settlement_is_completed(context: Context, marked_edges: bool) -> None:
    """A server died after the parent's end was written, before or after its edges were marked."""
    parent, other = post(context, task(), task())
    (child,) = post(context, task(dependencies=after(parent)))
    (both,) = post(context, task(dependencies=after(parent, other)))
    now = context.now()
    context.storage.db["tasks"].update_one(
        {"_id": parent},
        {
            "$set": {"state": "terminated", "exit_status": "success", "time_terminated": now, "unsettled": True},
            "$unset": {"class_key": 1},
        },
    )
    if marked_edges:
        context.storage.edges.settle(context.storage.edges.of_parents([parent]), True)
    settle_marked(context)
    assert states(context, [child, both]) == ["available", "inactive"]
    assert context.storage.tasks.documents([both])[both]["pending_dependency_count"] == 1
    assert context.storage.tasks.unsettled(10) == []
    SimulatedWorker(context).run_all()
    assert states(context, [both]) == ["terminated"]


def test_two_that_settle_at_once_count_no_edge_twice(context: Context) -> None:
    """One marks an edge and is held up; another settles thoroughly in between; then the first goes on."""
    parent, other = post(context, task(), task())
    (both,) = post(context, task(dependencies=after(parent, other)))
    edges = [edge for edge in context.storage.edges.of_children([both]) if edge.parent == parent]
    context.storage.edges.settle(edges, True)
    advance(context, [both], exact=True)
    advance(context, [both])
    assert context.storage.tasks.documents([both])[both]["pending_dependency_count"] == 1
    context.storage.db["tasks"].update_one({"_id": both}, {"$set": {"pending_dependency_count": -3}})
    advance(context, [both], exact=True)
    assert context.storage.tasks.documents([both])[both]["pending_dependency_count"] == 1


def test_a_count_that_was_read_before_an_edit_is_taken_anew(context: Context) -> None:
    (parent,) = post(context, task())
    child, waits = post(context, task(dependencies=after(parent)), task(state="inactive"))
    seen = context.storage.tasks.load([child])[child]
    add = [([waits], [child])]
    edit_continuations(context, add, ALICE, add=True)
    for exact in (False, True):
        assert not context.storage.tasks.show_pending([(seen, 0)], exact=exact)
    assert context.storage.tasks.documents([child])[child]["pending_dependency_count"] == 2
    SimulatedWorker(context).run_all()
    assert context.storage.tasks.documents([child])[child]["pending_dependency_count"] == 1
    update(context, waits, Update(state="available"), ALICE)
    SimulatedWorker(context).run_all()
    document = context.storage.tasks.documents([child])[child]
    assert (document["state"], document["pending_dependency_count"]) == ("terminated", 0)
