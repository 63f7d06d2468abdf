"""`/explain` and `/tasks/<id>/explain`: why nothing (more) runs, and why a task does not."""

from typing import Any

from bson import ObjectId

from banyan.api.context import actor, context
from banyan.api.routes import ANYONE, route
from banyan.api.tasks import readable
from banyan.queue.explain import explain
from banyan.queue.explain_queue import explain_queue

Document = dict[str, Any]


@route("GET", "/explain", roles=ANYONE, summary="Why nothing (more) runs")
def explain_all() -> Document:
    """How many tasks wait for which reason and what would help, and the workers with what they have free.

    Where reads are private, providers are told of their own tasks.
    """
    return explain_queue(context(), actor())


@route("GET", "/tasks/<objectid:task_id>/explain", roles=ANYONE, summary="Why a task is not running")
def explain_task(task_id: ObjectId) -> Document:
    """Reasons, the most telling first, and a summary."""
    readable(task_id)
    return explain(context(), task_id, actor())
