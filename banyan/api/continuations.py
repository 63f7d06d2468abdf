"""Virtual resources for the edges of the graph: add and remove continuations, of one task or of many."""

from typing import Any

from bson import ObjectId

from banyan.api import audit
from banyan.api.bodies import read_body
from banyan.api.context import actor, context
from banyan.api.queues import if_match
from banyan.api.routes import ADMIN, PROVIDER, route
from banyan.api.schema.kinds import MAX_LINKS, Rules, identifiers
from banyan.api.tasks import shown
from banyan.api.validation import Checker, check_count, validated
from banyan.errors import BadRequest, Invalid, TooLarge
from banyan.queue.update import Update, edit_continuations, update

Document = dict[str, Any]

STEERS = (PROVIDER, ADMIN)

EDIT: dict[str, Rules] = {"targets": identifiers(required=True), "values": identifiers(required=True)}
"""One entry of the list: every one of `values` becomes a continuation of every one of `targets`."""
_VALUES: dict[str, Rules] = {"values": identifiers(required=True)}

_edits = Checker(EDIT)


def _edit(add: bool) -> Document:
    body = read_body()
    items = body if isinstance(body, list) else [body]
    check_count(items, context().settings.limits.max_list_items)
    edits, faults = _edits.new(items)
    if any(faults):
        raise Invalid(items=list(faults)) if isinstance(body, list) else Invalid(faults[0])
    edges = sum(len(edit["targets"]) * len(edit["values"]) for edit in edits)
    if edges > MAX_LINKS:
        raise TooLarge(f"these are {edges} edges; send at most {MAX_LINKS} at once")
    audit.touches(target for edit in edits for target in edit["targets"])
    edit_continuations(context(), [(edit["targets"], edit["values"]) for edit in edits], actor(), add)
    return {"_status": "OK"}


@route("POST", "/tasks/add_continuations", roles=STEERS, summary="Add continuations to many tasks, or to none")
def add_many() -> Document:
    """All are added, or none."""
    return _edit(add=True)


@route("POST", "/tasks/remove_continuations", roles=STEERS, summary="Remove continuations of many tasks, or of none")
def remove_many() -> Document:
    """All are removed, or none."""
    return _edit(add=False)


def _values() -> list[ObjectId]:
    body = read_body()
    if not isinstance(body, list):
        raise BadRequest("the body must be a list of task ids")
    values: list[ObjectId] = validated(_VALUES, {"values": body})["values"]
    return values


@route(
    ["POST", "PATCH"],
    "/tasks/<objectid:task_id>/add_continuations",
    roles=STEERS,
    summary="Add continuations to a task",
)
def add(task_id: ObjectId) -> Document:
    """The changed task."""
    return shown(update(context(), task_id, Update(add=_values()), actor(), if_match()))


@route(
    ["POST", "PATCH"],
    "/tasks/<objectid:task_id>/remove_continuations",
    roles=STEERS,
    summary="Remove continuations of a task",
)
def remove(task_id: ObjectId) -> Document:
    """The changed task."""
    return shown(update(context(), task_id, Update(remove=_values()), actor(), if_match()))
