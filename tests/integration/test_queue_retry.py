"""Retrying what others came after: refusing it, running them again, keeping them; new values; parents that are gone."""

from collections.abc import Mapping
from typing import Any

import pytest
from bson import ObjectId

from banyan.api.validation import check_task
from banyan.domain.roles import Role
from banyan.errors import IllegalTransition, Invalid
from banyan.queue.actor import Actor
from banyan.queue.cancel import cancel
from banyan.queue.context import Context
from banyan.queue.delete import delete
from banyan.queue.explain import explain
from banyan.queue.retry import Outcome, retry, retry_all
from banyan.queue.retry_options import Downstream, RetryOptions
from banyan.queue.update import Update
from tests.support.queue import ALICE, SimulatedWorker, after, post, states, task

BOB = Actor(name="bob", role=Role.PROVIDER)
FAILED = "failure (exit code 1)"
USER = {"user": "alice"}


@pytest.fixture
def worker(context: Context) -> SimulatedWorker:
    return SimulatedWorker(context)


def run(worker: SimulatedWorker, exit_status: str = "success") -> None:
    """Claim one task and end it."""
    worker.claim(1)
    worker.end(exit_status)


def options(downstream: str = "refuse", **more: Any) -> RetryOptions:
    return RetryOptions(downstream=Downstream(downstream), actor=ALICE, **more)


def changes(**fields: Any) -> Update:
    return Update(fields=fields, check=check_task)


def edges(context: Context) -> dict[tuple[ObjectId, ObjectId], tuple[bool, bool | None]]:
    found = context.storage.db["continuations"].find()
    return {(edge["parent"], edge["child"]): (edge["settled"], edge.get("satisfied")) for edge in found}


def field(context: Context, id: ObjectId, name: str) -> Any:
    return context.storage.tasks.documents([id])[id].get(name)


class Family:
    """A failed task, what needed its success, and a clean-up that has run after it."""

    def __init__(self, context: Context, worker: SimulatedWorker) -> None:
        self.context = context
        (self.first,) = post(context, task())
        (self.second,) = post(context, task(dependencies=after(self.first)))
        (self.third,) = post(context, task(dependencies=after(self.second)))
        (self.cleanup,) = post(context, task(dependencies=after(self.third, on="any")))
        run(worker, FAILED)
        run(worker)
        assert self.states() == ["terminated", "cancelled", "cancelled", "terminated"]

    def states(self) -> list[str]:
        return states(self.context, [self.first, self.second, self.third, self.cleanup])


def test_it_is_refused_where_a_far_descendant_has_run_and_says_what_may_be_asked(
    context: Context, worker: SimulatedWorker
) -> None:
    family = Family(context, worker)
    with pytest.raises(IllegalTransition, match=f"{family.cleanup} is terminated already; 'rerun' .* 'keep'") as error:
        retry(context, family.first)
    assert error.value.issues.keys() == {"downstream"}
    assert family.states() == ["terminated", "cancelled", "cancelled", "terminated"]
    assert all(settled for settled, _ in edges(context).values()), "nothing was changed"


def test_rerun_lets_what_has_run_run_again_after_it_and_keeps_its_history(
    context: Context, worker: SimulatedWorker
) -> None:
    family = Family(context, worker)
    outcome = retry(context, family.first, options("rerun"))
    assert outcome.again.keys() == {family.first, family.second, family.third, family.cleanup}
    assert family.states() == ["available", "inactive", "inactive", "inactive"]
    for _ in range(4):
        assert len(worker.claim().tasks) == 1, "one after the other"
        worker.end()
    assert family.states() == ["terminated"] * 4
    assert [field(context, family.cleanup, name) for name in ("attempt_count", "exit_status")] == [2, "success"]
    assert len(list(context.storage.executions.of_task(family.cleanup))) == 2


def test_keep_leaves_what_has_run_as_it_is_and_brings_back_what_was_cancelled(
    context: Context, worker: SimulatedWorker
) -> None:
    family = Family(context, worker)
    outcome = retry(context, family.first, options("keep"))
    assert outcome.kept == {family.cleanup: "it is terminated"}
    assert family.states() == ["available", "inactive", "inactive", "terminated"]
    assert edges(context)[family.third, family.cleanup] == (True, True), "it is not decided again"
    assert worker.run_all() == 3
    assert family.states() == ["terminated"] * 4
    assert field(context, family.cleanup, "attempt_count") == 1


def test_a_completed_parent_with_completed_children_takes_the_same_words(
    context: Context, worker: SimulatedWorker
) -> None:
    (parent,) = post(context, task())
    (child,) = post(context, task(dependencies=after(parent)))
    (group,) = post(context, task(command=None, dependencies=after(child)))
    (last,) = post(context, task(dependencies=after(group)))
    family = [parent, child, group, last]
    worker.run_all()
    with pytest.raises(IllegalTransition, match="'rerun'"):
        retry(context, parent)
    retry(context, parent, options("keep"))
    assert states(context, family) == ["available", "terminated", "terminated", "terminated"]
    run(worker, FAILED)
    assert states(context, family) == ["terminated"] * 4, "the child goes by the former end"
    with pytest.raises(IllegalTransition, match=f"its parent {parent} did not end as it needs"):
        retry(context, child, options("keep"))
    retry(context, parent, options("rerun"))
    assert states(context, family) == ["available", "inactive", "inactive", "inactive"]
    run(worker, FAILED)
    assert states(context, family) == ["terminated", "cancelled", "cancelled", "cancelled"], "decided anew"


def test_a_kept_child_that_is_retried_waits_for_its_parent_that_runs_again(
    context: Context, worker: SimulatedWorker
) -> None:
    (parent,) = post(context, task(priority=1))
    (child,) = post(context, task(dependencies=after(parent)))
    worker.run_all()
    retry(context, parent, options("keep"))
    retry(context, child)
    assert states(context, [parent, child]) == ["available", "inactive"]
    assert field(context, child, "pending_dependency_count") == 1
    run(worker, FAILED)
    assert states(context, [parent, child]) == ["terminated", "cancelled"]


def test_a_child_of_two_runs_again_after_both(context: Context, worker: SimulatedWorker) -> None:
    top, deep = post(context, task(), task())
    (middle,) = post(context, task(dependencies=after(top)))
    (bottom,) = post(context, task(dependencies=after(top, middle, deep)))
    worker.run_all()
    retry(context, top, options("rerun"))
    assert states(context, [top, deep, middle, bottom]) == ["available", "terminated", "inactive", "inactive"]
    assert field(context, bottom, "pending_dependency_count") == 2
    run(worker)
    assert states(context, [middle, bottom]) == ["available", "inactive"]
    assert worker.run_all() == 2


def test_rerun_waits_for_no_descendant_that_runs(context: Context, worker: SimulatedWorker) -> None:
    (parent,) = post(context, task())
    (child,) = post(context, task(dependencies=after(parent)))
    (grandchild,) = post(context, task(dependencies=after(child)))
    run(worker)
    run(worker)
    worker.claim()
    with pytest.raises(IllegalTransition, match=f"{grandchild}, which comes after task {child}, is running"):
        retry(context, parent, options("rerun"))
    cancel(context, [grandchild], USER)
    with pytest.raises(IllegalTransition, match="pending_cancellation"):
        retry(context, parent, options("rerun"))
    assert states(context, [parent, child]) == ["terminated", "terminated"]
    assert retry(context, parent, options("keep")).kept.keys() == {child}
    assert states(context, [parent, child, grandchild]) == ["available", "terminated", "pending_cancellation"]


def test_rerun_keeps_what_is_another_users_and_what_a_user_cancelled(context: Context, worker: SimulatedWorker) -> None:
    (parent,) = post(context, task())
    (mine,) = post(context, task(dependencies=after(parent)))
    (theirs,) = post(context, task(dependencies=after(parent)), actor=BOB)
    (cancelled,) = post(context, task(dependencies=after(parent)))
    (after_theirs,) = post(context, task(dependencies=after(theirs)))
    cancel(context, [cancelled], USER)
    worker.run_all()
    outcome = retry(context, parent, options("rerun"))
    assert outcome.kept == {theirs: "it is terminated, and another user's", cancelled: "its user cancelled it"}
    found = [parent, mine, theirs, cancelled, after_theirs]
    assert states(context, found) == ["available", "inactive", "terminated", "cancelled", "terminated"]
    worker.run_all()
    assert states(context, found) == ["terminated", "terminated", "terminated", "cancelled", "terminated"]
    assert [field(context, id, "attempt_count") for id in (mine, theirs, after_theirs)] == [2, 1, 1]
    everybody = RetryOptions(downstream=Downstream.RERUN, actor=Actor(name="root", role=Role.ADMIN))
    assert retry(context, parent, everybody).again.keys() == {parent, mine, theirs, after_theirs}


def test_a_child_that_is_tried_again_after_a_failure_has_run(context: Context, worker: SimulatedWorker) -> None:
    (parent,) = post(context, task())
    (child,) = post(context, task(dependencies=after(parent), max_retry_count=1, retry_delay=3600.0))
    run(worker)
    run(worker, FAILED)
    assert states(context, [parent, child]) == ["terminated", "available"]
    with pytest.raises(IllegalTransition, match="available after a first attempt"):
        retry(context, parent)
    retry(context, parent, options("rerun"))
    assert (states(context, [parent, child]), field(context, child, "retry_count")) == (["available", "inactive"], 0)
    assert worker.run_all() == 2


def test_a_dry_run_says_what_would_become_of_all_and_changes_nothing(context: Context, worker: SimulatedWorker) -> None:
    family = Family(context, worker)
    before = context.storage.db.command("dbHash")["md5"]
    outcome = retry(context, family.first, options("rerun", dry_run=True))
    assert outcome.again[family.first] == "available"
    assert {state for id, state in outcome.again.items() if id != family.first} == {"inactive"}
    with pytest.raises(IllegalTransition):
        retry(context, family.first, options(dry_run=True))
    assert context.storage.db.command("dbHash")["md5"] == before
    assert not worker.claim().tasks


def test_many_that_are_retried_together_share_their_descendants(context: Context, worker: SimulatedWorker) -> None:
    parents = post(context, *[task(priority=1) for _ in range(5)])
    (barrier,) = post(context, task(dependencies=after(*parents, on="any")))
    worker.claim(5)
    worker.end(FAILED)
    worker.run_all()
    running = post(context, task())
    worker.claim()
    outcome = retry_all(context, [*parents, *running], options("rerun"))
    assert (outcome.roots, set(outcome.refused)) == (set(parents), set(running))
    assert states(context, [*parents, barrier]) == ["available"] * 5 + ["inactive"]
    worker.end()
    assert worker.run_all() == 6
    assert retry_all(context, [*parents, barrier]).refused == {}, "the barrier is retried with them"
    assert states(context, [barrier]) == ["inactive"]


# New values


def test_a_task_is_retried_with_more_memory_and_its_class_is_its_new_one(
    context: Context, worker: SimulatedWorker
) -> None:
    (id,) = post(context, task(requested_resources={"cores": 1, "memory": 2**40}, name="old"))
    cancel(context, [id], USER)
    less = changes(requested_resources={"cores": 2.0}, name="new", not_before=None)
    retry(context, id, options(changes=less))
    (grant,) = worker.claim().tasks
    assert (grant["requested_resources"], grant["name"]) == ({"cores": 2.0}, "new")


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"queue": "nope"}, "queue"),
        ({"model": "m"}, "model"),
        ({"inputs": {"x": 1}}, "inputs"),
    ],
)
def test_new_values_that_are_wrong_change_nothing(
    context: Context, worker: SimulatedWorker, fields: Mapping[str, Any], fault: str
) -> None:
    (id,) = post(context, task())
    worker.run_all()
    with pytest.raises(Invalid) as error:
        retry(context, id, options(changes=changes(**fields)))
    assert fault in error.value.issues
    assert states(context, [id]) == ["terminated"]


def test_a_task_may_be_held_by_the_retry(context: Context, worker: SimulatedWorker) -> None:
    (id,) = post(context, task())
    worker.run_all()
    retry(context, id, options(changes=changes(hold=True)))
    assert (states(context, [id]), worker.claim().tasks) == (["available"], [])


# Parents that were deleted


def lonely(context: Context, worker: SimulatedWorker) -> tuple[ObjectId, ObjectId, ObjectId]:
    """A task whose two parents failed: one that it was cancelled for, which is deleted since, and another one."""
    failed, other = post(context, task(priority=1), task())
    (child,) = post(context, task(dependencies=after(failed, other)))
    run(worker, FAILED)
    run(worker, FAILED)
    assert delete(context, [failed]) == [failed]
    return failed, other, child


def test_the_deletion_of_a_parent_satisfies_nobody(context: Context, worker: SimulatedWorker) -> None:
    failed, other, child = lonely(context, worker)
    outcome = retry(context, other)
    assert outcome.kept == {child: f"its parent {failed} did not end as it needs"}
    worker.run_all()
    assert states(context, [other, child]) == ["terminated", "cancelled"]
    assert str(failed) in explain(context, child)["summary"]
    assert "deleted" in explain(context, child)["summary"]


@pytest.mark.parametrize("many", [1, 5000])
@pytest.mark.parametrize(("on", "end"), [("success", FAILED), ("failure", "success"), ("failure", "cancelled")])
def test_no_way_to_delete_a_parent_satisfies_its_children(
    context: Context, worker: SimulatedWorker, many: int, on: str, end: str
) -> None:
    """Also a large one, whose own edges leave before it."""
    roots = post(context, task(), task())
    (parent,) = post(context, task(dependencies=after(*roots)))
    (child,) = post(context, task(dependencies=after(parent, on=on)))
    worker.claim()
    worker.end()
    if end == "cancelled":
        cancel(context, [parent], USER)
    else:
        run(worker, end)
    assert states(context, [child]) == ["cancelled"]
    assert set(delete(context, [parent, *roots], many=many)) == {parent, *roots}
    with pytest.raises(IllegalTransition, match=f"needs another end of {parent}, and that was deleted"):
        retry(context, child)


def test_a_retry_may_do_without_deleted_parents(context: Context, worker: SimulatedWorker) -> None:
    failed, other, child = lonely(context, worker)
    with pytest.raises(IllegalTransition, match=r"'without': \[\.\.\]") as error:
        retry(context, child, options(without=frozenset([other])))
    assert error.value.issues.keys() == {"without"}
    assert (failed, child) in edges(context)
    retry(context, other, options(without=frozenset([failed])))
    assert states(context, [other, child]) == ["available", "inactive"]
    assert worker.run_all() == 2


@pytest.mark.parametrize("what", ["is there", "nothing that runs again"])
def test_it_can_do_without_deleted_parents_of_its_own_alone(
    context: Context, worker: SimulatedWorker, what: str
) -> None:
    (other,) = post(context, task())
    (id,) = post(context, task())
    worker.run_all()
    spared = other if what == "is there" else ObjectId()
    with pytest.raises(Invalid, match=what):
        retry(context, id, options(without=frozenset([spared])))
    assert states(context, [id]) == ["terminated"]


def test_a_task_that_took_a_result_of_a_deleted_parent_gets_that_input_in_another_way(context: Context) -> None:
    worker = SimulatedWorker(context, capabilities=("shell", "model:m"))
    (parent,) = post(context, task())
    refs = {"x": {"task": parent}}
    (child,) = post(context, task(command=None, model="m", input_refs=refs, inputs={"y": 1}))
    (last,) = post(context, task(dependencies=after(child)))
    worker.claim()
    worker.end(result=5)
    worker.run_all()
    delete(context, [parent])
    with pytest.raises(IllegalTransition, match=f"its input 'x' from the result of {parent}, which was deleted"):
        retry(context, child, options("rerun"))
    assert states(context, [child, last]) == ["terminated", "terminated"]
    instead = options("rerun", without=frozenset([parent]), changes=changes(inputs={"x": 6, "y": 1}))
    retry(context, child, instead)
    (grant,) = worker.claim().tasks
    assert (grant["_id"], grant["inputs"], "input_error" in grant) == (child, {"x": 6, "y": 1}, False)


def test_what_comes_after_is_not_run_again_without_the_result_that_it_took(context: Context) -> None:
    worker = SimulatedWorker(context, capabilities=("shell", "model:m"))
    gone, root = post(context, task(), task())
    refs = {"x": {"task": gone}}
    (child,) = post(context, task(command=None, model="m", input_refs=refs, dependencies=after(root)))
    worker.run_all()
    delete(context, [gone])
    with pytest.raises(IllegalTransition, match=f"task {child} takes its input 'x'"):
        retry(context, root, options("rerun"))
    assert states(context, [root, child]) == ["terminated", "terminated"]


def test_how_a_kept_child_stands_to_a_parent_that_is_deleted_later(context: Context, worker: SimulatedWorker) -> None:
    for end, allowed in (("success", True), (FAILED, False)):
        (parent,) = post(context, task())
        (child,) = post(context, task(dependencies=after(parent)))
        worker.run_all()
        retry(context, parent, options("keep"))
        run(worker, end)
        delete(context, [parent])
        if allowed:
            assert retry(context, child).roots == {child}
            worker.run_all()
        else:
            with pytest.raises(IllegalTransition, match="deleted"):
                retry(context, child)


def test_the_id_of_a_deleted_parent_is_not_given_to_another_task(context: Context, worker: SimulatedWorker) -> None:
    failed, _, child = lonely(context, worker)
    with pytest.raises(Invalid, match="still name") as error:
        post(context, task(_id=failed))
    assert error.value.issues.keys() == {"_id"}
    with pytest.raises(Invalid):
        post(context, task(_id=failed), task(dependencies=after(failed)))
    delete(context, [child])
    assert post(context, task(_id=failed)) == [failed]


def test_outcomes_add_up() -> None:
    one, two = ObjectId(), ObjectId()
    outcome = Outcome(kept={one: "it is terminated"})
    outcome.join(Outcome(kept={two: "it is running"}))
    assert outcome.kept.keys() == {one, two}
