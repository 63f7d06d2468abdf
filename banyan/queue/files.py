"""Files that attempts left, from a disk that their worker shares with this server or as they were sent to it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from banyan.queue.context import Context
from banyan.storage.disk import Root, open_beneath

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Bytes from somewhere, as many as there are now; `read(start, stop)`, then `close`."""

    size: int
    read: Callable[[int, int], Iterator[bytes]]
    close: Callable[[], None] = lambda: None
    modified: datetime | None = None


def work_file(context: Context, attempt: Document, path: str) -> Blob | None:
    """A file of an attempt's work directory; None when there is none."""
    place = directory_of(context, attempt)["work"]
    return from_disk(attempt, f"{place}/{path}" if place else None) or from_gridfs(context, attempt, f"files/{path}")


def directory_of(context: Context, attempt: Document) -> dict[str, str | None]:
    """Where the attempt's logs and work directory lie under the worker's root; as agreed if it has not said so yet."""
    told = attempt.get("directory")
    if told:
        return {"logs": told["logs"], "work": told.get("work")}
    task = context.storage.tasks.documents([attempt["task"]], ["workdir"]).get(attempt["task"], {})
    logs = f"{attempt['task']}/{attempt['attempt']}"
    kinds: dict[str, str | None] = {"attempt": f"{logs}/work", "task": f"{attempt['task']}/work"}
    return {"logs": logs, "work": kinds.get(task.get("workdir", "attempt"))}


def root_of(attempt: Document) -> Root | None:
    """The directory that the attempt's worker shares with this server."""
    stored = attempt.get("files_root")
    return Root(path=stored["path"], owner=stored["owner"]) if stored else None


def from_disk(attempt: Document, path: str | None) -> Blob | None:
    """A file beneath the shared directory."""
    root = root_of(attempt)
    opened = open_beneath(root, path) if root and path else None
    if opened is None:
        return None
    return Blob(size=opened.size, read=opened.read, close=opened.close, modified=opened.modified)


def from_gridfs(context: Context, attempt: Document, path: str) -> Blob | None:
    """A file that was sent: `stdout`, `stderr`, or `files/` and its path."""
    store = context.storage.files
    found = store.find(attempt["_id"], path)
    if found is None:
        return None
    return Blob(size=found.size, read=lambda start, stop: store.read(found, start, stop), modified=found.modified)
