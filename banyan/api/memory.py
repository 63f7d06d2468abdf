"""`POST /memory_usage`: the resource usage of a task, reported by its worker or by its owner's own script."""

from typing import Any

from bson import ObjectId

from banyan.api.bodies import read_body
from banyan.api.context import actor, context
from banyan.api.routes import route
from banyan.api.validation import validated_new
from banyan.domain.roles import Role
from banyan.errors import Forbidden, Invalid
from banyan.queue.register import owned_worker

Document = dict[str, Any]


@route(
    "POST",
    "/memory_usage",
    resource="memory_usage",
    listed=True,
    summary="Store memory samples",
    status=201,
    quiet=True,
)
def add_samples() -> Document:
    """The ids of the stored samples; nothing is stored unless all are right."""
    body = read_body()
    samples = validated_new("memory_usage", body, context().settings.limits.max_list_items)
    tasks = context().storage.tasks.documents({sample["task"] for sample in samples}, ["owner"])
    attempts = context().storage.executions.load({s["execution"] for s in samples if s.get("execution") is not None})
    faults: list[dict[str, object]] = []
    for sample in samples:
        task = tasks.get(sample["task"])
        if task is None or not actor().may_read(task["owner"]):
            faults.append({"task": f"there is no task {sample['task']}"})
            continue
        if actor().role == Role.PROVIDER and task["owner"] != actor().name:
            raise Forbidden(f"task {sample['task']} belongs to {task['owner']!r}; its owner and workers post its usage")
        sample["owner"] = task["owner"]
        faults.append(_fault_of_attempt(sample, attempts))
    if any(faults):
        raise Invalid(items=faults) if isinstance(body, list) else Invalid(faults[0])
    stored = context().storage.memory.add(samples, context().now())
    answers = [{"_status": "OK", **{n: d[n] for n in ("_id", "_etag", "_created", "_updated")}} for d in stored]
    return {"_status": "OK", "_items": answers} if isinstance(body, list) else answers[0]


def _fault_of_attempt(sample: Document, attempts: dict[ObjectId, Document]) -> dict[str, object]:
    """The fault of the attempt that a sample names, if it names one; Forbidden for a worker of another user."""
    execution = sample.get("execution")
    if execution is None:
        return {}
    attempt = attempts.get(execution)
    if attempt is None or attempt["task"] != sample["task"]:
        return {"execution": f"task {sample['task']} has no attempt {execution}"}
    if actor().role == Role.WORKER:
        owned_worker(context(), attempt["worker"], actor())
    return {}
