"""`/tasks`: post, change, delete. Reading is Eve's; cancellation and retry are in `steering`."""

from collections.abc import Callable, Sequence
from typing import Any

from bson import ObjectId
from flask import request

from banyan.api import audit, idempotency
from banyan.api.attempts import write_execution_data
from banyan.api.bodies import read_body, read_object
from banyan.api.context import actor, context
from banyan.api.data import both, reader, visible
from banyan.api.faults import shortened
from banyan.api.query import parse_where
from banyan.api.queues import if_match
from banyan.api.routes import ADMIN, ANYONE, PROVIDER, WORKER, route
from banyan.api.schema.kinds import Rules, identifier, identifiers
from banyan.api.validation import check_count, check_task, validated, validated_changes, validated_new
from banyan.errors import BadRequest, BanyanError, Conflict, Forbidden, IllegalTransition, Invalid, NotFound
from banyan.queue import cancel as cancelling
from banyan.queue.delete import delete
from banyan.queue.recall import WAIT_SECONDS
from banyan.queue.submit import submit
from banyan.queue.update import ALWAYS, Update, existing, owned, take_back_for_edit, update

Document = dict[str, Any]

STEERS = (PROVIDER, ADMIN)
_ANSWERED = ("_id", "_etag", "_created", "_updated", "state")
_BATCH = 1000
_EDITED = 200
"""The number of tasks that are recalled from their workers together, to be edited one by one."""
_EDITS = 3
"""The number of tries for an item whose task was granted to a worker meanwhile."""
_STEERING = ("state", "hold", "priority", "queue")

_ITEM: dict[str, Rules] = {"_id": identifier(required=True)}
_EDGES: dict[str, Rules] = {"add": identifiers(), "remove": identifiers()}


def shown(task: Document) -> Document:
    """The fields of a task in the response to a change."""
    return {"_status": "OK", **{name: task[name] for name in _ANSWERED}}


@route("POST", "/tasks", roles=STEERS, resource="tasks", listed=True, summary="Submit one task or a list", status=201)
def add_tasks() -> Document:
    """The new tasks' ids and states; a list is accepted whole or not at all."""
    body = read_body()
    tasks = validated_new("tasks", body, context().settings.limits.max_list_items)

    def answered(results: list[Document]) -> Document:
        items = [{"_status": "OK", **result} for result in results]
        return {"_status": "OK", "_items": items} if isinstance(body, list) else items[0]

    try:
        return answered(submit(context(), tasks, actor(), idempotency.recorder(201, answered)))
    except Invalid as error:
        if isinstance(body, list) and error.items is None:
            raise Invalid(items=[error.issues] + [{} for _ in tasks[1:]]) from error
        raise


def wanted(body: Document) -> Update:
    """The checked body of a PATCH."""
    edges = validated(_EDGES, {name: body.get(f"{name}_continuations") or [] for name in _EDGES})
    plain = {n: v for n, v in body.items() if n not in ("add_continuations", "remove_continuations")}
    fields = validated_changes("tasks", plain)
    if "dependencies" in fields:
        raise Invalid({"dependencies": "they are set at creation; change the parents' continuations instead"})
    if "input_refs" in fields:
        raise Invalid({"input_refs": "they are set at creation, as dependencies are; post the task anew"})
    state = fields.pop("state", None)
    continuations = fields.pop("continuations", None)
    if continuations is not None and (edges["add"] or edges["remove"]):
        raise Invalid({"continuations": "replace them, or add and remove some, but not both at once"})
    return Update(
        fields=fields,
        state=state,
        continuations=continuations,
        add=edges["add"],
        remove=edges["remove"],
        check=check_task,
    )


def change(
    task_id: ObjectId, body: Document, revision: str | None = None, wait_seconds: float = WAIT_SECONDS
) -> Document:
    """Make the changes of one PATCH: a worker's by the attempt token, a provider's by ownership.

    `wait_seconds` is the time for a worker that holds the task without having begun it to give it back.
    """
    if "update_execution_data" in body:
        return write_execution_data(task_id, body)
    asked = wanted(body)
    if actor().role == WORKER:
        raise Forbidden("a worker changes a task by update_execution_data with its attempt's token")
    return shown(update(context(), task_id, asked, actor(), revision, wait_seconds))


@route("PATCH", "/tasks/<objectid:task_id>", roles=ANYONE, resource="tasks", summary="Change a task", told=_STEERING)
def change_task(task_id: ObjectId) -> Document:
    """The task's new revision and state."""
    return change(task_id, read_object(), if_match())


@route(
    "PATCH",
    "/tasks",
    roles=STEERS,
    resource="tasks",
    listed=True,
    summary="Change many tasks: a list of changes with `_id`s, or one change for all that match `where`",
    query={"where": "which tasks, in MongoDB's syntax", "dry_run": "true counts only"},
    told=_STEERING,
)
def change_tasks() -> Document:
    """An item for each of a list; counts for `where`."""
    body = read_body()
    dry_run = flagged("dry_run")
    if isinstance(body, list):
        return _change_list(body, dry_run)
    if "where" not in request.args:
        raise BadRequest("send a list of changes that name their _id, or one change with ?where={..}")
    if not isinstance(body, dict):
        raise BadRequest("the change must be an object")
    return _change_where(body, dry_run)


def flagged(name: str) -> bool:
    """Return whether a boolean query parameter is true."""
    text = request.args.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise BadRequest(f"{name} is {text!r}; it must be true or false")
    return text in ("true", "1")


def _change_list(body: list[Any], dry_run: bool) -> Document:
    check_count(body, context().settings.limits.max_list_items)
    if dry_run:
        return {"_status": "OK", "_items": [_change_item(item, dry_run) for item in body]}
    tasks = [_edited(item) for item in body]
    return {"_status": "OK", "_items": _each_taken_back(tasks, lambda index: _change_item(body[index], dry_run))}


def _each_taken_back(tasks: Sequence[ObjectId | None], act: Callable[[int], Document]) -> list[Document]:
    """The responses of `act` to the items of a bulk change, in order; tasks at workers are recalled together before.

    `tasks` are those of the items (None: no recall is needed). A task that was granted to a worker in between is
    recalled and tried once more.
    """
    answers: dict[int, Document] = {}
    for start in range(0, len(tasks), _EDITED):
        left = list(range(start, min(start + _EDITED, len(tasks))))
        for _ in range(_EDITS):
            take_back_for_edit(context(), [task for index in left if (task := tasks[index]) is not None])
            answers |= {index: act(index) for index in left}
            left = [index for index in left if tasks[index] is not None and _lost(answers[index])]
            if not left:
                break
    return [answers[index] for index in range(len(tasks))]


def _lost(answer: Document) -> bool:
    """Return whether an item was refused because a worker had its task."""
    code: int | None = answer.get("_error", {}).get("code")
    return code == Conflict.status


def _edited(item: Any) -> ObjectId | None:
    """The user's task that an item edits and that must be unbegun for it; None for any fault: the item reports it."""
    try:
        if {"_id", "state", *ALWAYS} >= item.keys():
            return None
        id: ObjectId = validated(_ITEM, {"_id": item["_id"]})["_id"]
        owned(context(), id, actor())
    except (BanyanError, AttributeError, KeyError):
        return None
    return id


def _change_item(item: Any, dry_run: bool) -> Document:
    try:
        if not isinstance(item, dict) or "_id" not in item:
            raise Invalid({"_id": "each change names its task by '_id'"})
        id: ObjectId = validated(_ITEM, {"_id": item["_id"]})["_id"]
        if dry_run:
            return shown(owned(context(), id, actor()))
        return change(id, {name: value for name, value in item.items() if name != "_id"}, wait_seconds=0.0)
    except BanyanError as error:
        return refused(error, item.get("_id") if isinstance(item, dict) else None)


def refused(error: BanyanError, id: Any) -> Document:
    """The fault of one item, for a response with items."""
    message = shortened(str(error))
    known = id if isinstance(id, (str, ObjectId)) else None
    fault: Document = {"_status": "ERR", "_id": shortened(known), "_error": {"code": error.status, "message": message}}
    return fault | {"_issues": shortened(error.issues)} if isinstance(error, Invalid) else fault


def _change_where(body: Document, dry_run: bool) -> Document:
    if "update_execution_data" in body:
        raise Invalid({"update_execution_data": "an attempt is reported for one task, not for all that match"})
    asked = wanted(body)
    ids = own_ids(request.args["where"])
    if dry_run:
        return {"_status": "OK", "matched": len(ids), "updated": 0}
    if asked.only_cancels:
        updated = 0
        for start in range(0, len(ids), _BATCH):
            applied = cancelling.cancel(context(), ids[start : start + _BATCH], {"user": actor().name})
            updated += len(applied.changed)
        return {"_status": "OK", "matched": len(ids), "updated": updated, "_items": []}
    tasks: list[ObjectId | None] = list(ids) if asked.needs_unbegun else [None] * len(ids)
    answers = _each_taken_back(tasks, lambda index: _update_one(ids[index], asked))
    faults = [answer for answer in answers if answer]
    updated = len(answers) - len(faults)
    return {"_status": "OK", "matched": len(ids), "updated": updated, "_items": faults[:_BATCH]}


def _update_one(id: ObjectId, asked: Update) -> Document:
    """Make one of many changes; return the refusal, or an empty document."""
    try:
        update(context(), id, asked, actor(), wait_seconds=0.0)
    except BanyanError as error:
        return refused(error, id)
    return {}


def own_ids(where: str) -> list[ObjectId]:
    """The matching tasks that the user may change."""
    mine: Document = {} if actor().role == ADMIN else {"owner": actor().name}
    ids = reader().ids("tasks", both(parse_where("tasks", where), mine, visible("tasks")))
    audit.touches(ids)
    return ids


@route(
    "DELETE",
    "/tasks",
    roles=STEERS,
    summary="Delete ended tasks of one's own, an admin those of all",
    query={"where": "which tasks"},
)
def delete_tasks() -> Document:
    """The numbers of deleted and of matching tasks; tasks that have not ended stay."""
    if "where" not in request.args:
        raise BadRequest("name the tasks to delete with ?where={..}; ?where={} means all that have ended")
    ids = own_ids(request.args["where"])
    gone = 0
    for start in range(0, len(ids), _BATCH):
        gone += len(delete(context(), ids[start : start + _BATCH]))
    return {"_status": "OK", "matched": len(ids), "deleted": gone}


@route("DELETE", "/tasks/<objectid:task_id>", roles=STEERS, summary="Delete an ended task", resource="tasks")
def delete_task(task_id: ObjectId) -> Document:
    """History, samples and files are deleted as well."""
    task = owned(context(), task_id, actor(), if_match())
    if not delete(context(), [task_id]):
        text = f"task {task_id} is {task['state']}; only an ended task can be deleted; cancel it first"
        raise IllegalTransition({"state": text})
    return {"_status": "OK", "_id": task_id}


def readable(task_id: ObjectId) -> Document:
    """The stored task, if the user may read it; raises `NotFound`."""
    task = existing(context(), task_id)
    if not actor().may_read(task["owner"]):
        raise NotFound(f"there is no task {task_id}")
    return task
