"""Retries that concern what came after a task, of tasks whose parents begin anew or are gone, and of many at once."""

from collections.abc import Callable

from bson import ObjectId

from banyan.queue.cancel import cancel
from banyan.queue.context import Context
from banyan.queue.delete import delete
from banyan.queue.retry import retry
from banyan.queue.retry_options import Downstream, RetryOptions
from tests.faults.scenarios.scenario import Document, Scenario, outcome
from tests.support.crashing import Server
from tests.support.queue import SimulatedWorker, after, post, task

FAILED = "failure (exit code 1)"
KEEP = RetryOptions(downstream=Downstream.KEEP)


def _run(worker: SimulatedWorker, exit_status: str) -> None:
    worker.claim(1)
    worker.end(exit_status)


def _cleaned_up(context: Context) -> Document:
    """A failed parent, a child that was cancelled for it, and a clean-up of two that ran after that."""
    (parent,) = post(context, task())
    (child,) = post(context, task(dependencies=after(parent)))
    (cleanup,) = post(context, task(dependencies=after(child, on="any")))
    (last,) = post(context, task(dependencies=after(cleanup)))
    worker = SimulatedWorker(context)
    _run(worker, FAILED)
    worker.run_all()
    return {"parent": parent, "child": child, "cleanup": cleanup, "last": last}


def _retry(server: Server, state: Document, downstream: str) -> None:
    body = {"downstream": downstream, "requested_resources": {"cores": 2}}
    server.call("POST", f"/tasks/{state['parent']}/retry", body)


def _attempts(context: Context, state: Document, *names: str) -> list[int]:
    found = context.storage.tasks.documents([state[name] for name in names], ["attempt_count"])
    return [found[state[name]]["attempt_count"] for name in names]


def _kept_or_not(context: Context, state: Document) -> None:
    assert outcome(context, state["child"]) == {1: "cancelled", 2: "success"}[_attempts(context, state, "parent")[0]]
    assert _attempts(context, state, "cleanup", "last") == [1, 1]


def _rerun_or_not(context: Context, state: Document) -> None:
    assert _attempts(context, state, "parent", "child", "cleanup", "last") in ([1, 0, 1, 1], [2, 1, 2, 2])


def _kept(context: Context) -> Document:
    """A child that was kept: of its parents one has ended in another way since, and another one is to run again."""
    ended, waits = post(context, task(priority=1), task())
    (child,) = post(context, task(dependencies=[*after(ended, on="any"), *after(waits)]))
    worker = SimulatedWorker(context)
    worker.run_all()
    retry(context, ended, KEEP)
    _run(worker, FAILED)
    retry(context, waits, KEEP)
    return {"parent": waits, "child": child, "ended": ended}


def _retry_child(server: Server, state: Document) -> None:
    server.call("POST", f"/tasks/{state['child']}/retry", {})


def _ran_after_its_parent(context: Context, state: Document) -> None:
    found = context.storage.tasks.documents([state["parent"], state["child"]])
    parent, child = found[state["parent"]], found[state["child"]]
    assert (parent["exit_status"], child["exit_status"]) == ("success", "success")
    if child["attempt_count"] == 2:
        assert child["time_claimed"] >= parent["time_terminated"]


def _delete_ended(many: int) -> Callable[[Server, Document], None]:
    def act(server: Server, state: Document) -> None:
        delete(server.context, [state["ended"]], many=many)

    return act


def _still_told(context: Context, state: Document) -> None:
    edges = context.storage.edges.of_children([state["child"]])
    assert {edge.parent for edge in edges} == {state["ended"], state["parent"]}
    assert outcome(context, state["ended"]) == "missing"


def _orphan(context: Context) -> Document:
    """A task that was cancelled for a parent that is deleted."""
    (parent,) = post(context, task())
    (child,) = post(context, task(dependencies=after(parent)))
    _run(SimulatedWorker(context), FAILED)
    delete(context, [parent])
    return {"parent": parent, "child": child}


def _do_without(server: Server, state: Document) -> None:
    server.call("POST", f"/tasks/{state['child']}/retry", {"without": [str(state["parent"])]})


def _both_or_none(context: Context, state: Document) -> None:
    edges = context.storage.edges.of_children([state["child"]])
    assert (outcome(context, state["child"]), len(edges)) in (("cancelled", 1), ("success", 0))


def _several(context: Context) -> Document:
    ids: list[ObjectId] = post(context, *[task() for _ in range(3)])
    (barrier,) = post(context, task(dependencies=after(*ids)))
    cancel(context, ids, {"user": "alice"})
    return {"ids": ids, "barrier": barrier}


def _retry_many(server: Server, state: Document) -> None:
    server.call("POST", "/tasks/retry", {"ids": [str(id) for id in state["ids"]]})


def _all_or_none(context: Context, state: Document) -> None:
    assert len({outcome(context, id) for id in [*state["ids"], state["barrier"]]}) == 1


def _waiting(context: Context) -> Document:
    ids = post(context, *[task() for _ in range(3)])
    (barrier,) = post(context, task(dependencies=after(*ids)))
    return {"ids": ids, "barrier": barrier}


def _cancel_many(server: Server, state: Document) -> None:
    server.call("POST", "/tasks/cancel", {"where": {"state": "available"}})


SCENARIOS = [
    Scenario(
        name="retry and keep what has run",
        prepare=_cleaned_up,
        act=lambda server, state: _retry(server, state, "keep"),
        check=_kept_or_not,
    ),
    Scenario(
        name="retry with what has run after it",
        prepare=_cleaned_up,
        act=lambda server, state: _retry(server, state, "rerun"),
        check=_rerun_or_not,
    ),
    Scenario(name="retry what was kept", prepare=_kept, act=_retry_child, check=_ran_after_its_parent),
    Scenario(name="delete a parent of what was kept", prepare=_kept, act=_delete_ended(5000), check=_still_told),
    Scenario(
        name="delete a large parent of what was kept",
        prepare=_kept,
        act=_delete_ended(0),
        check=_still_told,
        repeats=True,
    ),
    Scenario(name="retry without a parent", prepare=_orphan, act=_do_without, check=_both_or_none),
    Scenario(name="retry many", prepare=_several, act=_retry_many, check=_all_or_none),
    Scenario(name="cancel many", prepare=_waiting, act=_cancel_many, check=_all_or_none),
]
