"""Repair: lost leases, delays that are over, and the remains of interrupted use cases.

It runs in every server and is safe in many at once: each step is a guarded write that another server may have done.
Remains with a mark are found here; `audit` searches for remains without one.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from bson import ObjectId

from banyan.config import Leases
from banyan.domain.task import State
from banyan.domain.transitions import Due
from banyan.queue.apply import apply
from banyan.queue.audit import Audit
from banyan.queue.avoided import try_avoided_again
from banyan.queue.context import Context
from banyan.queue.delete import finish_deletions, remove_remains
from banyan.queue.parts import complete_interrupted
from banyan.queue.quarantine import release_quarantined
from banyan.queue.register import lose_held
from banyan.queue.report import follow, give_back
from banyan.queue.retention import retain
from banyan.queue.settle import promote_ready, settle
from banyan.queue.sweep import finish_interrupted
from banyan.queue.sweep_retry import release_interrupted
from banyan.storage.mongo import translate
from banyan.storage.workers import ALIVE, GONE, LOST

Document = dict[str, Any]

log = logging.getLogger(__name__)

_BATCH = 1000
_LOOKS = 10
"""The number of checks for lost workers within `leases.lost_after`."""


class Rescuer:
    """Three threads: one watches the leases, one wakes tasks every `rescue.interval` seconds, one repairs the rest.

    Leases are watched even while a repair takes long: a gap there counts as an outage.
    """

    def __init__(self, context: Context) -> None:
        self._stop = threading.Event()
        seldom = looking_seconds(context.settings.leases)
        audit = Audit(context)
        self._threads = [
            self._thread("leases", seldom, (partial(expire_leases, context),)),
            self._thread("wake", context.settings.rescue.interval, (partial(wake, context),)),
            self._thread("rescue", seldom, (partial(mend, context), audit.look)),
        ]

    def _thread(self, name: str, seconds: float, steps: Sequence[Callable[[], None]]) -> threading.Thread:
        def run() -> None:
            while not self._stop.wait(seconds):
                for step in steps:
                    _try(name, step)

        return threading.Thread(target=run, name=name, daemon=True)

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads after their current steps."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=10)


def looking_seconds(leases: Leases) -> float:
    """The seconds between two checks for lost workers."""
    return leases.lost_after / _LOOKS


def rescue(context: Context) -> None:
    """Run all due work once."""
    _try("expire_leases", partial(expire_leases, context))
    mend(context)
    _try("wake", partial(wake, context))


def mend(context: Context) -> None:
    """Complete interrupted work; a step that fails is logged and tried again, and delays no other step."""
    for step in (
        complete_reports,
        complete_interrupted,
        release_interrupted,
        finish_interrupted,
        settle_marked,
        promote_marked,
        finish_deletions,
        remove_remains,
        release_quarantined,
        try_avoided_again,
        retain,
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
    """Make tasks claimable whose `not_before` and `retry_at` have passed."""
    tasks = context.storage.tasks.waking(context.now(), _BATCH)
    if tasks:
        applied = apply(context, {task.id: task for task in tasks}, lambda task: _due(task.state))
        settle(context, applied.parents_to_settle())


def _due(state: State) -> Due | None:
    return Due() if state == State.AVAILABLE else None


def expire_leases(context: Context) -> None:
    """End the attempts of workers that were silent for longer than `leases.lost_after` and than their own lease.

    After an outage of all servers or of MongoDB every lease starts anew.
    """
    now = context.now()
    lost_after = timedelta(seconds=context.settings.leases.lost_after)
    since = context.storage.meta.leases_count_from(now, lost_after / 3)
    before = now - lost_after
    if since > before:
        return
    silent = context.storage.workers.silent_since(before, now)
    lost = [each for each in silent if context.storage.workers.move(each, LOST, now, only_silent_since=before)]
    for worker in lost:
        count = lose_held(context, worker)
        context.hub.worker(worker)
        log.warning("worker %s was silent for %g s and is lost; %d attempts are abandoned", worker,
                    lost_after.total_seconds(), count)  # fmt: skip


def complete_reports(context: Context) -> None:
    """Complete reports, claims and losses of workers that were interrupted between their writes."""
    holders = context.storage.tasks.holders()
    workers = context.storage.workers.by_id(holders)
    for holder in holders:
        _try("complete_reports", partial(_complete, context, holder, workers.get(holder)))


def _complete(context: Context, holder: ObjectId, worker: Document | None) -> None:
    now = context.now()
    held = context.storage.tasks.held_by(holder)
    records = context.storage.executions.load(task["execution"] for task in held)
    ended = {id: r for id, r in records.items() if "exit_status" in r and now - r["last_update"] > context.patience}
    if ended:
        follow(context, ended)
    away = _is_away(context, worker, now)
    unrecorded = [task for task in held if task["execution"] not in records]
    interrupted = [task for task in unrecorded if away or now - task["time_claimed"] > context.patience]
    if interrupted:
        give_back(context, {task["execution"]: task["_id"] for task in interrupted})
    if away:
        lose_held(context, holder)


def _is_away(context: Context, worker: Document | None, now: datetime) -> bool:
    """Return whether no more reports can come from a worker; one that left has a lease's time for its spool."""
    if worker is None or worker["state"] in ALIVE:
        return worker is None
    lost_after = timedelta(seconds=context.settings.leases.lost_after)
    left: datetime = worker.get("time_left", now)
    return worker["state"] != GONE or now - left > lost_after


def promote_marked(context: Context) -> None:
    """Check tasks that may be ready after a change of their edges or their hold was interrupted."""
    marked = context.storage.tasks.unpromoted(_BATCH)
    if marked:
        promote_ready(context, marked)


def settle_marked(context: Context) -> None:
    """Repeat settlements that were interrupted."""
    marked = context.storage.tasks.unsettled(_BATCH)
    if marked:
        settle(context, marked, thorough=True)
