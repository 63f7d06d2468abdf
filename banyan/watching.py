"""The watch over tasks until they have ended: their states, and their output."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from banyan.errors import NotFound, Unavailable, Untrusted
from banyan.worker_calls import Document, Stream

if TYPE_CHECKING:
    from banyan.client import Client
    from banyan.sweep_calls import SweepCalls

ENDED = frozenset({"terminated", "cancelled"})
"""States of a task in which it stays."""

OUTAGE_SECONDS = 600.0
"""The longest outage of a server before watching gives up."""

_IDS_PER_QUERY = 100  # a request line holds about 4,000 characters
_CHUNK_BYTES = 1 << 20
_OVERLAP_BYTES = 64
_WATCHED = ("state", "exit_status", "execution", "progress", "name", "time_started")

T = TypeVar("T")
Sleep = Callable[[float], None]


def wait(
    client: "Client",
    tasks: Sequence[str],
    timeout: float | None,
    on_change: Callable[[Document], None] | None,
    sleep: Sleep,
) -> list[Document]:
    """Return the tasks, in their order, once all of them have ended; see `Client.wait`."""
    deadline = None if timeout is None else time.monotonic() + timeout
    seen = {task["_id"]: task for task in _states(client, tasks)}
    changed = list(seen.values())
    pause = 0.05
    while True:
        for document in changed:
            seen[document["_id"]] = document
            if on_change is not None:
                on_change(document)
        waiting = [task for task in dict.fromkeys(tasks) if seen[task]["state"] not in ENDED]
        if not waiting:
            return [seen[task] for task in tasks]
        if deadline is not None and time.monotonic() + pause > deadline:
            raise TimeoutError(f"{len(waiting)} of {len(seen)} tasks have not ended after {timeout:g} s")
        sleep(pause)
        pause = min(pause * 1.3, max(1.0, len(waiting) / 500))
        found = _patiently(lambda: _states(client, waiting), sleep, deadline)  # noqa: B023 - called at once
        changed = [task for task in found if _standing(task) != _standing(seen[task["_id"]])]


def wait_sweep(
    client: "SweepCalls",
    sweep: str,
    timeout: float | None,
    on_change: Callable[[Document], None] | None,
    sleep: Sleep,
) -> Document:
    """Return the sweep once all of it has ended; see `SweepCalls.wait_sweep`."""
    deadline = None if timeout is None else time.monotonic() + timeout
    document = client.sweep(sweep)
    pause, last = 0.05, None
    while True:
        progress = document["progress"]
        if on_change is not None and progress != last:
            on_change(progress)
        last = progress
        if progress["fraction"] == 1 and progress.get("barrier", "deleted") in (*ENDED, "deleted"):
            return document
        if deadline is not None and time.monotonic() + pause > deadline:
            ended = round(progress["fraction"] * progress["count"])
            raise TimeoutError(f"{ended} of {progress['count']} tasks have ended after {timeout:g} s")
        sleep(pause)
        pause = min(pause * 1.3, max(1.0, progress["count"] / 20_000))
        document = _patiently(lambda: client.sweep(sweep), sleep, deadline)


def follow(
    client: "Client", task: str, stream: Stream, sleep: Sleep, on_cut: Callable[[], None] | None = None
) -> Iterator[bytes]:
    """Yield the output of a task, attempt after attempt, until it has ended; see `Client.follow`."""
    state = client.task(task, ["state"])["state"]
    followed, pause = _Followed(client, task, stream, 1, on_cut), 0.1
    while True:
        for number in _patiently(lambda: [each["attempt"] for each in client.attempts(task)], sleep):
            if number > followed.attempt:
                followed = _Followed(client, task, stream, number, on_cut)
            while number == followed.attempt and (data := followed.more(sleep)):
                pause = 0.1
                yield data
        if state in ENDED:
            return
        sleep(pause)
        pause = min(1.5 * pause, 1.0)
        state = _patiently(lambda: client.task(task, ["state"])["state"], sleep)


class _Followed:
    """The output of one attempt, as far as it was read; `on_cut` is called when it has become another one."""

    def __init__(
        self, client: "Client", task: str, stream: Stream, attempt: int, on_cut: Callable[[], None] | None
    ) -> None:
        self.attempt = attempt
        self._client, self._task, self._stream = client, task, stream
        self._on_cut = on_cut
        self._offset = 0
        self._last = b""

    def more(self, sleep: Sleep) -> bytes:
        """Return the bytes that follow the earlier ones; nothing if there are none yet.

        The last bytes are read once more: where they differ, or are missing, the output was cut, and is read from its
        beginning.
        """
        again = len(self._last)
        data = _patiently(lambda: self._read(self._offset - again), sleep)
        if not data.startswith(self._last):
            self._offset, self._last, again = 0, b"", 0
            data = _patiently(lambda: self._read(0), sleep)
            if data and self._on_cut is not None:
                self._on_cut()
        self._last = data[-_OVERLAP_BYTES:]
        self._offset += len(data) - again
        return data[again:]

    def _read(self, offset: int) -> bytes:
        return self._client.log(self._task, self._stream, offset, _CHUNK_BYTES, self.attempt)


def _standing(task: Document) -> tuple[object, bool]:
    """Return the state of a task, and whether a worker has begun it."""
    return task["state"], bool(task.get("time_started"))


def _states(client: "Client", tasks: Sequence[str]) -> list[Document]:
    wanted = list(dict.fromkeys(tasks))
    found: list[Document] = []
    for start in range(0, len(wanted), _IDS_PER_QUERY):
        chunk = wanted[start : start + _IDS_PER_QUERY]
        page = client.tasks({"_id": {"$in": chunk}}, projection=_WATCHED, max_results=len(chunk)).items
        missing = set(chunk) - {document["_id"] for document in page}
        if missing:
            raise NotFound(f"there is no task {min(missing)}")
        found += page
    return found


def _patiently(ask: Callable[[], T], sleep: Sleep, deadline: float | None = None) -> T:
    """Return the result of `ask`, repeated while the server is away: for ten minutes, or until `deadline`."""
    began, pause, slept = time.monotonic(), 0.5, 0.0
    while True:
        try:
            return ask()
        except Untrusted:
            raise
        except Unavailable:
            late = deadline is not None and time.monotonic() + pause > deadline
            if late or max(slept, time.monotonic() - began) >= OUTAGE_SECONDS:
                raise
        sleep(pause)
        slept += pause
        pause = min(2 * pause, 10.0)
