"""Retrying a sweep: those of its tasks that did not succeed run again, and its barrier waits for them again."""

from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId

from banyan.domain.continuations import ON_ANY, Edge
from banyan.domain.task import ENDED, SUCCESS, State
from banyan.errors import BanyanError, Conflict, IllegalTransition
from banyan.queue.context import Context
from banyan.queue.parts import complete
from banyan.queue.retry import Retried, begin_again, follow, retry_all
from banyan.queue.settle import promote_ready, settle
from banyan.storage.mongo import Session

Document = dict[str, Any]

_FAILED = {"state": {"$in": list(ENDED)}, "exit_status": {"$ne": SUCCESS}}


@dataclass(slots=True)
class Outcome:
    """How many tasks run again, and why the others that failed do not."""

    retried: int = 0
    refused: dict[ObjectId, BanyanError] = field(default_factory=dict)


def retry_sweep(context: Context, sweep: Document) -> Outcome:
    """Let every task of a sweep that ended other than by success run again, if it can.

    Tasks are retried in batches, each for itself. Raises `IllegalTransition` when the barrier has begun or cannot come
    back to wait, and `Conflict` while the sweep is being retried already.
    """
    complete(context, sweep["_id"])
    outcome = Outcome()
    if not context.storage.sweeps.count(sweep["_id"], _FAILED):
        _retry_barrier(context, sweep, outcome)
        return outcome
    _hold_barrier(context, sweep)
    barrier = {sweep["barrier"]} if "barrier" in sweep else set()
    try:
        for batch in context.storage.sweeps.batches(sweep["_id"], _FAILED):
            refused = retry_all(context, batch, uncounted=barrier)
            outcome.retried += len(batch) - len(refused)
            outcome.refused |= refused
            context.storage.sweeps.go_on_retrying(sweep["_id"], context.now())
    finally:
        _release_barrier(context, sweep)
    return outcome


def release_interrupted(context: Context) -> None:
    """Let go of the barriers of sweeps whose retry was interrupted; what it has not come to stays as it was."""
    for sweep in context.storage.sweeps.interrupted_retries(context.now() - 2 * context.patience):
        _release_barrier(context, sweep)


def _retry_barrier(context: Context, sweep: Document, outcome: Outcome) -> None:
    """When all points are well, what did not succeed can only be the barrier."""
    tasks = context.storage.tasks.load([sweep["barrier"]] if "barrier" in sweep else [])
    failed = [task.id for task in tasks.values() if task.ended and task.exit_status != SUCCESS]
    if failed:
        outcome.refused = retry_all(context, failed)
        outcome.retried = len(failed) - len(outcome.refused)


def _hold_barrier(context: Context, sweep: Document) -> None:
    """Let the barrier wait again, for an edge from the sweep itself, so that no point that ends early lets it begin."""
    id, barrier = sweep["_id"], sweep.get("barrier")
    task = context.storage.tasks.load([barrier]).get(barrier) if barrier else None
    if task is not None and task.unsettled:
        settle(context, [task.id], thorough=True)

    def write(session: Session) -> Retried:
        if not context.storage.sweeps.begin_retry(id, context.now(), session):
            raise Conflict(f"sweep {id} is being retried already; wait for the end of that")
        return Retried() if task is None else _wait_again(context, sweep, session)

    follow(context, context.storage.transaction(write))


def _wait_again(context: Context, sweep: Document, session: Session) -> Retried:
    barrier = sweep["barrier"]
    hold = Edge(parent=sweep["_id"], child=barrier, on=ON_ANY, owner=sweep["owner"])
    context.storage.edges.insert([hold], session)
    task = context.storage.tasks.load([barrier], session).get(barrier)
    if task is None:
        return Retried()
    if task.state == State.INACTIVE:
        context.storage.tasks.touch([barrier], session)
        return Retried()
    if not task.ended:
        raise IllegalTransition(
            {"barrier": f"the barrier {barrier} is {task.state} already; cancel it, or wait for its end, then retry"}
        )
    retried = begin_again(context, [barrier], session)
    if retried.refused and task.state != State.CANCELLED:
        raise IllegalTransition({"barrier": str(retried.refused[barrier])})
    return retried


def _release_barrier(context: Context, sweep: Document) -> None:
    id, barrier = sweep["_id"], sweep.get("barrier")

    def write(session: Session) -> None:
        context.storage.sweeps.end_retry(id, session)
        if barrier is not None:
            context.storage.edges.remove([(id, barrier)], session)
            context.storage.tasks.mark_unpromoted([barrier], session)
            context.storage.tasks.set_pending(context.storage.edges.pending_counts([barrier], session), session)

    context.storage.transaction(write)
    if barrier is not None:
        promote_ready(context, [barrier])
