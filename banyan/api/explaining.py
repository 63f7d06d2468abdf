"""`/explain` and `/tasks/<id>/explain`: the reasons why no (more) task runs, and why one task does not run."""

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


@route("GET", "/explain", roles=ANYONE, summary="The reasons why no (more) task runs")
def explain_all() -> Document:
    """The number of waiting tasks for each reason, remedies, and the workers with their free resources.

    Where reads are private, providers see the reasons of their own tasks.
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
    """`_id`, `reason` and `message` of tasks that wait; other tasks, and unreadable ones, are left out."""
    texts = request.args.get("ids", "").split(",")
    if len(texts) > MOST_IDS or not all(ObjectId.is_valid(text) and len(text) == ID_DIGITS for text in texts):
        raise BadRequest(f"write ?ids=ID,ID,.. with at most {MOST_IDS} ids of 24 hexadecimal digits")
    where = both({"_id": {"$in": [ObjectId(text) for text in texts]}}, visible("tasks"))
    return {"_items": FirstReasons(context()).of(answering().page("tasks", where, dict.fromkeys(NEEDED, 1)))}


@route("GET", "/tasks/<objectid:task_id>/explain", roles=ANYONE, summary="The reasons why a task is not running")
def explain_task(task_id: ObjectId) -> Document:
    """The reasons, the most informative first, and a summary."""
    readable(task_id)
    return explain(context(), task_id, actor())
