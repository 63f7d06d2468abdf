"""Steering sweeps as a whole: cancelling, retrying, deleting, and what may happen meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from banyan.errors import Conflict, IllegalTransition
from banyan.queue.cancel import cancel as cancel_tasks
from banyan.queue.context import Context
from banyan.queue.rescue import rescue
from banyan.queue.retry import Outcome, retry_all
from banyan.queue.sweep import Plan, cancel, delete_sweep, make, owned_sweep
from banyan.queue.sweep_retry import retry_sweep
from banyan.storage.reading import Reader
from banyan.storage.sweep_reading import progress_of
from tests.support.queue import ALICE, Interrupting, SimulatedWorker, after, post, states, task

FAILED = "failure (exit code 1)"
USER = {"user": "alice"}


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep of `true` with a barrier, and a worker that runs it."""

    context: Context
    id: ObjectId
    worker: SimulatedWorker

    @classmethod
    def of(cls, context: Context, count: int, barrier: bool = True, **shared: Any) -> "Sweep":
        points = [{"x": index} for index in range(count)]
        plan = Plan(
            kept={},
            shared=task(**shared),
            template="true",
            inputs={},
            points=points,
            names=["x"],
            barrier=task(priority=-1) if barrier else None,
        )
        return cls(context, make(context, plan, ALICE)["_id"], SimulatedWorker(context))

    @property
    def document(self) -> dict[str, Any]:
        return owned_sweep(self.context, self.id, ALICE)

    @property
    def barrier(self) -> ObjectId:
        return ObjectId(self.document["barrier"])

    @property
    def points(self) -> list[ObjectId]:
        return [id for batch in self.context.storage.sweeps.batches(self.id, {}) for id in batch]

    def states(self) -> list[str]:
        """Of the points in order and of the barrier."""
        return states(self.context, [*self.points, self.barrier])

    def run(self, *failing: int) -> None:
        """Run all points that are available and let some of them fail."""
        self.worker.claim(len(self.points))
        bad = [id for id, grant in self.worker.held.items() if grant.get("index") in failing]
        self.worker.end(FAILED, executions=bad)
        self.worker.end()

    def retry(self) -> Outcome:
        return retry_sweep(self.context, self.document)

    def pending(self) -> int:
        """How many points the barrier waits for, as readers are told."""
        return int(self.context.storage.tasks.documents([self.barrier])[self.barrier]["pending_dependency_count"])


def test_cancelling_ends_what_waits_at_once_and_asks_what_runs(context: Context) -> None:
    sweep = Sweep.of(context, 5)
    sweep.worker.claim(2)
    sweep.worker.end(executions=list(sweep.worker.held)[:1])
    assert cancel(context, sweep.document, USER) == 4
    assert sweep.states() == ["terminated", "pending_cancellation", *["cancelled"] * 3, "cancelled"]
    assert cancel(context, sweep.document, USER) == 0
    sweep.worker.end(FAILED)
    assert sweep.states() == ["terminated", *["cancelled"] * 4, "cancelled"]


def test_what_did_not_succeed_is_retried_and_the_barrier_waits_again(context: Context) -> None:
    sweep = Sweep.of(context, 5)
    sweep.run(1, 3)
    sweep.worker.run_all()
    assert sweep.states() == ["terminated"] * 6
    outcome = sweep.retry()
    assert (outcome.retried, outcome.refused) == (2, {})
    assert sweep.states() == ["terminated", "available", "terminated", "available", "terminated", "inactive"]
    assert sweep.pending() == 2
    sweep.run(1)
    assert sweep.states() == ["terminated"] * 5 + ["available"]
    sweep.worker.run_all()
    assert sweep.states() == ["terminated"] * 6
    assert [grant["attempt"] for grant in context.storage.executions.of_task(sweep.barrier)] == [1, 2]


def test_a_cancelled_sweep_is_retried_whole(context: Context) -> None:
    sweep = Sweep.of(context, 3)
    cancel(context, sweep.document, USER)
    assert sweep.retry().retried == 3
    assert sweep.states() == ["available"] * 3 + ["inactive"]
    sweep.worker.run_all()
    assert sweep.states() == ["terminated"] * 4


def test_a_sweep_that_still_runs_can_be_retried(context: Context) -> None:
    sweep = Sweep.of(context, 4)
    sweep.worker.claim(3)
    first, second, third = sweep.worker.held
    sweep.worker.end(FAILED, executions=[first])
    assert sweep.retry().retried == 1
    assert sweep.states() == ["available", "running", "running", "available", "inactive"]
    assert sweep.pending() == 4
    sweep.worker.end(executions=[second, third])
    sweep.worker.run_all()
    assert sweep.states() == ["terminated"] * 5


def test_nothing_happens_when_all_is_well(context: Context) -> None:
    sweep = Sweep.of(context, 2)
    sweep.worker.run_all()
    assert (sweep.retry().retried, sweep.states()) == (0, ["terminated"] * 3)


def test_a_barrier_that_failed_alone_is_retried(context: Context) -> None:
    sweep = Sweep.of(context, 2)
    sweep.run()
    sweep.worker.claim()
    sweep.worker.end(FAILED)
    assert sweep.retry().retried == 1
    assert sweep.states() == ["terminated", "terminated", "available"]


def test_a_barrier_that_has_begun_keeps_the_points_as_they_are(context: Context) -> None:
    sweep = Sweep.of(context, 2)
    sweep.run(0)
    assert sweep.states()[-1] == "available"
    assert sweep.retry().retried == 1
    assert sweep.states()[-1] == "inactive", "it had not begun, and waits again"
    sweep.run(0)
    sweep.worker.claim()
    with pytest.raises(IllegalTransition, match="cancel it, or wait for its end"):
        sweep.retry()
    assert sweep.states() == ["terminated", "terminated", "running"]
    sweep.worker.end()
    assert sweep.retry().retried == 1


def test_what_follows_a_barrier_keeps_it_as_it_is_once_it_has_begun(context: Context) -> None:
    sweep = Sweep.of(context, 2)
    (last,) = post(context, task(dependencies=after(sweep.barrier)))
    sweep.run(0)
    sweep.worker.claim()
    sweep.worker.end()
    sweep.worker.claim()
    with pytest.raises(IllegalTransition, match=f"its continuation {last} is running already"):
        sweep.retry()
    assert states(context, [*sweep.points, sweep.barrier, last]) == ["terminated"] * 3 + ["running"]
    assert not context.storage.edges.waiting([sweep.barrier])


def test_what_was_cancelled_with_the_barrier_comes_back_with_it(context: Context) -> None:
    sweep = Sweep.of(context, 2)
    (last,) = post(context, task(dependencies=after(sweep.barrier)))
    cancel(context, sweep.document, USER)
    assert states(context, [last]) == ["cancelled"]
    sweep.retry()
    assert states(context, [last]) == ["inactive"]
    sweep.worker.run_all()
    assert states(context, [sweep.barrier, last]) == ["terminated"] * 2


def test_tasks_that_cannot_be_retried_are_told_and_the_others_are(context: Context) -> None:
    sweep = Sweep.of(context, 4)
    points = sweep.points
    (child,) = post(context, task(dependencies=after(points[1], on="any")))
    sweep.run(1, 2)
    sweep.worker.claim()
    sweep.worker.end()
    outcome = sweep.retry()
    assert (outcome.retried, list(outcome.refused)) == (1, [points[1]])
    assert f"its continuation {child} is terminated already" in str(outcome.refused[points[1]])
    assert sweep.states() == ["terminated", "terminated", "available", "terminated", "inactive"]


def test_points_that_were_cancelled_for_a_parents_sake_name_it(context: Context) -> None:
    (parent,) = post(context, task())
    sweep = Sweep.of(context, 3, dependencies=after(parent))
    sweep.worker.claim()
    sweep.worker.end(FAILED)
    assert sweep.states() == ["cancelled"] * 3 + ["available"]
    sweep.worker.claim()
    sweep.worker.end()
    outcome = sweep.retry()
    assert (outcome.retried, len(outcome.refused)) == (0, 3)
    assert all("retry that one first" in str(error) for error in outcome.refused.values())
    assert sweep.states() == ["cancelled"] * 3 + ["available"], "it has nothing to wait for, so it runs again"


def test_the_barrier_waits_although_points_end_while_others_are_being_retried(context: Context) -> None:
    """The first batch of retried points has ended before the second is looked at."""
    sweep = Sweep.of(context, 1500)
    for _ in range(2):
        sweep.run(*range(1500))
    sweep.worker.run_all()
    seen: list[str] = []
    store = context.storage.sweeps

    def run_and_look() -> None:
        if not seen:
            sweep.run()
            rescue(context)
        seen.append(states(context, [sweep.barrier])[0])

    context.storage.sweeps = After(store, "go_on_retrying", run_and_look)  # type: ignore[assignment]
    outcome = retry_sweep(context, sweep.document)
    context.storage.sweeps = store
    assert (outcome.retried, outcome.refused, seen) == (1500, {}, ["inactive", "inactive"])
    assert sweep.pending() == 500
    sweep.worker.run_all()
    assert sweep.states() == ["terminated"] * 1501


class After:
    """A store whose method `name` is followed by `act`."""

    def __init__(self, store: Any, name: str, act: Callable[[], object]) -> None:
        self._store, self._name, self._act = store, name, act

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name != self._name:
            return method

        def then(*arguments: Any, **more: Any) -> Any:
            answer = method(*arguments, **more)
            self._act()
            return answer

        return then


def test_a_barrier_is_let_go_although_the_server_died_while_it_retried(context: Context) -> None:
    sweep = Sweep.of(context, 2)
    sweep.run(0, 1)
    sweep.worker.run_all()
    store = context.storage.sweeps

    def die() -> None:
        raise SystemError("the server dies here")

    context.storage.sweeps = After(store, "go_on_retrying", die)  # type: ignore[assignment]
    context.storage.sweeps.end_retry = lambda *arguments: die()  # type: ignore[method-assign]
    with pytest.raises(SystemError):
        retry_sweep(context, store.load(sweep.id) or {})
    context.storage.sweeps = store
    cancel_tasks(context, sweep.points[:1], USER)
    with pytest.raises(Conflict, match="is being retried already"):
        sweep.retry()
    sweep.worker.run_all()
    assert sweep.states()[-1] == "inactive"
    long_ago = context.now() - timedelta(minutes=2)
    context.storage.db["sweeps"].update_one({"_id": sweep.id}, {"$set": {"retrying": long_ago}})
    rescue(context)
    assert sweep.states()[-1] == "available"
    assert sweep.pending() == 0
    sweep.worker.run_all()
    assert sweep.retry().retried == 1


def test_a_sweep_that_is_yet_to_be_made_is_completed_before_it_is_steered(context: Context) -> None:
    def die() -> None:
        raise SystemError("the server dies here")

    dying = replace(context, hub=Interrupting(context, die))
    with pytest.raises(SystemError):
        Sweep.of(dying, 200, stdin="x" * 200_000)
    (document,) = context.storage.db["sweeps"].find()
    reader = Reader(context.storage.db, 10)
    progress = progress_of(reader, [document["_id"]])[document["_id"]]
    assert 0 < progress["states"]["available"] < 200
    assert (progress["deleted"], progress["fraction"], progress["barrier"]) == (0, 0, "inactive")
    assert cancel(context, document, USER) == 200
    progress = progress_of(reader, [document["_id"]])[document["_id"]]
    assert (progress["cancelled"], progress["fraction"], progress["barrier"]) == (200, 1, "cancelled")


def test_a_sweep_is_deleted_with_all_that_it_left_when_it_has_ended(context: Context) -> None:
    kept = post(context, task())
    sweep = Sweep.of(context, 3)
    with pytest.raises(IllegalTransition, match="4 of its tasks have not ended"):
        delete_sweep(context, sweep.document)
    sweep.worker.run_all()
    assert delete_sweep(context, sweep.document) == 3
    assert context.storage.sweeps.load(sweep.id) is None
    assert [each["_id"] for each in context.storage.db["tasks"].find().sort("_id")] == kept
    assert context.storage.db["continuations"].count_documents({}) == 0
    assert {each["task"] for each in context.storage.db["executions"].find()} == set(kept)


def test_a_sweep_is_deleted_although_its_settlements_were_interrupted(context: Context) -> None:
    sweep = Sweep.of(context, 3)
    sweep.worker.run_all()
    context.storage.db["tasks"].update_many({"sweep": sweep.id}, {"$set": {"unsettled": True}})
    assert delete_sweep(context, sweep.document) == 3


def test_a_sweep_whose_tasks_begin_anew_meanwhile_is_not_deleted(context: Context) -> None:
    sweep = Sweep.of(context, 3, barrier=False)
    sweep.run(0)
    document, points = sweep.document, sweep.points
    store = context.storage.sweeps
    context.storage.sweeps = After(store, "count", lambda: retry_all(context, points[:1]))  # type: ignore[assignment]
    with pytest.raises(Conflict, match="1 tasks of sweep"):
        delete_sweep(context, document)
    context.storage.sweeps = store
    assert states(context, points[:1]) == ["available"]
    sweep.worker.run_all()
    assert delete_sweep(context, sweep.document) == 1


def test_tasks_that_are_retried_together_wait_for_each_other(context: Context) -> None:
    first, second = post(context, task(), task(state="inactive"))
    (third,) = post(context, task(dependencies=after(first, second, on="any")))
    cancel_tasks(context, [third], USER)
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end(FAILED)
    cancel_tasks(context, [second], USER)
    assert states(context, [first, second, third]) == ["terminated", "cancelled", "cancelled"]
    assert retry_all(context, [third, first, second]).refused == {}
    assert states(context, [first, second, third]) == ["available", "available", "inactive"]
    worker.run_all()
    assert states(context, [first, second, third]) == ["terminated"] * 3
