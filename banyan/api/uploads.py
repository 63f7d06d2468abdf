"""Uploads of files of attempts, from workers that share no disk with the server."""

from typing import Any

from bson import ObjectId
from flask import Response, request

from banyan.api.bodies import answer, read_bytes
from banyan.api.context import context
from banyan.api.routes import ADMIN, WORKER, route, sent_path
from banyan.errors import BadRequest, Invalid, NotFound, StaleAttempt
from banyan.storage.disk import steps_of
from banyan.storage.files import Quota

TOKEN_HEADER = "Banyan-Attempt-Token"
_MAX_PATH = 1000
_QUERY = {"offset": "the position of the bytes; 0 begins the file anew"}
_ROLES = (WORKER, ADMIN)


@route(
    "PUT",
    "/execution_history/<objectid:execution>/stdout",
    roles=_ROLES,
    query=_QUERY,
    summary="Send output",
    quiet=True,
)
def put_stdout(execution: ObjectId) -> Response:
    """The new size of the stream."""
    return _receive(execution, "stdout")


@route(
    "PUT",
    "/execution_history/<objectid:execution>/stderr",
    roles=_ROLES,
    query=_QUERY,
    summary="Send errors",
    quiet=True,
)
def put_stderr(execution: ObjectId) -> Response:
    """The new size of the stream."""
    return _receive(execution, "stderr")


@route(
    "PUT",
    "/execution_history/<objectid:execution>/files/<path:path>",
    roles=_ROLES,
    query=_QUERY,
    summary="Send a file of the work directory",
    quiet=True,
)
def put_file(execution: ObjectId, path: str) -> Response:
    """The new size of the file."""
    path = sent_path("/files/")
    if steps_of(path) is None or len(path) > _MAX_PATH:
        raise Invalid({"path": f"{path!r} is not the path of a file in a work directory"})
    return _receive(execution, f"files/{path}")


def _receive(execution: ObjectId, path: str) -> Response:
    _check_attempt(execution)
    limits = context().settings.files
    quota = Quota(
        max_file_bytes=limits.max_file_bytes,
        max_attempt_bytes=limits.max_attempt_bytes,
        max_files=limits.max_files,
    )
    data = read_bytes()
    done, size = context().storage.files.append(execution, path, _offset(), data, quota, context().now())
    if done:
        return answer({"_status": "OK", "size": size})
    message = f"{path} has {size} bytes now; send what follows them, or begin anew with offset 0"
    return answer({"_status": "ERR", "_error": {"code": 409, "message": message}, "size": size}, 409)


def _offset() -> int:
    text = request.args.get("offset", "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise BadRequest(f"offset is {text!r}; it must be a whole number")
    return int(text)


def _check_attempt(execution: ObjectId) -> None:
    attempt: dict[str, Any] | None = context().storage.executions.load([execution]).get(execution)
    if attempt is None:
        raise NotFound(f"there is no execution {execution}")
    if not context().storage.meta.token_matches(execution, request.headers.get(TOKEN_HEADER)):
        raise StaleAttempt(f"execution {execution}: the token in {TOKEN_HEADER} is not this attempt's")
    if str(attempt.get("exit_status") or "").startswith("abandoned"):
        raise StaleAttempt(f"execution {execution}: it was given up as lost; nothing more is kept of it")
