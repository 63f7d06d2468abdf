"""Uploads of tasks' files to a server that does not see our disk, while the tasks run and once more at their end."""

import os
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from banyan.beneath import directory, open_file, regular_files
from banyan.errors import BanyanError, Conflict, Forbidden, NotFound, TooManyRequests, Unauthorized, Unavailable
from banyan.wire import shown_path
from banyan.worker_calls import Stream
from worker import threads
from worker.actions import Note
from worker.background import LOOK_SECONDS, Crew
from worker.events import Event, Grant, Synced
from worker.layout import Layout

CHUNK_BYTES = 4 << 20
CHECK_BYTES = 4096
"""The bytes before the end of the sent part that show whether a file was appended to or written anew."""
MOST_THREADS = 4
"""The most attempts whose files are read and sent at the same time."""
CLOSE_SECONDS = 2.0
_AWAY = (Unavailable, TooManyRequests)
_GONE = (Conflict, Forbidden, NotFound, Unauthorized)


class FileStore(Protocol):
    """The calls of `banyan.client.Client` that the uploader makes."""

    def put_log(self, execution: str, stream: Stream, offset: int, data: bytes, token: str, /) -> int: ...

    def put_file(self, execution: str, path: str, offset: int, data: bytes, token: str, /) -> int: ...


class Gone(Exception):
    """The server accepts files of this attempt no more."""


@dataclass(slots=True)
class Sent:
    """The sent part of a file, and the marks by which the file is recognised."""

    size: int = 0
    inode: int = 0
    seen: tuple[int, int] = (0, 0)
    """Size and time of change at the last check."""
    check: int = 0


@dataclass(slots=True)
class Sending:
    """An attempt whose files are sent; names are `stdout`, `stderr`, or `files/PATH`."""

    grant: Grant
    since: float
    sent: dict[str, Sent] = field(default_factory=dict)
    excess: dict[str, int] = field(default_factory=dict)
    ended: bool = False
    gone: bool = False
    busy: bool = False
    """True while a thread sends its files."""


class Uploads:
    """The uploader: it sends new bytes about every `interval` seconds; younger tasks wait for their end.

    A stream that fits the tail of `tail_bytes` is not sent, for the report carries it.
    """

    def __init__(
        self,
        store: FileStore,
        layout: Layout,
        tell: Callable[[Event], None],
        note: Callable[[Note], None],
        *,
        interval: float,
        tail_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._layout = layout
        self._tell = tell
        self._note = note
        self._interval = interval
        self._tail_bytes = tail_bytes
        self._clock = clock
        self._changed = threading.Condition()
        self._sending: dict[str, Sending] = {}
        self._urgent = False
        self._looked_at = clock()
        self._closed = threading.Event()
        self._crew = Crew("send", tell, most=MOST_THREADS)
        self._thread = threads.start("uploads", self._run, tell)

    def begin(self, grant: Grant) -> None:
        """Send the files of a running task."""
        with self._changed:
            self._sending[grant.execution] = Sending(grant, self._clock())
            if len(self._sending) == 1:
                self._changed.notify()

    def end(self, grant: Grant) -> None:
        """Send the rest of an ended task's files, then the event `Synced`."""
        with self._changed:
            sending = self._sending.setdefault(grant.execution, Sending(grant, self._clock()))
            sending.ended = self._urgent = True
            self._changed.notify()

    def drop(self, execution: str) -> None:
        """Stop sending the files of this attempt."""
        with self._changed:
            self._sending.pop(execution, None)

    def close(self) -> None:
        """Stop sending."""
        self._closed.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(timeout=CLOSE_SECONDS)
        self._crew.close(CLOSE_SECONDS)

    def _run(self) -> None:
        """Hand out the due attempts; a directory that takes long to read delays only its own task."""
        while not self._closed.is_set():
            with self._changed:
                while not self._sending and not self._closed.is_set():
                    self._changed.wait()
                if not self._urgent and not self._closed.is_set():
                    self._changed.wait(min(self._interval, LOOK_SECONDS) if self._crew.busy else self._interval)
                due = self._due()
                for sending in due:
                    sending.busy = True
            self._crew.relieve()
            for sending in due:
                self._crew.do(partial(self._attend, sending))

    def _due(self) -> list[Sending]:
        """Return the attempts that are due, ended ones first; all ended ones after an urgent wake-up."""
        idle = [each for each in self._sending.values() if not each.busy]
        now = self._clock()
        late = now - self._looked_at >= self._interval * 0.99
        if not (self._urgent or late):
            return []
        self._urgent = False
        ended = [each for each in idle if each.ended]
        if not late:
            return ended
        self._looked_at = now
        old = now - self._interval * 0.99
        return [*ended, *(each for each in idle if not each.ended and each.since <= old)]

    def _attend(self, sending: Sending) -> None:
        """Send the files of an attempt, in one of the threads `send`."""
        if not self._closed.is_set():
            self._sync(sending)
        with self._changed:
            sending.busy = False
            if sending.ended and sending.grant.execution in self._sending:
                self._urgent = True
                self._changed.notify()

    def _sync(self, sending: Sending) -> None:
        """Send new bytes; after the end of the task until all are sent, or the server accepts no more."""
        ended = sending.ended  # if it ends meanwhile, its last bytes are sent by the next call
        try:
            for name, top, path in self._files(sending):
                self._send(sending, name, top, path)
        except Gone:
            sending.gone = True
        except BanyanError as error:
            if sending.ended:
                self._note(Note(f"cannot send the files of task {sending.grant.task} now: {error}", warning=True))
                self._closed.wait(self._interval)
            return  # it is retried
        if ended:
            self.drop(sending.grant.execution)
            excess = {shown_path(name): size for name, size in sending.excess.items()}
            self._tell(Synced(execution=sending.grant.execution, excess=excess))

    def _files(self, sending: Sending) -> Iterator[tuple[str, str, str]]:
        """Yield the name, the directory and the path below it of each file that may have to be sent."""
        logs, work = self._layout.logs(sending.grant), self._layout.work(sending.grant)
        for stream in ("stdout", "stderr"):
            try:
                size = os.stat(f"{logs}/{stream}").st_size
            except OSError:
                continue
            if size > self._tail_bytes or (size and not sending.ended) or stream in sending.sent:
                yield stream, logs, stream
        if work is not None:
            for inner, _ in regular_files(work):
                yield f"files/{inner}", work, inner

    def _send(self, sending: Sending, name: str, top: str, path: str) -> None:
        sent = sending.sent.setdefault(name, Sent())
        try:
            with directory(top) as opened:
                descriptor = open_file(opened, path.split("/"))
        except OSError:
            return  # it is gone, or is no longer a regular file
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if sending.gone or (sent.seen == (status.st_size, status.st_mtime_ns) and sent.inode == status.st_ino):
                return
            new = sent.inode == 0
            if not new and (sent.inode != status.st_ino or not self._appended(file.fileno(), sent, status.st_size)):
                sent.size, sent.check = 0, 0
            sent.inode = status.st_ino
            self._send_rest(sending, name, descriptor, sent)
            sent.seen = (status.st_size, status.st_mtime_ns)

    def _appended(self, descriptor: int, sent: Sent, size: int) -> bool:
        if size < sent.size:
            return False
        begin = max(0, sent.size - CHECK_BYTES)
        return zlib.crc32(os.pread(descriptor, sent.size - begin, begin)) == sent.check

    def _send_rest(self, sending: Sending, name: str, descriptor: int, sent: Sent) -> None:
        """Send the file from the end of the sent part on."""
        if name.removeprefix("files/") in sending.excess:
            sending.excess[name.removeprefix("files/")] = max(0, os.fstat(descriptor).st_size - sent.size)
            return
        first = sent.size == 0
        while (data := os.pread(descriptor, CHUNK_BYTES, sent.size)) or first:
            first = False
            try:
                sent.size = self._put(sending.grant, name, sent.size, data)
            except _AWAY:
                raise
            except _GONE as error:
                raise Gone from error
            except BanyanError:  # over a quota, or a name that the server does not accept
                sending.excess[name.removeprefix("files/")] = os.fstat(descriptor).st_size - sent.size
                break
            if not data:
                break
        begin = max(0, sent.size - CHECK_BYTES)
        sent.check = zlib.crc32(os.pread(descriptor, sent.size - begin, begin))

    def _put(self, grant: Grant, name: str, offset: int, data: bytes) -> int:
        if name.startswith("files/"):
            return self._store.put_file(grant.execution, name.removeprefix("files/"), offset, data, grant.token)
        stream: Stream = "stdout" if name == "stdout" else "stderr"
        return self._store.put_log(grant.execution, stream, offset, data, grant.token)
