"""`/explain` and `/tasks/<id>/explain`: why nothing (more) runs, and why a task does not."""

from typing import Any

from bson import ObjectId
from flask import request

from banyan.api.context import actor, context
from banyan.api.data import answering, both, visible
from banyan.api.routes import ANYONE, route
from banyan.api.tasks import readable
from banyan.errors import BadRequest
from banyan.queue.explain import explain
from banyan.queue.explain_many import NEEDED, FirstReasons
from banyan.queue.explain_queue import explain_queue

Document = dict[str, Any]

MOST_IDS = 100
ID_DIGITS = 24


@route("GET", "/explain", roles=ANYONE, summary="Why nothing (more) runs")
def explain_all() -> Document:
    """How many tasks wait for which reason and what would help, and the workers with what they have free.

    Where reads are private, providers are told of their own tasks.
    """
    return explain_queue(context(), actor())


@route(
    "GET",
    "/tasks/explain",
    roles=ANYONE,
    query={"ids": f"at most {MOST_IDS} ids of tasks, separated by commas"},
    summary="The first reason of each of many waiting tasks",
)
def explain_many() -> Document:
    """`_id`, `reason` and `message` of those that wait; others, and those that one may not read, are left out."""
    texts = request.args.get("ids", "").split(",")
    if len(texts) > MOST_IDS or not all(ObjectId.is_valid(text) and len(text) == ID_DIGITS for text in texts):
        raise BadRequest(f"write ?ids=ID,ID,.. with at most {MOST_IDS} ids of 24 hexadecimal digits")
    where = both({"_id": {"$in": [ObjectId(text) for text in texts]}}, visible("tasks"))
    return {"_items": FirstReasons(context()).of(answering().page("tasks", where, dict.fromkeys(NEEDED, 1)))}


@route("GET", "/tasks/<objectid:task_id>/explain", roles=ANYONE, summary="Why a task is not running")
def explain_task(task_id: ObjectId) -> Document:
    """Reasons, the most telling first, and a summary."""
    readable(task_id)
    return explain(context(), task_id, actor())
