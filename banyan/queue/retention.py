"""Removal of old data after the times in the settings: tasks, their histories, files, memory samples, sweeps.

Nothing is removed of a task that has not ended, and only samples of a task whose children have not all ended: they may
read its result, and so may their next attempts. It is done in batches; an interrupted batch is repeated, and a second
server that does the same does no harm.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bson import ObjectId

from banyan.queue.context import Context
from banyan.queue.delete import delete, doom_files, remove_remains
from banyan.storage.mongo import Session
from banyan.storage.retention import Place

_BATCH = 500
_SWEEPS = 50
_LEAST, _MOST = timedelta(seconds=1), timedelta(hours=1)
"""The shortest and the longest time after which a task whose data had to stay is checked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """The tasks to check: data of tasks that ended at `until` at the latest may be removed."""

    tasks: Sequence[ObjectId]
    until: datetime

    def sorted_out(self, context: Context) -> tuple[list[ObjectId], list[ObjectId]]:
        """The tasks that are due, and those that ended too recently; the others have not ended, or are gone."""
        ended = context.storage.retention.ended(self.tasks)
        ripe = [task for task, when in ended.items() if when <= self.until]
        return ripe, [task for task, when in ended.items() if when > self.until]


def retain(context: Context) -> None:
    """Remove data of tasks that ended long enough ago: one batch of each kind in each turn."""
    settings = context.settings.retention
    now = context.now()
    ages = {kind: timedelta(seconds=getattr(settings, kind)) for kind in _LEAVE if getattr(settings, kind)}
    pause = timedelta(seconds=context.settings.leases.lost_after / 10)
    if not ages or not context.storage.retention.take_turn(now, pause):
        return
    for kind, age in ages.items():
        walk(context, kind, now, age)
    if "tasks" in ages:
        remove_empty_sweeps(context, now - ages["tasks"])


def walk(context: Context, kind: str, now: datetime, age: timedelta, batch: int = _BATCH) -> None:
    """Advance the walk of one kind by a batch, and check as many postponed tasks again."""
    store = context.storage.retention
    if kind != "memory_usage" and context.storage.parts.any_pending():
        return  # edges to children that do not exist yet are invisible
    place, until = store.place(kind), now - age
    fresh = store.ended_after(place, until, batch)
    again = store.due(kind, now, batch)
    look = _Look(tasks=list(dict.fromkeys([*again, *(each.task for each in fresh)])), until=until)
    stayed = _LEAVE[kind](context, look) if look.tasks else []
    store.postpone(kind, stayed, now + min(max(age / 10, _LEAST), _MOST))
    store.done(kind, set(again) - set(stayed))
    if fresh:
        store.advance(kind, place, fresh[-1])


def _tasks(context: Context, look: _Look) -> list[ObjectId]:
    """Delete whole tasks; return the tasks that stay for now."""
    ripe, later = look.sorted_out(context)
    needed = context.storage.retention.needed(ripe)
    gone = set(delete(context, [task for task in ripe if task not in needed], ended_until=look.until))
    return [*later, *(task for task in ripe if task not in gone)]


def _files(context: Context, look: _Look) -> list[ObjectId]:
    return _leave(context, look, records=False)


def _history(context: Context, look: _Look) -> list[ObjectId]:
    return _leave(context, look, records=True)


def _leave(context: Context, look: _Look, *, records: bool) -> list[ObjectId]:
    """Delete the files of attempts, here and at their workers, and with `records` their records.

    Returns the tasks that stay for now.
    """
    storage = context.storage
    ripe, later = look.sorted_out(context)
    needed = storage.retention.needed(ripe)
    going = [task for task in ripe if task not in needed]

    def write(session: Session) -> None:
        last = storage.retention.hold(going, look.until, session, records=records)
        take = storage.executions.delete_of if records else storage.executions.of_tasks
        doom_files(context, take(list(last), session), last, session)

    if going:
        storage.transaction(write)
        remove_remains(context)
    return [*later, *needed]


def _memory_usage(context: Context, look: _Look) -> list[ObjectId]:
    before = context.now()  # samples of a life that begins from here on are younger
    ripe, later = look.sorted_out(context)
    context.storage.memory.delete_of(ripe, before)
    return later


def remove_empty_sweeps(context: Context, until: datetime) -> None:
    """Delete some of the sweeps that were created before `until` and have no task any more."""
    store = context.storage.retention
    place = store.place("sweeps")
    sweeps = store.sweeps_after(place.task, until, _SWEEPS)
    pending = context.storage.parts.pending([sweep["_id"] for sweep in sweeps])  # read before their tasks
    for sweep in sweeps:
        if sweep["_id"] not in pending and store.is_empty(sweep):
            context.storage.sweeps.delete(sweep["_id"])
    further = Place(task=sweeps[-1]["_id"]) if len(sweeps) == _SWEEPS else Place()  # then again from the first one
    store.advance("sweeps", place, further)


_LEAVE: dict[str, Callable[[Context, _Look], list[ObjectId]]] = {
    "memory_usage": _memory_usage,
    "files": _files,
    "history": _history,
    "tasks": _tasks,
}
