"""The outputs of jobs: pipes, whose contents are appended to files.

A program that opens `/dev/stdout` or `/dev/stderr` (`echo text > /dev/stderr`) opens its stream once more. A file would
be truncated by that; a pipe goes on. The supervisor's own thread writes nothing but the rest at a job's end; a second
thread does, so that a slow disk delays neither starts nor signals.

Imported by the supervisor, which must stay small.
"""

import _thread
import os
import select
import time

READ_BYTES = 1 << 16
"""The size of a pipe."""
MOST_LEFT = 64
"""The most reads at a job's end: pipes can be enlarged, and a process that escaped may write for ever."""
FIRST_LOOK_SECONDS = 0.02
"""The age of a pipe at its first check. Most short jobs are over by then, and write little."""
PAUSE_SECONDS = 1.0
"""The time for which the end of a task waits for its host's output, on a slow disk."""


def open_log(path: str, owner: "tuple[int, int] | None") -> int:
    """Open the file of a stream for appending; it belongs to `owner` (user, group), if given. OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    if owner is not None:
        os.fchown(file, *owner)
    return file


def open_logs(paths: "tuple[str, str]", owner: "tuple[int, int] | None") -> tuple[int, int]:
    """Open both files of a task; OSError."""
    first = open_log(paths[0], owner)
    try:
        return first, open_log(paths[1], owner)
    except OSError:
        os.close(first)
        raise


class Stream:
    """One pipe, and the file for its contents; without one they are dropped."""

    __slots__ = ("broken", "file", "lasts", "lock", "reader", "watched")

    def __init__(self, reader: int, file: int) -> None:
        self.reader = reader
        self.file = file
        self.lock = _thread.allocate_lock()
        self.watched = False
        self.broken = False
        self.lasts = False

    def copy(self, most: int) -> bool:
        """Append the available bytes, in at most so many reads; False at its end. The caller has the lock."""
        for _ in range(most):
            try:
                data = os.read(self.reader, READ_BYTES)
            except BlockingIOError:
                return True
            except OSError:
                return False  # it was closed
            if not data:
                return False
            if self.file >= 0 and not self.broken:
                self._append(data)
        return True

    def _append(self, data: bytes) -> None:
        left, file = memoryview(data), self.file
        try:
            while left:
                left = left[os.write(file, left) :]
        except OSError:  # a full disk, which is noticed at the end of the job
            self.broken = self.broken or file == self.file
        if file != self.file:
            os.close(file)  # it was replaced meanwhile

    def direct(self, file: int) -> None:
        """Send the following bytes to another file. The caller has the lock."""
        if self.file >= 0:
            os.close(self.file)
        self.file = file
        self.broken = False

    def hang_up(self) -> None:
        """Close the reading end: further writers get EPIPE. The caller has the lock."""
        if self.reader >= 0:
            os.close(self.reader)
        self.reader = -1


class Outputs:
    """The standard output and the standard error of a job, or of a host; `writers` are its ends of the pipes."""

    __slots__ = ("_copier", "streams", "writers")

    def __init__(self, copier: "Copier") -> None:
        self._copier = copier
        self.streams: list[Stream] = []
        self.writers: list[int] = []

    def started(self) -> None:
        """Close our own ends for writing: the program has them, or there is none."""
        for descriptor in self.writers:
            os.close(descriptor)
        self.writers = []

    def last(self) -> None:
        """Mark them as a host's, which serve other tasks when a file cannot be written."""
        for stream in self.streams:
            stream.lasts = True

    def direct(self, files: "tuple[int, int]" = (-1, -1)) -> None:
        """Send the following bytes to these files; by default they are dropped."""
        for stream, file in zip(self.streams, files, strict=True):
            if stream.lock.acquire(True, PAUSE_SECONDS):
                stream.copy(MOST_LEFT)
                stream.direct(file)
                stream.lock.release()
            else:
                stream.file, stream.broken = file, False  # the thread may use the other one for ever

    def close(self) -> bool:
        """Append the rest, and close the pipes; False if that must be tried again, for the disk is slow."""
        for stream in self.streams[:]:
            if not stream.lock.acquire(False):
                return False
            self._copier.leave(stream)
            stream.copy(MOST_LEFT)
            stream.direct(-1)
            stream.hang_up()
            self.streams.remove(stream)
            stream.lock.release()
        return True


class Copier:
    """The thread that appends while jobs run."""

    def __init__(self) -> None:
        self._ready = select.epoll()
        self._streams: dict[int, Stream] = {}
        self._young: list[Stream] = []
        self._look_at = 0.0
        self._runs = False

    def open(self, paths: "tuple[str, str]", owner: "tuple[int, int] | None") -> Outputs:
        """Open pipes to these files; the owner is `owner` (user, group), if given, who may open them again. OSError."""
        outputs = Outputs(self)
        try:
            for path in paths:
                self._add(outputs, path, owner)
        except OSError:
            outputs.started()
            outputs.close()
            raise
        return outputs

    def _add(self, outputs: Outputs, path: str, owner: "tuple[int, int] | None") -> None:
        file = open_log(path, owner)
        try:
            reader, writer = os.pipe()
        except OSError:
            os.close(file)
            raise
        stream = Stream(reader, file)
        outputs.streams.append(stream)
        outputs.writers.append(writer)
        os.set_blocking(reader, False)
        if owner is not None:
            os.fchown(writer, *owner)
        if not self._young:
            self._look_at = time.monotonic() + FIRST_LOOK_SECONDS
        self._young.append(stream)

    @property
    def next_look(self) -> "float | None":
        """Return the time of the next `look`, on the monotonic clock."""
        return self._look_at if self._young else None

    def look(self) -> None:
        """Let the thread watch the pipes that are no longer new."""
        if not self._runs:
            self._runs = True
            _thread.start_new_thread(self._run, ())
        for stream in self._young:
            stream.watched = True
            self._streams[stream.reader] = stream
            self._ready.register(stream.reader, select.EPOLLIN)
        self._young = []

    def leave(self, stream: Stream) -> None:
        """Let the thread watch the stream no more. The caller has the stream's lock."""
        if stream.watched:
            stream.watched = False
            self._ready.unregister(stream.reader)
            del self._streams[stream.reader]
        elif stream in self._young:
            self._young.remove(stream)

    def _run(self) -> None:
        while True:
            for reader, _ in self._ready.poll():
                stream = self._streams.get(reader)
                if stream is not None:
                    self._copy(stream)

    def _copy(self, stream: Stream) -> None:
        with stream.lock:
            if not stream.watched:
                return
            goes_on = stream.copy(1)
            if stream.broken and not stream.lasts:
                self.leave(stream)
                stream.hang_up()
            elif not goes_on:
                self.leave(stream)
