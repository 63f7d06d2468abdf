"""`/tasks/<id>/execution_history`: the attempts of one task."""

from bson import ObjectId
from eve.methods import get
from eve.render import send_response
from flask import Response

from banyan.api.data import both, reader, visible
from banyan.api.routes import route
from banyan.api.selection import LISTING
from banyan.errors import NotFound


@route(
    "GET",
    "/tasks/<objectid:task>/execution_history",
    query=dict.fromkeys(LISTING, "as in /execution_history"),
    summary="The attempts of a task",
)
def history(task: ObjectId) -> Response:
    """The same as `/execution_history?where={"task": id}`; NotFound when there is no such task."""
    if reader().one("tasks", both({"_id": task}, visible("tasks")), {"_id": 1}) is None:
        raise NotFound(f"there is no task {task}")
    response: Response = send_response("execution_history", get("execution_history", {"task": task}))
    return response
