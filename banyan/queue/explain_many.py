"""The first reason of each of many waiting tasks, as `explain` has it, without a count of what comes before."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from banyan.domain.task import ENDED, LIVE, State
from banyan.queue.context import Context
from banyan.queue.explain import dates, held, in_queue, inactive
from banyan.queue.explain_workers import Workers, avoided, silent, takers, unfit
from banyan.queue.reasons import reason

Document = dict[str, Any]

NEEDED = (
    "state hold pending_dependency_count queue owner model command requested_resources requires timeout not_before "
    "retry_at class_key avoid avoid_until directory"
).split()
"""The fields of a task that its first reason follows from."""

_NEEDS = ("class_key", "directory", "timeout", "requested_resources")
"""A class only rounds the amounts, which therefore count themselves."""


class FirstReasons:
    """The first reasons of waiting tasks; facts that many of them share are read once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._workers = Workers.of(context)
        self._of_queue: dict[str, list[Document]] = {}
        self._of_needs: dict[str, Document] = {}

    def of(self, tasks: Iterable[Mapping[str, Any]]) -> list[Document]:
        """`_id` and the first reason of each task that waits for something; nothing for one that runs or has ended."""
        return [
            {"_id": task["_id"], **self._first(dict(task))}
            for task in tasks
            if State(task["state"]) not in ENDED | LIVE
        ]

    def _first(self, task: Document) -> Document:
        if task.get("hold"):
            return held(task)
        if pending := task.get("pending_dependency_count"):
            return reason("dependencies", f"it waits for {pending} parents", count=pending)
        if task["state"] == State.INACTIVE:
            return inactive()
        for kept in (*dates(task, self._workers.now), *self._queue(task)):
            return kept
        return self._worker(task)

    def _queue(self, task: Document) -> Sequence[Document]:
        name = task["queue"]
        if name not in self._of_queue:
            self._of_queue[name] = list(in_queue(self._context, task))
        return self._of_queue[name]

    def _worker(self, task: Document) -> Document:
        """The reason why no worker takes it; the same for tasks with the same needs unless a worker failed one."""
        if "class_key" not in task or task.get("avoid"):
            return self._why(task)
        key = repr([task.get(name) for name in _NEEDS])
        if key not in self._of_needs:
            self._of_needs[key] = self._why(task)
        return self._of_needs[key]

    def _why(self, task: Document) -> Document:
        for each in unfit(self._context, self._workers, task):
            return each
        able, heard, room = takers(self._workers, task)
        if not able:
            return avoided(self._context, self._workers, task)
        if not heard:
            return silent(self._workers, able, self._context.settings.leases.lost_after)
        if room:
            return reason("waiting", "a worker that fits had room at its last claim; its turn comes")
        return reason("busy", "the workers that fit are busy")
