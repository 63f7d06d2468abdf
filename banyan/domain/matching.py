"""Matching of tasks and workers: tasks with similar needs share a class, and classes are matched first."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from banyan.domain.resources import Resources, rounded_down, rounded_up

SHELL = "shell"
"""The capability to run commands."""

CLASS_FIELDS = ("queue", "owner", "model", "requested_resources", "requires")
"""The fields of a runnable task that determine its class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskClass:
    """The needs that the tasks of a class share; `key` is a digest of them.

    Their requests are similar, not equal: they are the same after rounding up. `resources` are those of the task that
    the class was made from, `least` are the smallest that a task of the class may request.
    """

    key: str
    queue: str
    owner: str
    capability: str
    resources: Resources
    least: Resources
    requires: Mapping[str, str]

    @classmethod
    def of(cls, task: Mapping[str, Any]) -> "TaskClass":
        """The class of a stored task."""
        wanted = task.get("requested_resources") or {"cores": 1}
        capability = capability_of(task)
        resources = Resources.from_document(wanted)
        alike = rounded_up(resources).to_document()
        parts = [task["queue"], task["owner"], capability, alike, task.get("requires") or {}]
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return cls(
            key=hashlib.sha256(text.encode()).hexdigest()[:20],
            queue=task["queue"],
            owner=task["owner"],
            capability=capability,
            resources=resources,
            least=rounded_down(resources),
            requires=dict(task.get("requires") or {}),
        )


def capability_of(task: Mapping[str, Any]) -> str:
    """The capability that a worker needs for this task: `shell`, or `model:NAME`."""
    return f"model:{task['model']}" if task.get("model") is not None else SHELL


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A worker's properties that matter for matching; no queues means all of them."""

    total: Resources
    labels: Mapping[str, str] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset({SHELL})
    queues: frozenset[str] = frozenset()

    @classmethod
    def of(cls, worker: Mapping[str, Any]) -> "Offer":
        """The offer of a stored worker."""
        return cls(
            total=Resources.from_document(worker["resources"]),
            labels=worker.get("labels") or {},
            capabilities=frozenset(worker.get("capabilities") or ()),
            queues=frozenset(worker.get("queues") or ()),
        )

    def missing(self, task_class: TaskClass) -> dict[str, tuple[Any, Any]]:
        """The needs of a class that this worker can never meet: name to (wanted, there); empty if it meets all."""
        lacks = task_class.resources.missing(self.total)
        if self.queues and task_class.queue not in self.queues:
            lacks["queue"] = (task_class.queue, ", ".join(sorted(self.queues)))
        if task_class.capability not in self.capabilities:
            lacks["capability"] = (task_class.capability, ", ".join(sorted(self.capabilities)) or "none")
        for label, value in task_class.requires.items():
            if self.labels.get(label) != value:
                lacks[f"label {label}"] = (value, self.labels.get(label, "none"))
        return lacks

    def accepts(self, task_class: TaskClass) -> bool:
        """Return whether this worker, when idle, could take the smallest possible task of the class."""
        return not self.missing(replace(task_class, resources=task_class.least))
