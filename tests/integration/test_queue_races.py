"""Interleavings that once went wrong, forced by acting in the middle of a use case; and crashes between two writes."""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from banyan.domain.resources import Resources
from banyan.domain.roles import Role
from banyan.errors import Conflict, Forbidden, IllegalTransition, TooLarge
from banyan.queue.actor import Actor
from banyan.queue.cancel import cancel
from banyan.queue.claim import Ask, claim
from banyan.queue.context import Context
from banyan.queue.delete import delete
from banyan.queue.grant import claim_one
from banyan.queue.register import leave
from banyan.queue.report import Report, report
from banyan.queue.rescue import rescue
from banyan.queue.retry import retry
from banyan.queue.retry_options import Downstream, RetryOptions
from banyan.queue.submit import MAX_TASK_BYTES
from banyan.queue.update import Update, update
from tests.support.adding_up import faults
from tests.support.queue import ALICE, SimulatedWorker, after, post, states, task

KEEP = RetryOptions(downstream=Downstream.KEEP)


class Meanwhile:
    """A store whose method `name` lets `act` happen, once, after it has read."""

    def __init__(self, store: Any, name: str, act: Callable[[], object]) -> None:
        self._store, self._name, self._act = store, name, act

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name != self._name:
            return method

        def then(*arguments: Any, **more: Any) -> Any:
            answer = method(*arguments, **more)
            act, self._act = self._act, lambda: None
            act()
            return answer

        return then


def test_a_child_that_gets_another_parent_while_it_is_promoted_waits_for_that_one_too(context: Context) -> None:
    first, second = post(context, task(), task(state="inactive"))
    (child,) = post(context, task(dependencies=after(first)))
    worker = SimulatedWorker(context)
    worker.claim()
    edges = context.storage.edges
    context.storage.edges = Meanwhile(edges, "broken", lambda: update(context, second, Update(add=[child]), ALICE))  # type: ignore[assignment]
    worker.end()
    context.storage.edges = edges
    assert states(context, [first, second, child]) == ["terminated", "inactive", "inactive"]


def test_a_parent_that_is_retried_while_its_child_is_promoted_is_waited_for_again(context: Context) -> None:
    first, second = post(context, task(priority=1), task())
    (child,) = post(context, task(dependencies=after(first, second)))
    worker = SimulatedWorker(context)
    worker.claim(1)
    worker.end()
    worker.claim(1)
    edges = context.storage.edges
    context.storage.edges = Meanwhile(edges, "broken", lambda: retry(context, first))  # type: ignore[assignment]
    worker.end()
    context.storage.edges = edges
    assert states(context, [first, second, child]) == ["available", "terminated", "inactive"]
    worker.run_all()
    assert states(context, [child]) == ["terminated"]


def test_the_end_of_an_earlier_life_does_not_cancel_the_child_of_a_retried_parent(context: Context) -> None:
    (parent,) = post(context, task())
    (child,) = post(context, task(dependencies=after(parent)))
    worker = SimulatedWorker(context)
    worker.claim()
    edges = context.storage.edges
    context.storage.edges = Meanwhile(edges, "unsettled", lambda: retry(context, parent))  # type: ignore[assignment]
    worker.end("failure (exit code 1)")
    context.storage.edges = edges
    assert states(context, [parent, child]) == ["available", "inactive"]
    worker.run_all()
    assert states(context, [parent, child]) == ["terminated", "terminated"]


def test_a_child_that_is_retried_while_its_parent_ends_is_promoted(context: Context) -> None:
    (parent,) = post(context, task())
    (child,) = post(context, task(dependencies=after(parent)))
    cancel(context, [child], {"user": "alice"})
    worker = SimulatedWorker(context)
    worker.claim()
    edges = context.storage.edges
    ended = threading.Thread(target=worker.end)

    def end() -> None:
        context.storage.edges = edges
        ended.start()
        ended.join(timeout=1)

    context.storage.edges = Meanwhile(edges, "waiting", end)  # type: ignore[assignment]
    retry(context, child)
    ended.join()
    rescue(context)
    assert states(context, [parent, child]) == ["terminated", "available"]


def test_a_ready_child_is_promoted_although_its_server_died_before_it_came_to_it(context: Context) -> None:
    done, waits = post(context, task(), task(state="inactive"))
    (child,) = post(context, task(state="inactive", dependencies=after(done, waits)))
    SimulatedWorker(context).run_all()

    def write(session: Any) -> None:
        context.storage.edges.remove([(waits, child)], session)
        context.storage.tasks.mark_unpromoted([child], session)

    context.storage.transaction(write)
    assert states(context, [child]) == ["inactive"]
    rescue(context)
    assert states(context, [child]) == ["available"]
    assert context.storage.tasks.unpromoted(10) == []


def test_an_older_claim_that_arrives_late_takes_nothing_back(context: Context) -> None:
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    newer = worker.ask(1, number=2, unanswered=frozenset(["older"]))
    (granted,) = claim(context, worker.id, newer).tasks
    older = Ask(request="older", free=Resources(), max_tasks=0, number=1)
    assert not claim(context, worker.id, older)
    assert states(context, [id]) == ["running"]
    assert report(context, [Report(execution=granted["execution"], exit_status="success")]).stale == []


def test_a_grant_that_was_given_back_before_it_was_recorded_leaves_no_open_attempt(context: Context) -> None:
    post(context, task())
    worker = SimulatedWorker(context)
    tasks = context.storage.tasks
    context.storage.tasks = Meanwhile(tasks, "commit", lambda: worker.claim(0))  # type: ignore[assignment]
    worker.claim(1)
    context.storage.tasks = tasks
    open_ones = {record["_id"] for record in context.storage.db["executions"].find({"time_terminated": None})}
    assert open_ones == set(worker.held)
    worker.end()
    worker.run_all()
    assert context.storage.db["executions"].count_documents({"attempt": 1, "exit_status": "success"}) == 1
    assert context.storage.db["executions"].count_documents({}) == 1


def test_a_live_report_cannot_make_an_attempt_look_ended(context: Context) -> None:
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    worker.claim()
    (execution,) = worker.held
    report(context, [Report(execution=execution, fields={"time_terminated": context.now(), "pid": 3})])
    rescue(context)
    assert worker.end().stale == []
    assert states(context, [id]) == ["terminated"]


def test_one_broken_record_keeps_no_other_task_from_being_rescued(context: Context) -> None:
    broken, fine = post(context, task(priority=1), task())
    workers = [SimulatedWorker(context), SimulatedWorker(context)]
    for worker in workers:
        worker.claim(1)
    long_ago = context.now() - timedelta(minutes=5)
    ended = {"time_terminated": long_ago, "last_update": long_ago}
    executions = context.storage.db["executions"]
    executions.update_one({"task": broken}, {"$set": {**ended, "exit_status": 17}})
    executions.update_one({"task": fine}, {"$set": {**ended, "exit_status": "success"}})
    rescue(context)
    assert states(context, [fine]) == ["terminated"]


def test_an_attempt_that_has_started_is_not_given_back(context: Context) -> None:
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    worker.claim()
    (execution,) = worker.held
    report(context, [Report(execution=execution, fields={"time_started": context.now()})])
    assert report(context, [Report(execution=execution, given_back=True)]).stale == [execution]
    assert states(context, [id]) == ["running"]


def test_an_edge_to_another_users_task_is_not_removed_by_the_parents_owner(context: Context) -> None:
    bob = Actor(name="bob", role=Role.PROVIDER)
    (parent,) = post(context, task(state="inactive"))
    (child,) = post(context, task(dependencies=after(parent)), actor=bob)
    (mine,) = post(context, task(state="inactive"))
    update(context, parent, Update(continuations=[mine]), ALICE)
    assert context.storage.edges.children([parent]) == {child, mine}
    with pytest.raises(Forbidden):
        update(context, parent, Update(remove=[child]), ALICE)


def test_a_full_queue_keeps_no_other_queue_waiting(context: Context) -> None:
    now = context.now()
    narrow = {"name": "narrow", "paused": False, "max_running": 1, "weight": 1000.0, "_etag": "1"}
    context.storage.queues.add(narrow | {"_created": now, "_updated": now})
    post(context, *[task(queue="narrow", priority=9, requested_resources={"cores": c}) for c in (1, 1, 4)])
    ids = post(context, *[task() for _ in range(3)])
    SimulatedWorker(context, queues=("narrow",)).claim(1)
    worker = SimulatedWorker(context, resources={"cores": 4})
    for id in ids:
        assert [grant["_id"] for grant in worker.claim(1, free=Resources(millicores=1000)).tasks] == [id]


def test_tasks_without_a_limit_hide_none_that_fits_a_short_life(context: Context) -> None:
    post(context, *[task() for _ in range(20)])
    (short,) = post(context, task(timeout=10.0))
    worker = SimulatedWorker(context)
    until = context.now() + timedelta(seconds=60)
    context.storage.db["workers"].update_one({"_id": worker.id}, {"$set": {"available_until": until}})
    assert [grant["_id"] for grant in worker.claim(1).tasks] == [short]


def test_only_an_active_and_fitting_worker_claims_by_hand(context: Context) -> None:
    (wide,) = post(context, task(requested_resources={"cores": 8}))
    worker = SimulatedWorker(context, resources={"cores": 4})
    with pytest.raises(IllegalTransition, match="lacks cores 8"):
        claim_one(context, worker.id, wide)
    leave(context, worker.id)
    with pytest.raises(Conflict, match="lost or gone"):
        claim_one(context, worker.id, wide)


def test_a_held_child_survives_the_deletion_of_its_parent(context: Context) -> None:
    (parent,) = post(context, task())
    (child,) = post(context, task(hold=True, dependencies=after(parent)))
    SimulatedWorker(context).run_all()
    assert delete(context, [parent]) == [parent]
    update(context, child, Update(fields={"hold": False}), ALICE)
    assert states(context, [child]) == ["available"]


def test_a_task_that_leaves_no_room_for_its_results_is_refused(context: Context) -> None:
    with pytest.raises(TooLarge, match="pass large data as files"):
        post(context, task(stdin="x" * MAX_TASK_BYTES))
    (id,) = post(context, task(state="inactive"))
    with pytest.raises(TooLarge):
        update(context, id, Update(fields={"stdin": "x" * MAX_TASK_BYTES}), ALICE)


def test_a_worker_that_leaves_keeps_what_it_will_still_report(context: Context) -> None:
    done, lost = post(context, task(priority=1), task())
    worker = SimulatedWorker(context)
    worker.claim()
    finished = next(e for e, grant in worker.held.items() if grant["_id"] == done)
    leave(context, worker.id, [finished])
    assert states(context, [done, lost]) == ["running", "available"]
    assert report(context, [Report(execution=finished, exit_status="success")]).accepted == [finished]
    assert states(context, [done]) == ["terminated"]


def family(context: Context, worker: SimulatedWorker) -> tuple[ObjectId, ObjectId]:
    """A parent and its child; both have run."""
    (parent,) = post(context, task(priority=1))
    (child,) = post(context, task(dependencies=after(parent)))
    worker.run_all()
    return parent, child


def test_a_child_that_is_claimed_while_its_parent_is_retried_is_not_taken_back(context: Context) -> None:
    (parent,) = post(context, task())
    (child,) = post(context, task(dependencies=after(parent)))
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end()
    edges = context.storage.edges
    context.storage.edges = Meanwhile(edges, "pending_counts", worker.claim)  # type: ignore[assignment]
    with pytest.raises(IllegalTransition, match=f"{child} is running already"):
        retry(context, parent)
    context.storage.edges = edges
    assert states(context, [parent, child]) == ["terminated", "running"]
    assert edges.waiting([child]) == set()


@pytest.mark.parametrize(("end", "becomes"), [("success", "available"), ("failure (exit code 1)", "cancelled")])
def test_a_parent_that_ends_while_its_kept_child_is_retried_is_not_waited_for_in_vain(
    context: Context, end: str, becomes: str
) -> None:
    worker = SimulatedWorker(context)
    parent, child = family(context, worker)
    retry(context, parent, KEEP)
    worker.claim()
    edges = context.storage.edges
    context.storage.edges = Meanwhile(edges, "outdated_to", lambda: worker.end(end))  # type: ignore[assignment]
    with suppress(IllegalTransition):  # the parent may have failed already
        retry(context, child)
    context.storage.edges = edges
    assert states(context, [parent, child]) in (["terminated", becomes], ["terminated", "terminated"])
    worker.run_all()
    assert faults(context) == []


def test_a_parent_is_deleted_while_what_was_kept_is_retried(context: Context) -> None:
    worker = SimulatedWorker(context)
    parent, child = family(context, worker)
    retry(context, parent, KEEP)
    worker.claim()
    worker.end("failure (exit code 1)")
    edges = context.storage.edges
    context.storage.edges = Meanwhile(edges, "outdated_to", lambda: delete(context, [parent]))  # type: ignore[assignment]
    with pytest.raises(IllegalTransition, match=r"was deleted|did not end as it needs"):
        retry(context, child)
    context.storage.edges = edges
    assert states(context, [child]) == ["terminated"]
    assert faults(context) == []


def test_a_parent_and_its_kept_child_that_are_retried_at_once_run_one_after_the_other(context: Context) -> None:
    worker = SimulatedWorker(context)
    for _ in range(10):
        parent, child = family(context, worker)
        start = threading.Barrier(2)

        def act(id: ObjectId, start: threading.Barrier = start) -> None:
            start.wait()
            with suppress(IllegalTransition):
                retry(context, id, KEEP)

        threads = [threading.Thread(target=act, args=(id,)) for id in (parent, child)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        now = states(context, [parent, child])
        assert now in (["available", "inactive"], ["available", "available"], ["terminated", "available"]), now
        outdated = [edge.outdated for edge in context.storage.edges.of_children([child])]
        assert outdated == [False], "the child waits, or began before the parent did"
        worker.run_all()
        assert faults(context) == []
