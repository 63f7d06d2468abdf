"""What mends itself: lost leases, delays that are over, settlements and reports that were interrupted.

Runs in every server and is safe in many at once: each step is a guarded write that someone else may have done.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from bson import ObjectId

from banyan.domain.task import State
from banyan.domain.transitions import Due
from banyan.queue.apply import apply
from banyan.queue.context import Context
from banyan.queue.delete import remove_remains
from banyan.queue.parts import complete_interrupted
from banyan.queue.register import lose_held
from banyan.queue.report import follow, give_back
from banyan.queue.settle import promote_ready, settle
from banyan.queue.sweep_retry import release_interrupted
from banyan.storage.mongo import translate
from banyan.storage.workers import ALIVE, LOST

Document = dict[str, Any]

log = logging.getLogger(__name__)

_BATCH = 1000
_GRACE = timedelta(seconds=30)


class Rescuer:
    """A thread that wakes tasks every `rescue.interval` seconds, and looks after leases and remains less often."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rescue", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the step that is under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        interval = self._context.settings.rescue.interval
        seldom = max(interval, self._context.settings.leases.lost_after / 10)
        last = float("-inf")
        while not self._stop.wait(interval):
            if time.monotonic() - last >= seldom:
                rescue(self._context)
                last = time.monotonic()
            else:
                _try("wake", lambda: wake(self._context))


def rescue(context: Context) -> None:
    """Do once all that is due; a step that fails is logged and tried again, and keeps no other one waiting."""
    for step in (
        expire_leases,
        complete_reports,
        complete_interrupted,
        release_interrupted,
        settle_marked,
        promote_marked,
        remove_remains,
        wake,
    ):
        _try(step.__name__, partial(step, context))


def _try(name: str, step: Callable[[], None]) -> None:
    try:
        step()
    except Exception as error:
        known = translate(error)
        if known is None:
            log.exception("rescue: %s failed; it is tried again", name)
        else:
            log.warning("rescue: %s waits: %s", name, known)


def wake(context: Context) -> None:
    """Make tasks claimable whose `not_before` has passed."""
    tasks = context.storage.tasks.waking(context.now(), _BATCH)
    if tasks:
        applied = apply(context, {task.id: task for task in tasks}, lambda task: _due(task.state))
        settle(context, applied.parents_to_settle())


def _due(state: State) -> Due | None:
    return Due() if state == State.AVAILABLE else None


def expire_leases(context: Context) -> None:
    """End what workers hold that were silent for longer than `leases.lost_after`.

    After an outage of all servers or of MongoDB every lease starts anew.
    """
    now = context.now()
    lost_after = timedelta(seconds=context.settings.leases.lost_after)
    since = context.storage.meta.leases_count_from(now, lost_after / 3)
    before = now - lost_after
    if since > before:
        return
    for worker in context.storage.workers.silent_since(before):
        if context.storage.workers.move(worker, LOST, now, only_silent_since=before):
            count = lose_held(context, worker)
            log.warning("worker %s was silent for %s s and is lost; %d attempts are abandoned", worker,
                        int(lost_after.total_seconds()), count)  # fmt: skip


def complete_reports(context: Context) -> None:
    """Finish what was interrupted between the writes of a report, a claim or the loss of a worker."""
    holders = context.storage.tasks.holders()
    workers = context.storage.workers.by_id(holders)
    for holder in holders:
        _try("complete_reports", partial(_complete, context, holder, workers.get(holder)))


def _complete(context: Context, holder: ObjectId, worker: Document | None) -> None:
    now = context.now()
    lost_after = timedelta(seconds=context.settings.leases.lost_after)
    held = context.storage.tasks.held_by(holder)
    records = context.storage.executions.load(task["execution"] for task in held)
    ended = {id: r for id, r in records.items() if "exit_status" in r and now - r["last_update"] > _GRACE}
    if ended:
        follow(context, ended)
    alive = worker is not None and worker["state"] in ALIVE
    if not alive and (worker is None or now - worker.get("time_left", now) > lost_after):
        lose_held(context, holder)
        give_back(context, {task["execution"]: task["_id"] for task in held if task["execution"] not in records})


def promote_marked(context: Context) -> None:
    """Look at tasks that may be ready, where whoever changed their edges or their hold did not come to it."""
    marked = context.storage.tasks.unpromoted(_BATCH)
    if marked:
        promote_ready(context, marked)


def settle_marked(context: Context) -> None:
    """Repeat settlements that were interrupted."""
    marked = context.storage.tasks.unsettled(_BATCH)
    if marked:
        settle(context, marked, thorough=True)
