"""The Python client: a method for every call of the HTTP interface."""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from banyan import watching
from banyan.admin_calls import AdminCalls
from banyan.answers import Answer
from banyan.list_calls import Page, Where, filter_of, part, query_of
from banyan.model_calls import ModelCalls
from banyan.steering_calls import SteeringCalls
from banyan.sweep_calls import SweepCalls
from banyan.transport import SAFE_TRIES, Connection
from banyan.trust import Trust
from banyan.waits import Waits
from banyan.wire import url_path
from banyan.worker_calls import Document, Stream

if TYPE_CHECKING:
    from requests.adapters import BaseAdapter

_IDS = 100
"""The most ids in a request."""
_CHUNK_BYTES = 16 << 20

__all__ = ["Client", "Document", "Page", "Stream", "Trust", "Where"]


class Client(SteeringCalls, ModelCalls, SweepCalls, AdminCalls):
    """A client of the server at `url`, with `token`; several threads may share one client.

    Every method raises the errors of `banyan.errors`: `Unavailable` when the server cannot be reached, `Unauthorized`
    or `Forbidden` when it refuses the token, `NotFound`, `Invalid` with the field and the reason, and so on. Reads, and
    changes that are safe to repeat, are retried a few times when the connection breaks. `transport` replaces the
    network (tests run the server's WSGI app in it); `sleep` pauses between polls. `trust` names the trusted authorities
    (by default those of `BANYAN_CA_FILE` and its like); SetupError where it does not allow the token to be sent.
    `renew` receives a token that the server refuses and returns a newer one, for example from a file. `waits` receives
    the news of a server that is away, and sets how long to wait for it.
    """

    def __init__(
        self,
        url: str,
        token: str,
        transport: "BaseAdapter | None" = None,
        sleep: Callable[[float], None] = time.sleep,
        trust: Trust | None = None,
        renew: Callable[[str], str] | None = None,
        waits: Waits | None = None,
    ) -> None:
        super().__init__(Connection(url, token, transport, sleep, trust, renew, waits), sleep)

    @property
    def url(self) -> str:
        """Return the server's address, without a slash at its end."""
        return self._connection.url

    def close(self) -> None:
        """Close the pooled sockets."""
        self._connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Tasks

    @overload
    def submit(self, tasks: Mapping[str, Any], *, key: str | None = None) -> Document: ...
    @overload
    def submit(self, tasks: Sequence[Mapping[str, Any]], *, key: str | None = None) -> list[Document]: ...
    def submit(
        self, tasks: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, key: str | None = None
    ) -> Document | list[Document]:
        """Post one task, or a list that is accepted completely or not at all; return `_id`, `_etag`, `state` of each.

        `key` is the `Idempotency-Key`, a fresh one by default: the same submission is never accepted twice.
        """
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        answer = self._connection.json("POST", "tasks", body=tasks, headers=headers, tries=SAFE_TRIES, read_seconds=300)
        return answer if isinstance(tasks, Mapping) else list(answer["_items"])

    def task(self, task: str, projection: Iterable[str] | None = None) -> Document:
        """Return one task; `projection` names the fields to return."""
        return self._get(f"tasks/{part(task)}", query_of(projection=projection))

    def tasks(
        self,
        where: Where | None = None,
        sort: str | None = None,
        projection: Iterable[str] | None = None,
        max_results: int | None = None,
        page: int | None = None,
    ) -> Page:
        """Return one page of the matching tasks; `sort` is a list of fields such as `"-priority,_created"`."""
        return self.page("tasks", where, sort, projection, max_results, page)

    def each_task(self, where: Where | None = None, projection: Iterable[str] | None = None) -> Iterator[Document]:
        """Yield all matching tasks in the order of their ids, read page by page."""
        return self.each("tasks", where, projection)

    def update(self, task: str, changes: Mapping[str, Any], etag: str | None = None) -> Document:
        """Change fields of a task; with `etag` only if it has not changed meanwhile (else PreconditionFailed)."""
        headers = {"If-Match": etag} if etag else {}
        return self._act("PATCH", f"tasks/{part(task)}", body=changes, headers=headers)

    def bulk_update(self, changes: Sequence[Mapping[str, Any]]) -> list[Document]:
        """Change many tasks, each named by its `_id`; return an item for each, with its `_status`."""
        return list(self._act("PATCH", "tasks", body=changes, read_seconds=300)["_items"])

    def update_where(self, where: Where, changes: Mapping[str, Any], dry_run: bool = False) -> Document:
        """Change all tasks that match; `dry_run` only counts them."""
        query = filter_of(where) | ({"dry_run": "true"} if dry_run else {})
        return self._act("PATCH", "tasks", body=changes, query=query, read_seconds=300)

    def explain(self, task: str | None = None) -> Document:
        """Explain why the task is not running: `state`, `reasons`, and a `summary` in one line.

        Without a task: explain why nothing (more) runs. `reasons` then have the `count` of tasks and `help`, and
        `workers` has the present ones with their `cores` and the time of their last request.
        """
        return self._get("explain" if task is None else f"tasks/{part(task)}/explain")

    def reasons(self, tasks: Sequence[str]) -> dict[str, Document]:
        """Return the first reason, with `reason` and `message`, of each waiting task, by its id."""
        found: dict[str, Document] = {}
        for start in range(0, len(tasks), _IDS):
            query = {"ids": ",".join(tasks[start : start + _IDS])}
            found |= {each["_id"]: each for each in self._get("tasks/explain", query)["_items"]}
        return found

    def wait(
        self,
        tasks: Sequence[str],
        timeout: float | None = None,
        on_change: Callable[[Document], None] | None = None,
    ) -> list[Document]:
        """Wait until all of `tasks` have ended; return them in the same order.

        `on_change` is called with each task whose state has changed or which has begun, and once with each at the
        start. A running one without a `time_started` is assigned to a worker that has not begun it. NotFound if one
        does not exist, TimeoutError after `timeout` seconds. The call waits for a server that goes away meanwhile.
        """
        return watching.wait(self, tasks, timeout, on_change, self._sleep)

    # The output of a task

    def log(
        self,
        task: str,
        stream: Stream = "stdout",
        offset: int = 0,
        length: int | None = None,
        attempt: int | None = None,
    ) -> bytes:
        """Return bytes of a task's output from `offset` on, also while it runs; of the last or the given attempt."""
        return self._bytes(f"tasks/{part(task)}/{stream}", offset, length, attempt)

    def log_chunks(self, task: str, stream: Stream = "stdout", attempt: int | None = None) -> Iterator[bytes]:
        """Yield the same output in pieces, so that an output of any size takes little memory."""
        if attempt is None:  # another one may begin meanwhile
            attempt = max((each["attempt"] for each in self.attempts(task)), default=None)
        return _chunks(lambda offset, length: self.log(task, stream, offset, length, attempt))

    def follow(self, task: str, stream: Stream = "stdout", on_cut: Callable[[], None] | None = None) -> Iterator[bytes]:
        """Yield a task's output as it grows, attempt after attempt, until the task has ended.

        The call waits for a server that goes away meanwhile. An output that has become shorter, or another one, is
        yielded from its beginning, and `on_cut` is called before.
        """
        return watching.follow(self, task, stream, self._sleep, on_cut)

    def files(self, task: str, attempt: int | None = None) -> list[Document]:
        """Return the files of the task's work directory: `path`, `size`, `modified`."""
        return list(self._get(f"tasks/{part(task)}/files/", query_of(attempt=attempt))["_items"])

    def file(
        self, task: str, path: str, offset: int = 0, length: int | None = None, attempt: int | None = None
    ) -> bytes:
        """Return bytes of one file of the work directory, also while the task runs."""
        return self._bytes(f"tasks/{part(task)}/files/{url_path(path)}", offset, length, attempt)

    def file_chunks(self, task: str, path: str, attempt: int | None = None) -> Iterator[bytes]:
        """Yield the same file in pieces, so that a file of any size takes little memory."""
        return _chunks(lambda offset, length: self.file(task, path, offset, length, attempt))

    # Reads

    def attempts(self, task: str) -> list[Document]:
        """Return the attempts of one task, the first one first."""
        return list(self.each("execution_history", {"task": task}))

    def history(self, where: Where | None = None, sort: str | None = None, max_results: int | None = None) -> Page:
        """Return a page of attempts, of any task."""
        return self.page("execution_history", where, sort, max_results=max_results)

    def memory(self, where: Where | None = None) -> Iterator[Document]:
        """Yield samples of memory usage in the order of their arrival, for example `where={"task": id}`."""
        return self.each("memory_usage", where)

    def statistics(self, where: Where | None = None) -> Document:
        """Return counts, waits, run times, memory and rates of the matching tasks."""
        return self._get("statistics", query_of(where=where))

    def sweeps(
        self,
        where: Where | None = None,
        sort: str | None = None,
        projection: Iterable[str] | None = None,
        max_results: int | None = None,
        page: int | None = None,
    ) -> Page:
        """Return one page of the matching sweeps, with their `progress` if `projection` names it."""
        return self.page("sweeps", where, sort, projection, max_results, page)

    def workers(self, where: Where | None = None) -> list[Document]:
        """Return the workers, also lost and gone ones."""
        return list(self.each("workers", where))

    def health(self) -> Document:
        """Return the state of the server; needs no token."""
        return self._act("GET", "health", tries=SAFE_TRIES, patient=False)

    # Requests

    def _bytes(self, path: str, offset: int, length: int | None, attempt: int | None) -> bytes:
        if length == 0:
            return b""
        last = "" if length is None else offset + length - 1
        headers = {"Range": f"bytes={offset}-{last}"} if offset or length is not None else {}
        answer: Answer = self._connection.send(
            "GET", path, query=query_of(attempt=attempt), headers=headers, tries=SAFE_TRIES, accept=frozenset({416})
        )
        if answer.status == 416:
            return b""
        if answer.status == 206 or not headers:
            return answer.body
        return answer.body[offset:] if length is None else answer.body[offset : offset + length]


def _chunks(read: Callable[[int, int], bytes]) -> Iterator[bytes]:
    """Yield the results of `read(offset, length)` from the beginning to the end."""
    offset = 0
    while chunk := read(offset, _CHUNK_BYTES):
        yield chunk
        offset += len(chunk)
