"""All that happened in a queue, as it was stored and as its tasks and clients saw it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

Document = Mapping[str, Any]

SKEW = timedelta(milliseconds=250)
"""By how much two server processes may see MongoDB's clock differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A line that an attempt wrote outside, by the machine's clock: `what` is `begin` or `end`."""

    execution: str
    what: str
    time: float


@dataclass(frozen=True, kw_only=True)
class History:
    """All there is to know when everything has ended. Ids are those of the documents.

    `submitted` are the tasks of which a client was told that they are accepted, `told` what it was told of ends
    (state, exit status), `retried` when it last asked for a task to run again.
    """

    tasks: Sequence[Document]
    edges: Sequence[Document]
    attempts: Sequence[Document]
    submitted: Iterable[Any]
    effects: Sequence[Effect] = ()
    told: Mapping[Any, tuple[str, str]] = field(default_factory=dict)
    retried: Mapping[Any, datetime] = field(default_factory=dict)
    statistics: Document = field(default_factory=dict)

    @cached_property
    def by_id(self) -> dict[Any, Document]:
        """Tasks by id."""
        return {task["_id"]: task for task in self.tasks}

    @cached_property
    def of_task(self) -> dict[Any, list[Document]]:
        """The attempts of each task in their order."""
        found: dict[Any, list[Document]] = {task["_id"]: [] for task in self.tasks}
        for attempt in sorted(self.attempts, key=lambda each: each["attempt"]):
            found.setdefault(attempt["task"], []).append(attempt)
        return found

    @cached_property
    def of_execution(self) -> dict[str, list[Effect]]:
        """The effects of each attempt, by its id as text, in the order of their times."""
        found: dict[str, list[Effect]] = {}
        for effect in sorted(self.effects, key=lambda each: each.time):
            found.setdefault(effect.execution, []).append(effect)
        return found

    def life(self, task: Document) -> list[Document]:
        """The attempts of a task since it was last retried by hand."""
        since = self.retried.get(task["_id"])
        attempts = self.of_task[task["_id"]]
        return attempts if since is None else [a for a in attempts if a["time_claimed"] >= since - SKEW]

    def counting(self, task: Document) -> Document | None:
        """The attempt that counts."""
        return next((a for a in self.of_task[task["_id"]] if a["_id"] == task.get("execution")), None)

    @cached_property
    def begun_anew(self) -> set[Any]:
        """Tasks that a retry by hand may have brought back: those and all below them."""
        found, frontier = set(self.retried), set(self.retried)
        while frontier:
            frontier = {edge["child"] for edge in self.edges if edge["parent"] in frontier} - found
            found |= frontier
        return found
