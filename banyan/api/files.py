"""What tasks wrote: streams and work files, also while they run, from a shared disk, from GridFS or from the tails."""

import mimetypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId
from flask import Response, request

from banyan.api.bodies import answer
from banyan.api.context import context
from banyan.api.data import both, reader, visible
from banyan.api.routes import route
from banyan.errors import BadRequest, NotFound
from banyan.storage.disk import Root, list_beneath, open_beneath
from banyan.storage.files import StoredFile
from banyan.wire import format_date

Document = dict[str, Any]

_ATTEMPT = {"attempt": "the number of an attempt; the last one if not given"}
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Bytes from somewhere, as many as there are now."""

    size: int
    read: Callable[[int, int], Iterator[bytes]]
    close: Callable[[], None] = lambda: None
    modified: datetime | None = None


@route("GET", "/tasks/<objectid:task>/stdout", query=_ATTEMPT, media_type=_TEXT, summary="What a task printed")
def stdout(task: ObjectId) -> Response:
    """The standard output of an attempt, as far as it is known."""
    return _stream(task, "stdout")


@route("GET", "/tasks/<objectid:task>/stderr", query=_ATTEMPT, media_type=_TEXT, summary="What a task complained of")
def stderr(task: ObjectId) -> Response:
    """The standard error of an attempt, as far as it is known."""
    return _stream(task, "stderr")


@route("GET", "/tasks/<objectid:task>/files/", query=_ATTEMPT, summary="The files in a task's work directory")
def files(task: ObjectId) -> Document:
    """Path, size and time of each file; `excess` names what the quota did not allow to keep."""
    attempt = _attempt(task)
    root, limit = _root(attempt), context().settings.files.max_files
    place = _directory(attempt)["work"]
    found = list_beneath(root, place, limit) if root and place else None
    if found is None:
        sent = context().storage.files.list(attempt["_id"])
        shown = [_entry(f.path.removeprefix("files/"), f) for f in sent if f.path.startswith("files/")]
    else:
        shown = [_entry(file.path, file) for file in found]
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
    attempt = _attempt(task)
    place = _directory(attempt)["work"]
    blob = _from_disk(attempt, f"{place}/{path}" if place else None) or _from_gridfs(attempt, f"files/{path}")
    if blob is None:
        raise NotFound(f"attempt {attempt['attempt']} of task {task} has no file {path!r}")
    return ranged(blob, _media_type(path))


def _stream(task: ObjectId, name: str) -> Response:
    attempt = _attempt(task)
    logs = _directory(attempt)["logs"]
    blob = _from_disk(attempt, f"{logs}/{name}") or _from_gridfs(attempt, name) or _from_tail(attempt, name)
    response = ranged(blob, _TEXT)
    missing = max(_excess(attempt).get(name, 0), (attempt.get(f"{name}_bytes") or 0) - blob.size)
    if missing > 0 and attempt.get("time_terminated") is not None:
        response.headers["Banyan-Missing-Bytes"] = str(missing)
    return response


def _attempt(task: ObjectId) -> Document:
    """The attempt that the request means."""
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


def _directory(attempt: Document) -> dict[str, str | None]:
    """Where the attempt's logs and work directory lie under the worker's root; as agreed if it has not said so yet."""
    told = attempt.get("directory")
    if told:
        return {"logs": told["logs"], "work": told.get("work")}
    task = reader().one("tasks", {"_id": attempt["task"]}, {"workdir": 1}) or {}
    logs = f"{attempt['task']}/{attempt['attempt']}"
    kinds: dict[str, str | None] = {"attempt": f"{logs}/work", "task": f"{attempt['task']}/work"}
    return {"logs": logs, "work": kinds.get(task.get("workdir", "attempt"))}


def _root(attempt: Document) -> Root | None:
    stored = attempt.get("files_root")
    return Root(path=stored["path"], owner=stored["owner"]) if stored else None


def _from_disk(attempt: Document, path: str | None) -> Blob | None:
    root = _root(attempt)
    opened = open_beneath(root, path) if root and path else None
    if opened is None:
        return None
    return Blob(size=opened.size, read=opened.read, close=opened.close, modified=opened.modified)


def _from_gridfs(attempt: Document, path: str) -> Blob | None:
    store = context().storage.files
    found: StoredFile | None = store.find(attempt["_id"], path)
    if found is None:
        return None
    return Blob(size=found.size, read=lambda start, stop: store.read(found, start, stop), modified=found.modified)


def _from_tail(attempt: Document, name: str) -> Blob:
    tail = (attempt.get(f"{name}_tail") or "").encode()
    return Blob(size=len(tail), read=lambda start, stop: iter([tail[start:stop]]))


def ranged(blob: Blob, media_type: str) -> Response:
    """The blob, or the range of it that the request asks for; 416 when the range lies behind its end."""
    start, stop, status = 0, blob.size, 200
    asked = request.range
    headers = {"Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff"}
    if asked is not None and asked.units == "bytes" and len(asked.ranges) == 1 and "If-Range" not in request.headers:
        span = asked.range_for_length(blob.size)
        if span is None:
            blob.close()
            message = f"there are {blob.size} bytes now; the range asked for lies behind them"
            body = {"_status": "ERR", "_error": {"code": 416, "message": message}}
            return answer(body, 416, {"Content-Range": f"bytes */{blob.size}"})
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
    """What a browser may safely show is named; anything that it would run is text or plain bytes."""
    guessed = mimetypes.guess_type(path)[0] or "application/octet-stream"
    if guessed.startswith("text/") or guessed in ("application/json", "application/x-sh"):
        return _TEXT
    return guessed if guessed.startswith("image/") and "svg" not in guessed else "application/octet-stream"


def _entry(path: str, file: Any) -> Document:
    return {"path": path, "size": file.size, "modified": file.modified}


def _excess(attempt: Document) -> dict[str, int]:
    return dict(attempt.get("excess") or {})
