"""Sweeps as one unit: their tasks are created, cancelled and deleted together; `sweep_retry` retries them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId

from banyan.domain.continuations import ON_ANY
from banyan.domain.sweeps import Command, Point, Template, spread
from banyan.domain.task import ENDED, State
from banyan.errors import Conflict, IllegalTransition, Invalid, NotFound, PreconditionFailed, TooLarge
from banyan.queue import cancel as cancelling
from banyan.queue.actor import Actor
from banyan.queue.context import Context
from banyan.queue.delete import delete
from banyan.queue.parts import complete
from banyan.queue.settle import settle
from banyan.queue.submit import check_bytes, submit
from banyan.storage.mongo import Session
from banyan.storage.tasks import new_revision

Document = dict[str, Any]

CHECKED = 8
"""The number of points in the posting check: the first, the last, and others between them."""

SWEEP_VARIABLE = "BANYAN_SWEEP_ID"
"""The environment variable with the id of its sweep for a barrier, as for the points."""

_MANY = 10
_WAITING = [State.INACTIVE, State.AVAILABLE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A sweep as it was requested, checked."""

    kept: Document
    """The part of the request that the sweep's own document shows."""
    shared: Document
    """A validated task: the fields that all points share."""
    template: Command | None
    inputs: Point
    """Inputs that all points have; their own inputs override them."""
    points: Sequence[Point]
    names: Sequence[str]
    """The names of all inputs."""
    barrier: Document | None = None
    """A validated task that waits for all points."""
    check_command: Callable[[object], Iterable[str]] = lambda command: ()
    """Returns the faults of a command."""


def make(
    context: Context,
    plan: Plan,
    actor: Actor,
    record: Callable[[Session | None, list[Document]], None] | None = None,
) -> Document:
    """Create the sweep with all its tasks, or nothing; return its document.

    `record(session, [document])` is called in the transaction that decides it. Raises `Invalid` naming the points that
    are wrong, `TooLarge` when they are too large together.
    """
    id = ObjectId()
    tasks = _tasks(context, plan, id)
    count = len(tasks)
    document = _document(plan, id, count, actor, context.now())
    if plan.barrier is not None:
        barrier = _barrier(plan.barrier, id, tasks)
        document["barrier"] = barrier["_id"]
        tasks.append(barrier)

    def write(session: Session | None, answers: list[Document]) -> None:
        context.storage.sweeps.insert(document, session)
        if record is not None:
            record(session, [document])

    checked = {*spread(count, CHECKED), len(tasks) - 1}
    try:
        submit(context, tasks, actor, write, check=checked, unit=id)
    except Invalid as error:
        if error.items is None:
            raise
        raise Invalid(_by_point(error.items, count)) from error
    return document


def _tasks(context: Context, plan: Plan, sweep: ObjectId) -> list[Document]:
    title = plan.kept.get("name") or plan.kept.get("model")
    common = {name: value for name, value in plan.shared.items() if name not in ("command", "inputs")}
    points = [{**plan.inputs, **point} for point in plan.points]
    commands = _commands(context, plan, points)
    tasks = []
    for index, inputs in enumerate(points):
        task = {**common, "_id": ObjectId(), "sweep": sweep, "index": index, "inputs": inputs}
        if title:
            task["name"] = f"{title}[{index}]"
        if commands:
            task["command"] = commands[index]
        tasks.append(task)
    return tasks


def _commands(context: Context, plan: Plan, points: Sequence[Point]) -> list[Command]:
    """The command of each point; none for a model."""
    if plan.template is None:
        return []
    template = Template(plan.template, plan.names)
    limit = context.settings.limits.max_submission_bytes
    commands: list[Command] = []
    faults: list[Document] = []
    size = 0
    for index, inputs in enumerate(points):
        command, reasons = _command(plan, template, inputs, index)
        commands.append(command)
        faults.append({"command": reasons} if reasons else {})
        size += len(command) if isinstance(command, str) else sum(map(len, command))
        if size > limit:
            raise TooLarge(f"the commands are longer than {limit} bytes together (limits.max_submission_bytes)")
    if any(faults):
        raise Invalid(_by_point(faults, len(faults)))
    return commands


def _command(plan: Plan, template: Template, inputs: Point, index: int) -> tuple[Command, str]:
    try:
        command = template.fill(inputs, index)
    except ValueError as error:
        return "", str(error)
    return command, ", ".join(plan.check_command(command))


def _document(plan: Plan, id: ObjectId, count: int, actor: Actor, now: datetime) -> Document:
    document = {**plan.kept, "_id": id, "count": count, "input_names": list(plan.names), "owner": actor.name}
    document |= {"_created": now, "_updated": now, "_etag": new_revision()}
    check_bytes(document, "the sweep's own document has")
    return document


def _barrier(barrier: Document, sweep: ObjectId, points: Sequence[Document]) -> Document:
    waits = [{"task": point["_id"], "on": ON_ANY} for point in points]
    task = {"_id": ObjectId(), **barrier, "dependencies": [*(barrier.get("dependencies") or ()), *waits]}
    if task.get("command") is not None or task.get("model") is not None:
        task["env"] = {SWEEP_VARIABLE: str(sweep), **(task.get("env") or {})}
    return task


def _by_point(items: Sequence[Mapping[str, object]], count: int) -> Document:
    """The faults of tasks as those of a sweep: shared ones, the first of those that differ, the barrier's."""
    points, others = items[:count], items[count:]
    issues: Document = {"barrier": dict(others[0])} if any(others) else {}
    if all(each == points[0] for each in points):
        return {**points[0], **issues}
    faulty = {str(index): dict(each) for index, each in enumerate(points) if each}
    if faulty:
        issues["points"] = dict(list(faulty.items())[:_MANY])
        if len(faulty) > _MANY:
            issues["points"]["more"] = f"{len(faulty) - _MANY} other points have faults, too"
    return issues


def owned_sweep(context: Context, sweep: ObjectId, actor: Actor, revision: str | None = None) -> Document:
    """The stored sweep, if the actor may change it; raises `NotFound`, `Forbidden`, `PreconditionFailed`."""
    document = context.storage.sweeps.load(sweep)
    if document is None:
        raise NotFound(f"there is no sweep {sweep}")
    actor.must_own(document["owner"], f"sweep {sweep}")
    if revision is not None and document["_etag"] != revision:
        raise PreconditionFailed(f"sweep {sweep} is at revision {document['_etag']}; read it again")
    return document


def cancel(context: Context, sweep: Document, cause: Document) -> int:
    """Cancel all of a sweep's tasks, its barrier first; return the number of points that this changed."""
    context.storage.sweeps.begin_work(sweep["_id"], {"act": "cancel", "cause": cause}, context.now())
    complete(context, sweep["_id"])
    if "barrier" in sweep:
        cancelling.cancel(context, [sweep["barrier"]], cause)
    cancelled = 0
    for states in (_WAITING, [*_WAITING, State.RUNNING]):  # waiting tasks first, so that no worker begins them
        for batch in context.storage.sweeps.batches(sweep["_id"], {"state": {"$in": states}}):
            cancelled += len(cancelling.cancel(context, batch, cause).changed)
    context.storage.sweeps.end_work(sweep["_id"])
    return cancelled


def delete_sweep(context: Context, sweep: Document) -> int:
    """Delete a sweep that has ended with its tasks and all their data; return the number of points.

    It is done in batches. Raises `IllegalTransition` while a task has not ended, and `Conflict` when one begins again
    meanwhile.
    """
    id = sweep["_id"]
    complete(context, id)
    barrier = [sweep["barrier"]] if "barrier" in sweep else []
    going_on = context.storage.sweeps.count(id, {"state": {"$nin": list(ENDED)}})
    going_on += sum(not task.ended for task in context.storage.tasks.load(barrier).values())
    if going_on:
        raise IllegalTransition({"state": f"{going_on} of its tasks have not ended; cancel the sweep first"})
    context.storage.sweeps.begin_work(id, {"act": "delete"}, context.now())
    gone = sum(_delete(context, batch) for batch in context.storage.sweeps.batches(id, {}))
    _delete(context, barrier)
    if left := context.storage.sweeps.count(id, {}) + len(context.storage.tasks.load(barrier)):
        context.storage.sweeps.end_work(id)
        raise Conflict(f"{left} tasks of sweep {id} were begun anew meanwhile; try again when they have ended")
    context.storage.sweeps.delete(id)
    return gone


def _delete(context: Context, batch: Sequence[ObjectId]) -> int:
    tasks = context.storage.tasks.load(batch)
    settle(context, [task.id for task in tasks.values() if task.unsettled and task.ended], thorough=True)
    return len(delete(context, list(tasks))) if tasks else 0


def finish_interrupted(context: Context) -> None:
    """Complete the cancellations and deletions of sweeps that were interrupted."""
    for sweep in context.storage.sweeps.interrupted_work(context.now() - 2 * context.patience):
        if sweep["doing"]["act"] == "cancel":
            cancel(context, sweep, sweep["doing"]["cause"])
            continue
        try:
            delete_sweep(context, sweep)
        except (IllegalTransition, Conflict):  # one of its tasks began again meanwhile
            context.storage.sweeps.end_work(sweep["_id"])
