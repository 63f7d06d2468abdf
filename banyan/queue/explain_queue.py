"""The reasons why no (more) task runs, with the number of tasks for each, the workers, and remedies."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from bson import ObjectId

from banyan.domain.resources import MILLI
from banyan.domain.task import State
from banyan.queue.actor import Actor
from banyan.queue.avoided import avoided_only
from banyan.queue.context import Context
from banyan.queue.explain_workers import Workers, free_of, takers, unfit
from banyan.queue.reasons import full, reason
from banyan.spelling import unknown
from banyan.storage.waiting import (
    LOOKED_AT,
    best_of_classes,
    count_classes,
    count_inactive,
    count_not_due,
    count_not_ended,
    load_of_workers,
)
from banyan.storage.workers import LOST
from banyan.wire import format_date

Document = dict[str, Any]
Verdict = tuple[tuple[Any, ...], Document]
"""A reason, with the key that similar reasons share."""

MAX_REASONS = 30
MAX_WORKERS = 200
"""The limits on reasons and workers in a response."""
MAX_PAIRS = 100_000
"""The most pairs of a class and a worker that are matched; the tasks of further classes are only counted."""

PASSING = frozenset({"waiting", "next", "dependencies", "not_before", "queue_full"})
"""Reasons that pass without help."""

_LOST_SHOWN = 5
_AVOIDING = 1000
_LONG = timedelta(days=3650)


@dataclass(slots=True)
class _Tally:
    """Reasons with the number of tasks for each; similar ones are merged."""

    reasons: dict[tuple[Any, ...], Document] = field(default_factory=dict)

    def add(self, count: int, verdict: Verdict, example: object = None) -> None:
        """Add so many tasks to a reason."""
        if count > 0:
            key, made = verdict
            found = self.reasons.setdefault(key, {**made, "count": 0})
            found["count"] += count
            if example is not None:
                found.setdefault("example", example)

    def sorted(self) -> list[Document]:
        """Reasons that need help first, then by the number of tasks."""
        return sorted(self.reasons.values(), key=lambda each: (each["reason"] in PASSING, -each["count"]))


def explain_queue(context: Context, asking: Actor | None = None) -> Document:
    """Counts, `reasons` (each with `count`, `message`, `help`, an `example`), the `workers` and a `summary`.

    Where reads are private only the requesting user's own tasks are counted. The cost is one step for each class of
    tasks, and counts are read from indexes, whatever the number of tasks.
    """
    visible: dict[str, str] = {} if asking is None or asking.sees_all else {"owner": asking.name}
    workers, tally = Workers.of(context), _Tally()
    counts = Counter(count_not_ended(context.reader(), visible))
    claimable = _count_claimable(context, workers, visible, tally)
    _count_others(context, visible, counts, claimable, tally)
    reasons = tally.sorted()
    load = load_of_workers(context.reader(), {})
    own = load_of_workers(context.reader(), visible) if visible else load
    waiting = counts[State.AVAILABLE] + counts[State.INACTIVE]
    running, assigned = (sum(each[name] for each in own.values()) for name in ("running", "assigned"))
    return {
        "summary": _summary(waiting, running, assigned, reasons),
        "waiting": waiting,
        "running": running,
        "assigned": assigned,
        "reasons": reasons[:MAX_REASONS],
        "more_reasons": max(0, len(reasons) - MAX_REASONS),
        "workers": list(_shown(context, workers, load)),
        "worker_count": len(workers.active) + len(workers.closed),
    }


def _summary(waiting: int, running: int, assigned: int, reasons: Sequence[Document]) -> str:
    text = {0: "no task waits", 1: "1 task waits"}.get(waiting, f"{waiting} tasks wait")
    text += {0: ", nothing runs", 1: ", 1 runs"}.get(running, f", {running} run")
    text += f", {assigned} more {'is' if assigned == 1 else 'are'} assigned to workers" if assigned else ""
    if not reasons:
        return text
    which = "" if reasons[0]["count"] >= waiting else f"{reasons[0]['count']} of them: "
    return f"{text}; {which}{reasons[0]['message']}"


def _count_claimable(context: Context, workers: Workers, visible: Mapping[str, str], tally: _Tally) -> int:
    """Add the claimable tasks to their reasons, class by class; return their number."""
    reader = context.reader()
    counts = count_classes(reader)
    best = [each for each in best_of_classes(reader) if each["owner"] == visible.get("owner", each["owner"])]
    best.sort(key=lambda each: -counts.get(each["class_key"], 0))
    blocked = _blocked_queues(context, {task["queue"] for task in best})
    avoiding = _avoiding(context, workers)
    known = MAX_PAIRS // max(1, len(workers.active))
    for index, task in enumerate(best):
        count = counts.get(task["class_key"], 0)
        avoided = min(avoiding[task["class_key"]], count)
        tally.add(avoided, _AVOIDED, task["_id"] if avoided == count else None)
        verdict = blocked.get(task["queue"]) or (_verdict(context, workers, task) if index < known else _TOO_MANY)
        tally.add(count - avoided, verdict, task["_id"])
    return sum(counts.get(task["class_key"], 0) for task in best)


_AVOIDED: Verdict = (
    ("avoided",),
    reason(
        "avoided",
        "the workers that could run them have failed them by the machines' own fault, and try them again after a pause",
        help="'banyan explain ID' names what the machine had done; start another worker",
    ),
)
_TOO_MANY: Verdict = (
    ("not_looked_at",),
    reason("not_looked_at", "there are too many classes of tasks to hold them all against the workers"),
)


def _avoiding(context: Context, workers: Workers) -> Counter[str]:
    """The number of tasks of each class that wait because all workers that could take them have failed them."""
    tasks = context.storage.tasks.avoiding(workers.now + _LONG, _AVOIDING)
    return Counter(task["task_class"] for task in tasks if avoided_only(workers.active, task, workers.now))


def _blocked_queues(context: Context, waiting: Set[str]) -> dict[str, Verdict]:
    """The reasons that keep whole queues with waiting tasks, by name."""
    blocked: dict[str, Verdict] = {}
    queues = context.storage.queues.all()
    for name in waiting - queues.keys():
        text = f"their queue {name!r} does not exist any more"
        blocked[name] = (("no_queue", name), reason("no_queue", text, queue=name, help="move them to another one"))
    for name in waiting & queues.keys():
        queue = queues[name]
        limit = queue.get("max_running")
        if queue["paused"]:
            text, what = f"queue {name!r} is paused", f"'banyan queues resume {name}' (an administrator)"
            blocked[name] = (("queue_paused", name), reason("queue_paused", text, queue=name, help=what))
        elif limit is not None and context.storage.tasks.running_in(name) >= limit:
            text = full(name, limit)
            what = f"'banyan queues set {name} --max-running N' (an administrator) lets more run"
            code = "queue_closed" if limit == 0 else "queue_full"
            blocked[name] = ((code, name), reason(code, text, queue=name, limit=limit, help=what))
    return blocked


def _verdict(context: Context, workers: Workers, task: Document) -> Verdict:
    """The reason that keeps the tasks of a class whose queue is open."""
    for first in unfit(context, workers, task, "them"):
        text = first["message"].removesuffix(f"; {first.get('help')}")
        return (first["reason"], first.get("closest"), *sorted(first.get("missing", ()))), {**first, "message": text}
    _, heard, room = takers(workers, {**task, "avoid": ()})  # tasks with avoided workers are counted separately
    if not heard:
        text = "the workers that fit have been silent for longer than a heartbeat"
        return ("silent",), reason("silent", text, help="look after these workers, or start others")
    if room:
        text = "a worker had room for them at its last claim, and takes them with its next one"
        return ("next",), reason("next", text)
    more = "more workers would run more of them at once"
    return ("waiting",), reason("waiting", "all workers that fit are busy", help=more)


def _count_others(
    context: Context, visible: Mapping[str, str], counts: Mapping[str, int], claimable: int, tally: _Tally
) -> None:
    """Count the tasks that are not claimable: not due, held, or waiting for parents."""
    not_due, first = count_not_due(context.reader(), visible)
    if first is not None:
        when = format_date(first["wake_at"])
        text = f"their not_before or the delay of a retry is not over; the first of them may run at {when}"
        tally.add(not_due, (("not_before",), reason("not_before", text, not_before=first["wake_at"])), first["_id"])
    tally.add(counts[State.AVAILABLE] - claimable - not_due, _HELD)
    looked_at = 0
    for group in count_inactive(context.reader(), visible):
        verdict = _DEPENDENCIES if group["waits"] else _HELD if group["hold"] else _INACTIVE
        tally.add(group["count"], verdict, group["example"])
        looked_at += group["count"]
    tally.add(counts[State.INACTIVE] - looked_at if looked_at >= LOOKED_AT else 0, _MORE_INACTIVE)


_HELD: Verdict = (("held",), reason("held", "they are held", help="`banyan release ID` lets one go on"))
_INACTIVE: Verdict = (
    ("inactive",),
    reason(
        "inactive",
        "they are inactive, and wait for no parent",
        help="set their state to available when they are complete",
    ),
)
_DEPENDENCIES: Verdict = (
    ("dependencies",),
    reason(
        "dependencies",
        "they wait for other tasks to end",
        help="'banyan explain ID' of one of them names the task that comes before all others, and what keeps that",
    ),
)
_MORE_INACTIVE: Verdict = (
    ("not_looked_at", "inactive"),
    reason("not_looked_at", f"they are inactive; only {LOOKED_AT} were looked at for what they wait for"),
)


def _shown(context: Context, workers: Workers, load: Mapping[ObjectId, Document]) -> Iterator[Document]:
    """The living workers, and those that were lost in the last day, with their resources and tasks."""
    queues = context.storage.queues.names()
    since = workers.now - timedelta(days=1)
    alive = [*workers.active, *workers.closed]
    again = {(worker["name"], worker["host"]) for worker in alive}
    lost = [
        worker
        for worker in context.storage.workers.latest_lost(_LOST_SHOWN)
        if worker["last_seen"] > since and (worker["name"], worker["host"]) not in again
    ]
    for worker in [*alive, *(each for each in lost if each["state"] == LOST or not alive)][:MAX_WORKERS]:
        total, free = worker["resources"].get("cores", 0), max(0, free_of(worker).millicores) / MILLI
        shown: Document = {name: worker[name] for name in ("_id", "name", "host", "state", "last_seen")}
        shown["cores"] = {"total": total, "used": max(0, round(total - free, 3)), "free": min(total, free)}
        if worker in lost:
            shown["cores"] = {"total": total, "used": 0, "free": 0}
        shown |= load.get(worker["_id"], {"running": 0, "assigned": 0})
        shown["silent"] = worker in lost or workers.silent(worker)
        missing = [name for name in worker.get("queues") or () if name not in queues]
        if missing:
            shown["note"] = f"it serves a queue that is not there: {unknown('queue', missing[0], queues)}"
        yield shown
