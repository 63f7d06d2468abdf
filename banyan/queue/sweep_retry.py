"""Retry of a sweep: its tasks that did not succeed run again, and its barrier waits for them again."""

from dataclasses import replace
from typing import Any

from banyan.domain.continuations import ON_ANY, Edge
from banyan.domain.task import ENDED, SUCCESS, State, Task
from banyan.domain.transitions import Revive, decide
from banyan.errors import Conflict, IllegalTransition
from banyan.queue.begin_again import Retried, begin_again, has_begun
from banyan.queue.context import Context
from banyan.queue.parts import complete
from banyan.queue.retry import DEFAULT, Outcome, Undone, follow, retry_all
from banyan.queue.retry_options import Downstream, RetryOptions
from banyan.queue.settle import promote_ready, settle
from banyan.queue.update import Update
from banyan.storage.mongo import Session

Document = dict[str, Any]

_FAILED = {"state": {"$in": list(ENDED)}, "exit_status": {"$ne": SUCCESS}}


def retry_sweep(context: Context, sweep: Document, options: RetryOptions = DEFAULT) -> Outcome:
    """Retry every task of a sweep that ended without success, if possible.

    Tasks are retried in batches, each on its own. The barrier comes back to wait for them, unless descendants that have
    begun are to be kept. Raises `IllegalTransition` when the barrier has begun or cannot come back to wait, and
    `Conflict` while the sweep is being retried already.
    """
    complete(context, sweep["_id"])
    outcome = Outcome()
    if not context.storage.sweeps.count(sweep["_id"], _FAILED):
        return _retry_barrier(context, sweep, options)
    waits = _hold_barrier(context, sweep, options, outcome)
    of_points = replace(options, uncounted={sweep["barrier"]} if waits else ())
    try:
        for batch in context.storage.sweeps.batches(sweep["_id"], _FAILED):
            outcome.join(retry_all(context, batch, of_points))
            if not options.dry_run:
                context.storage.sweeps.go_on_retrying(sweep["_id"], context.now())
    finally:
        if not options.dry_run:
            _release_barrier(context, sweep)
    return outcome


def release_interrupted(context: Context) -> None:
    """Release the barriers of sweeps whose retry was interrupted; the tasks that it did not reach stay as they were."""
    for sweep in context.storage.sweeps.interrupted_retries(context.now() - 2 * context.patience):
        _release_barrier(context, sweep)


def _retry_barrier(context: Context, sweep: Document, options: RetryOptions) -> Outcome:
    """Retry the barrier alone: all points succeeded, so only the barrier can have failed."""
    tasks = context.storage.tasks.load([sweep["barrier"]] if "barrier" in sweep else [])
    failed = [task.id for task in tasks.values() if task.ended and task.exit_status != SUCCESS]
    return retry_all(context, failed, options)


def _hold_barrier(context: Context, sweep: Document, options: RetryOptions, outcome: Outcome) -> bool:
    """Make the barrier wait again, by an edge from the sweep itself, so that no early end of a point starts it.

    Returns whether it waits.
    """
    id, barrier = sweep["_id"], sweep.get("barrier")
    task = context.storage.tasks.load([barrier]).get(barrier) if barrier else None
    if task is not None and task.unsettled:
        settle(context, [task.id], thorough=True)
    waits = task is not None and not (options.downstream == Downstream.KEEP and has_begun(task))

    def write(session: Session) -> Retried:
        if not context.storage.sweeps.begin_retry(id, context.now(), session):
            raise Conflict(f"sweep {id} is being retried already; wait for the end of that")
        retried = _wait_again(context, sweep, options, session) if waits else Retried()
        if options.dry_run:
            raise Undone(retried)
        return retried

    try:
        retried = context.storage.transaction(write)
        follow(context, retried)
    except Undone as undone:
        retried = undone.retried
    outcome.add(Retried(retried.changes, {}, retried.kept))
    return waits


def _wait_again(context: Context, sweep: Document, options: RetryOptions, session: Session) -> Retried:
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
        return _withdraw(context, task, session)
    retried = begin_again(context, [barrier], replace(options, changes=Update()), session)
    if retried.refused and task.state != State.CANCELLED:
        raise IllegalTransition({"barrier": str(retried.refused[barrier])})
    return retried


def _withdraw(context: Context, barrier: Task, session: Session) -> Retried:
    """Take back a barrier that has not begun."""
    if has_begun(barrier):
        how = "cancel it, or wait for its end, then retry, or send 'keep' for 'downstream'"
        raise IllegalTransition({"barrier": f"the barrier {barrier.id} is {barrier.state} already; {how}"})
    change = decide(barrier, Revive(), context.now())
    changes = [] if change is None else [(barrier, change)]
    if len(context.storage.tasks.commit(changes, context.now(), session)) != len(changes):
        raise Conflict(f"the barrier {barrier.id} was changed meanwhile; try again")
    return Retried(changes)


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
