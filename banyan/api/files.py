"""Output of tasks: streams and work files, also while they run, from a shared disk, from GridFS or from the tails."""

import mimetypes
from typing import Any

from bson import ObjectId
from flask import Response, request

from banyan.api.bodies import answer
from banyan.api.context import context
from banyan.api.data import both, reader, visible
from banyan.api.ranges import Asked, Unsatisfiable, span_of
from banyan.api.routes import route, sent_path
from banyan.errors import BadRequest, NotFound
from banyan.queue.files import Blob, WorkFile, directory_of, from_disk, from_gridfs, work_file, work_files
from banyan.wire import format_date, shown_path, url_path

Document = dict[str, Any]

_ATTEMPT = {"attempt": "the number of an attempt; the last one if not given"}
_TEXT = "text/plain; charset=utf-8"


@route("GET", "/tasks/<objectid:task>/stdout", query=_ATTEMPT, media_type=_TEXT, summary="A task's standard output")
def stdout(task: ObjectId) -> Response:
    """The standard output of an attempt, as far as it is known."""
    return _stream(task, "stdout")


@route("GET", "/tasks/<objectid:task>/stderr", query=_ATTEMPT, media_type=_TEXT, summary="A task's standard error")
def stderr(task: ObjectId) -> Response:
    """The standard error of an attempt, as far as it is known."""
    return _stream(task, "stderr")


@route("GET", "/tasks/<objectid:task>/files/", query=_ATTEMPT, summary="The files in a task's work directory")
def files(task: ObjectId) -> Document:
    """Path, size, time and `url` of each file; `excess` names the data that exceeded the quota.

    `path` shows U+FFFD for bytes that are not UTF-8; `url` is exact.
    """
    attempt = _attempt(task)
    shown = [_entry(task, attempt["attempt"], each) for each in work_files(context(), attempt)]
    return {"_items": shown, "attempt": attempt["attempt"], "excess": _excess(attempt)}


@route(
    "GET",
    "/tasks/<objectid:task>/files/<path:path>",
    query=_ATTEMPT,
    media_type="application/octet-stream",
    summary="One file from a task's work directory",
)
def file(task: ObjectId, path: str) -> Response:
    """The file's bytes as they are now."""
    attempt, path = _attempt(task), sent_path("/files/")
    blob = work_file(context(), attempt, path)
    if blob is None:
        raise NotFound(f"attempt {attempt['attempt']} of task {task} has no file {path!r}")
    return ranged(blob, _media_type(path))


def _stream(task: ObjectId, name: str) -> Response:
    attempt = _attempt(task)
    logs = directory_of(context(), attempt)["logs"]
    sent = from_disk(attempt, f"{logs}/{name}") or from_gridfs(context(), attempt, name)
    blob = sent or _from_tail(attempt, name)
    response = ranged(blob, _TEXT)
    missing = max(_excess(attempt).get(name, 0), (attempt.get(f"{name}_bytes") or 0) - blob.size)
    if missing > 0 and attempt.get("time_terminated") is not None:
        response.headers["Banyan-Missing-Bytes"] = str(missing)
    return response


def _attempt(task: ObjectId) -> Document:
    """The attempt that the request names."""
    if reader().one("tasks", both({"_id": task}, visible("tasks")), {"_id": 1}) is None:
        raise NotFound(f"there is no task {task}")
    number = request.args.get("attempt")
    if number is None:
        found = reader().page("executions", {"task": task}, sort=[("attempt", -1)], limit=1)
        if not found:
            raise NotFound(f"task {task} has no attempt yet")
        return found[0]
    if not (number.isascii() and number.isdecimal() and len(number) < 10):
        raise BadRequest(f"attempt is {number!r}; it must be a whole number")
    attempt = reader().one("executions", {"task": task, "attempt": int(number)})
    if attempt is None:
        raise NotFound(f"task {task} has no attempt {number}")
    return attempt


def _from_tail(attempt: Document, name: str) -> Blob:
    tail = (attempt.get(f"{name}_tail") or "").encode()
    return Blob(size=len(tail), read=lambda start, stop: iter([tail[start:stop]]))


def ranged(blob: Blob, media_type: str) -> Response:
    """The blob, or the range of it that the request names; 416 when no byte of the range exists."""
    start, stop, status = 0, blob.size, 200
    headers = {"Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff"}
    try:
        span = span_of(_asked(), blob.size, blob.modified, context().now())
    except Unsatisfiable:
        blob.close()
        message = f"there are {blob.size} bytes now, and none of the requested ones"
        body = {"_status": "ERR", "_error": {"code": 416, "message": message}}
        return answer(body, 416, {"Content-Range": f"bytes */{blob.size}"})
    if span is not None:
        start, stop, status = *span, 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
    if blob.modified is not None:
        headers["Last-Modified"] = format_date(blob.modified)
    headers["Content-Length"] = str(stop - start)
    body_bytes = blob.read(start, stop) if request.method == "GET" and stop > start else iter(())
    response = Response(body_bytes, status=status, headers=headers, content_type=media_type)
    response.call_on_close(blob.close)
    return response


def _media_type(path: str) -> str:
    """The media type of a file: that of content which a browser may safely show; text or plain bytes otherwise."""
    guessed = mimetypes.guess_type(path)[0] or "application/octet-stream"
    if guessed.startswith("text/") or guessed in ("application/json", "application/x-sh"):
        return _TEXT
    return guessed if guessed.startswith("image/") and "svg" not in guessed else "application/octet-stream"


def _entry(task: ObjectId, attempt: int, file: WorkFile) -> Document:
    url = f"/tasks/{task}/files/{url_path(file.path)}?attempt={attempt}"
    return {"path": shown_path(file.path), "size": file.size, "modified": file.modified, "url": url}


def _asked() -> Asked:
    """The requested range; only GET has one."""
    asked = request.headers.get("Range", "") if request.method == "GET" else ""
    return Asked(range=asked, if_range=request.headers.get("If-Range"))


def _excess(attempt: Document) -> dict[str, int]:
    return dict(attempt.get("excess") or {})
