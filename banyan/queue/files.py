"""Files of attempts, from a disk that their worker shares with this server or as they were sent to it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from banyan.queue.context import Context
from banyan.storage.disk import Root, list_beneath, open_beneath
from banyan.wire import shown_path

Document = dict[str, Any]

REPLACED = "\N{REPLACEMENT CHARACTER}"
"""The character that listings show in place of bytes that are not UTF-8."""

_SENT = "files/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Bytes from a source, as many as there are now; `read(start, stop)`, then `close`."""

    size: int
    read: Callable[[int, int], Iterator[bytes]]
    close: Callable[[], None] = lambda: None
    modified: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkFile:
    """A file of a work directory; bytes of `path` that are not UTF-8 are lone surrogates."""

    path: str
    size: int
    modified: datetime


def work_file(context: Context, attempt: Document, path: str) -> Blob | None:
    """A file of an attempt's work directory; None when there is none.

    A path as a listing shows it is accepted, if it matches one file alone.
    """
    found = _exactly(context, attempt, path)
    if found is None and REPLACED in path:
        meant = [file.path for file in work_files(context, attempt) if shown_path(file.path) == path]
        return _exactly(context, attempt, meant[0]) if len(meant) == 1 else None
    return found


def _exactly(context: Context, attempt: Document, path: str) -> Blob | None:
    place = directory_of(context, attempt)["work"]
    return from_disk(attempt, f"{place}/{path}" if place else None) or from_gridfs(context, attempt, f"{_SENT}{path}")


def work_files(context: Context, attempt: Document) -> list[WorkFile]:
    """The files of an attempt's work directory by path, up to the limit for listings."""
    root, place = root_of(attempt), directory_of(context, attempt)["work"]
    found = list_beneath(root, place, context.settings.files.max_files) if root and place else None
    if found is not None:
        return [WorkFile(path=each.path, size=each.size, modified=each.modified) for each in found]
    sent = (each for each in context.storage.files.list(attempt["_id"]) if each.path.startswith(_SENT))
    return [WorkFile(path=each.path.removeprefix(_SENT), size=each.size, modified=each.modified) for each in sent]


def directory_of(context: Context, attempt: Document) -> dict[str, str | None]:
    """The paths of the attempt's logs and work directory below the worker's root, as reported or by default."""
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
    """A file below the shared directory."""
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
