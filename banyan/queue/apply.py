"""Decisions about tasks and their writes, with the consequences: wake-ups and settled continuations."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bson import ObjectId

from banyan.domain.task import Task
from banyan.domain.transitions import Change, Event, decide
from banyan.errors import BanyanError, Conflict, IllegalTransition, StaleAttempt
from banyan.queue.context import Context
from banyan.storage.mongo import Session

_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class Applied:
    """The results for the tasks that an event was applied to; unchanged tasks are in neither."""

    changed: dict[ObjectId, tuple[Task, Change]] = field(default_factory=dict)
    refused: dict[ObjectId, BanyanError] = field(default_factory=dict)

    def parents_to_settle(self) -> list[ObjectId]:
        """Tasks that have just ended and have continuations."""
        return [id for id, (task, change) in self.changed.items() if change.ended and task.has_continuations]


def apply(
    context: Context,
    tasks: Mapping[ObjectId, Task],
    event_of: Callable[[Task], Event | None],
    dressed: Callable[[Task, Change], Change] = lambda task, change: change,
) -> Applied:
    """Decide for each task and write the change; a task that changed meanwhile is read and decided again.

    `event_of` returns the event for a task as it is now, or None to leave it; `dressed` may add fields to a change.
    Tasks that become claimable are announced; the caller must settle ended parents.
    """
    return _apply(context, tasks, event_of, dressed, context.storage.tasks.load)


def apply_in_order(
    context: Context,
    ids: Sequence[ObjectId],
    event_of: Callable[[Task], Event | None],
    dressed: Callable[[Task, Change], Change],
    read: Callable[[Mapping[ObjectId, Task], Session], None],
) -> Applied:
    """Apply events whose decisions rest on more than the task, which `read(tasks, session)` reads with the session.

    It is always read after the tasks, and never older than they are, so that their revisions guard it.
    """
    with context.storage.in_order() as session:

        def load(ids: Sequence[ObjectId]) -> dict[ObjectId, Task]:
            tasks = context.storage.tasks.load(ids, session)
            read(tasks, session)
            return tasks

        return _apply(context, load(ids), event_of, dressed, load)


def _apply(
    context: Context,
    tasks: Mapping[ObjectId, Task],
    event_of: Callable[[Task], Event | None],
    dressed: Callable[[Task, Change], Change],
    load: Callable[[Sequence[ObjectId]], Mapping[ObjectId, Task]],
) -> Applied:
    applied = Applied()
    for _ in range(_ROUNDS):
        changes = [
            (task, dressed(task, change)) for task, change in _decided(context, tasks, event_of, applied.refused)
        ]
        written = context.storage.tasks.commit(changes, context.now())
        applied.changed.update({task.id: (task, change) for task, change in changes if task.id in written})
        lost = [task.id for task, _ in changes if task.id not in written]
        if not lost:
            announce(context, applied.changed.values())
            return applied
        tasks = load(lost)
    raise Conflict("the tasks were changed by others again and again; try later")


def _decided(
    context: Context,
    tasks: Mapping[ObjectId, Task],
    event_of: Callable[[Task], Event | None],
    refused: dict[ObjectId, BanyanError],
) -> list[tuple[Task, Change]]:
    now = context.now()
    changes = []
    for task in tasks.values():
        try:
            event = event_of(task)
            change = None if event is None else decide(task, event, now)
        except (IllegalTransition, StaleAttempt) as error:
            refused[task.id] = error
            continue
        if change is not None:
            changes.append((task, change))
    return changes


def announce(context: Context, changes: Iterable[tuple[Task, Change]]) -> None:
    """Wake claims that could take the tasks that became claimable."""
    claimable = [task for task, change in changes if change.claimable]
    best: dict[str, float] = {}
    for task in claimable:
        best[task.task_class] = max(best.get(task.task_class, task.priority), task.priority)
    context.hub.work(Counter(task.task_class for task in claimable), best)
