"""`/queues`: an admin's control of the flow: pause, limits, shares. Reading is Eve's."""

from typing import Any

from bson import ObjectId
from flask import request

from banyan.api.bodies import read_object
from banyan.api.context import context
from banyan.api.routes import ADMIN, route
from banyan.api.schema.workers import QUEUE
from banyan.api.validation import validated_changes
from banyan.domain.task import FOR_WORK
from banyan.errors import Conflict, Invalid, NotFound, PreconditionFailed
from banyan.queue.recall import take_back
from banyan.spelling import unknown

Document = dict[str, Any]

_EVERYONE = 1_000_000
_FLOW = frozenset({"paused", "max_running", "weight"})
"""The fields that decide which of the queue's tasks start: their change recalls tasks that workers have not begun."""
_TOLD = ("name", "paused", "max_running", "weight")


@route("POST", "/queues", roles=(ADMIN,), summary="Make a queue", body=QUEUE, status=201, told=_TOLD)
def add_queue(body: Document) -> Document:
    """The new queue."""
    now = context().now()
    stored = {"max_running": None, **body, "_id": ObjectId(), "_etag": str(ObjectId())}
    stored |= {"_created": now, "_updated": now}
    if body["name"] in context().storage.queues.names():
        raise Invalid({"name": f"there is a queue {body['name']!r} already"})
    context().storage.queues.add(stored)
    return _shown(stored)


@route(
    "PATCH",
    "/queues/<name>",
    roles=(ADMIN,),
    resource="queues",
    summary="Pause a queue, or change its limits",
    told=_TOLD,
)
def change_queue(name: str) -> Document:
    """The changed queue."""
    changes = validated_changes("queues", read_object())
    if changes.get("name", name) != name:
        raise Invalid({"name": "a queue keeps its name"})
    queues = context().storage.queues
    there = queues.all()
    known = there.get(name)
    if known is None:
        raise NotFound(unknown("queue", name, there))
    wanted = if_match()
    if wanted is not None and wanted != known["_etag"]:
        raise PreconditionFailed(f"queue {name!r} was changed meanwhile; read it again")
    changed = queues.change(known["_id"], changes, context().now(), revision=wanted)
    if changed is None:
        raise Conflict(f"queue {name!r} was changed meanwhile; read it again")
    if _FLOW & changes.keys():
        context().claims.wait_for_round()  # the round may have read the queue before the change
        take_back(context(), {"queue": name}, FOR_WORK)
    _wake(name)
    return _shown(changed)


def _wake(name: str) -> None:
    """Wake claims for the queue's tasks: it may be open now, or have room."""
    heads = [head for head in context().storage.tasks.class_heads() if head["queue"] == name]
    context().hub.work({head["class_key"]: _EVERYONE for head in heads})


def if_match() -> str | None:
    """The revision that `If-Match` names; None for any revision."""
    text = request.headers.get("If-Match")
    return None if text is None or text.strip() == "*" else text.strip().removeprefix("W/").strip('"')


def _shown(stored: Document) -> Document:
    return {"_status": "OK", **{name: stored.get(name) for name in ("_id", "_etag", "_created", "_updated", *QUEUE)}}
