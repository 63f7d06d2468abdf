"""Which worker may take which task: tasks with equal needs share a class, and classes are matched, not tasks."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from banyan.domain.resources import CAPABILITY, Resources, capability_text

SHELL = "shell"
"""The capability to run commands."""

CLASS_FIELDS = ("queue", "owner", "model", "requested_resources", "requires")
"""The fields of a task that runs something from which its class follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskClass:
    """What all tasks of a class have in common; `key` is a digest of it."""

    key: str
    queue: str
    owner: str
    capability: str
    resources: Resources
    requires: Mapping[str, str]

    @classmethod
    def of(cls, task: Mapping[str, Any]) -> "TaskClass":
        """The class of a stored task."""
        wanted = task.get("requested_resources") or {"cores": 1}
        if CAPABILITY in wanted:
            wanted = {**wanted, CAPABILITY: capability_text(wanted[CAPABILITY])}
        capability = capability_of(task)
        parts = [task["queue"], task["owner"], capability, wanted, task.get("requires") or {}]
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return cls(
            key=hashlib.sha256(text.encode()).hexdigest()[:20],
            queue=task["queue"],
            owner=task["owner"],
            capability=capability,
            resources=Resources.from_document(wanted),
            requires=dict(task.get("requires") or {}),
        )


def capability_of(task: Mapping[str, Any]) -> str:
    """What a worker must be able to do for this task: `shell`, or `model:NAME`."""
    return f"model:{task['model']}" if task.get("model") is not None else SHELL


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A worker as matching sees it; no queues means all of them."""

    total: Resources
    labels: Mapping[str, str] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset({SHELL})
    queues: frozenset[str] = frozenset()

    @classmethod
    def of(cls, worker: Mapping[str, Any]) -> "Offer":
        """What a stored worker offers."""
        return cls(
            total=Resources.from_document(worker["resources"]),
            labels=worker.get("labels") or {},
            capabilities=frozenset(worker.get("capabilities") or ()),
            queues=frozenset(worker.get("queues") or ()),
        )

    def missing(self, task_class: TaskClass) -> dict[str, tuple[Any, Any]]:
        """Why this worker can never take a task of the class: name to (wanted, there); empty when it can."""
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
        """Whether this worker could take a task of the class if it were idle."""
        return not self.missing(task_class)
