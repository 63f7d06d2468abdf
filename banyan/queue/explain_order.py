"""The number of tasks that start before a task: those of its queue that come first and that its workers could run."""

from collections.abc import Mapping, Sequence
from typing import Any

from banyan.domain.matching import Offer, TaskClass
from banyan.queue.context import Context
from banyan.storage.waiting import best_of_classes, count_before

Document = dict[str, Any]

MOST = 10_000
"""The largest number that is counted."""

_MOST_CLASSES = 5_000


def tasks_before(context: Context, task: Mapping[str, Any], able: Sequence[Document]) -> tuple[int, bool]:
    """The number of tasks that the able workers take before it, and whether the true number is larger."""
    reader = context.reader()
    best = [each for each in best_of_classes(reader) if each["queue"] == task["queue"]]
    keys = [each["class_key"] for each in best[:_MOST_CLASSES] if _could_take(able, each)]
    workers = [worker["_id"] for worker in able]
    count = count_before(reader, task, keys, workers, MOST + 1, _seconds_left(context, able))
    return min(count, MOST), count > MOST


def _could_take(able: Sequence[Document], best: Document) -> bool:
    task_class = TaskClass.of(best)
    return any(not Offer.of(worker).missing(task_class) for worker in able)


def _seconds_left(context: Context, able: Sequence[Document]) -> float | None:
    """The longest remaining time of any of the workers; None if one of them stays."""
    ends = [worker.get("available_until") for worker in able]
    if None in ends:
        return None
    return float(max((end - context.now()).total_seconds() for end in ends if end is not None))
