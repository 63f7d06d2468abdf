"""One process of the server that has a model loaded and calls its `task` for the posting check."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from banyan import frames
from banyan.child import default_environment
from banyan.errors import Unavailable
from banyan.models import check_progress, host
from banyan.models.finding import Source

_END_SECONDS = 5.0
_MAX_CHARACTERS = 2000
_NONSENSE = "the process that called its task sent an invalid response"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One check by a model: the inputs as JSON, the task's id, whether the task gets a directory."""

    inputs: bytes
    jobid: str
    workdir: bool


class Refused(Exception):
    """The process could not be used, or cannot be used any more; the text is the reason why a task is refused.

    `before` has the faults of the tasks that it checked before that one, None for a task without a fault.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.before: list[str | None] = []


class CheckHost:
    """A process for one model as it is now; not to be used by two threads at once.

    It must be created in a thread that lives as long as the process is needed: Linux kills it when that thread ends.
    """

    def __init__(self, source: Source, version: str, dask: Mapping[str, Any]) -> None:
        """Start the process; OSError if that is impossible."""
        self.source = source
        self.version = version
        self.checks = 0
        self.tidy = True
        self._ready = False
        self._unpacker = frames.Unpacker(frames.foreign)
        self._heard: list[tuple[Any, ...]] = []
        self._line, theirs = socket.socketpair()
        self._progress = check_progress.create()
        try:
            self._process = subprocess.Popen(
                host.command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
                stderr=None,
                env=default_environment() | dict.fromkeys(_ONE_THREAD, "1"),
                cwd="/",
                pass_fds=[theirs.fileno(), self._progress],
                start_new_session=True,
                umask=0o022,
            )
        except OSError:
            self._line.close()
            os.close(self._progress)
            raise
        finally:
            theirs.close()
        named = {name: getattr(source, name) for name in ("name", "module", "attribute", "directory")}
        how = {"dask": dict(dask), "cores": 1, "scheduler": "synchronous", "cluster": "", "progress": self._progress}
        self._setup = named | how

    @property
    def alive(self) -> bool:
        """Return whether the process still runs."""
        if self._process.returncode is not None:
            return False
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def check(self, jobs: Sequence[Job], workdir: str | None, start_seconds: float, seconds: float) -> list[str | None]:
        """Make the model build its graphs; return the fault that it finds in each of the jobs, or None.

        Jobs that get a directory get `workdir`, which is empty. The result may cover fewer jobs, but at least one: the
        process stops early before a job that would find the directory used, and after a while. Raises `Refused` when
        the model cannot be loaded, is not done in time or takes the process with it, and then the process must be
        closed; `Unavailable` when the machine is to blame.
        """
        if not self._ready:
            self._start(start_seconds)
        first, faults = self.checks + 1, dict[int, str]()
        try:
            self.checks = self._ask(first, jobs, workdir, seconds, faults)
        except Refused as refused:
            newest = check_progress.read(self._progress)[1]
            refused.before = [faults.get(number) for number in range(first, min(newest, first + len(jobs) - 1))]
            raise
        return [faults.get(number) for number in range(first, self.checks + 1)]

    def _ask(self, first: int, jobs: Sequence[Job], workdir: str | None, seconds: float, faults: dict[int, str]) -> int:
        """Store the model's faults of the jobs, numbered from `first` on, in `faults`; return the last number."""
        asked = time.monotonic()

        def deadline() -> float:
            begun, number = check_progress.read(self._progress)
            return (begun if number >= first else asked) + seconds

        numbers = range(first, first + len(jobs))
        try:
            what = [(job.inputs, job.jobid, workdir if job.workdir else None) for job in jobs]
            self._say(("check", first, what), seconds)
            while True:
                heard = self._answer(deadline)
                if heard[0] not in ("fault", "checked") or heard[1] not in numbers:
                    raise self._refused(_NONSENSE)
                kind, number, said = heard
                if kind == "checked":
                    self.tidy = bool(said)
                    return int(number)
                faults[number] = _shortened(f"{self.source.name}: {_said(said)}")
        except TimeoutError as error:
            text = f"task did not return within {seconds:g} s (posting.check_seconds); leave long work to the graph"
            raise self._refused(text) from error

    def kill(self) -> None:
        """Kill the process and its descendants; a thread that waits for its response learns of it."""
        if self._process.returncode is not None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        self._kill_group()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the process and wait until it has ended."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._line.close()
        os.close(self._progress)

    def _start(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        try:
            self._say(("setup", self._setup), seconds)
            kind, *said = self._answer(lambda: deadline)
        except TimeoutError as error:
            raise self._refused(f"it could not be imported within {seconds:g} s (models.host_start_seconds)") from error
        if kind == "broken":
            raise Unavailable(f"the server cannot check model {self.source.name!r} now: {said[0]}")
        if kind != "ready":
            raise self._refused(f"it cannot be loaded: {str(said[1]).rstrip().splitlines()[-1]}")
        self._ready = True

    def _say(self, message: tuple[Any, ...], seconds: float) -> None:
        """Send a message; a dead process is noticed when its response is awaited."""
        self._line.settimeout(seconds)
        with contextlib.suppress(ConnectionError):
            self._line.sendall(frames.pack([message]))

    def _answer(self, deadline: Callable[[], float]) -> tuple[Any, ...]:
        """The next response; TimeoutError after the deadline, which may move, `Refused` if the process dies."""
        try:
            while not self._heard:
                left = deadline() - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._line.settimeout(left)
                with contextlib.suppress(TimeoutError):
                    if not (data := self._line.recv(frames.READ_BYTES)):
                        break
                    self._heard += self._unpacker.feed(data)
        except (ConnectionError, frames.Nonsense):
            self._heard.clear()
        if not self._heard:
            raise self._refused(f"the process that called its task {self._end()}")
        heard = self._heard.pop(0)
        if not _is_sound(heard):
            raise self._refused(_NONSENSE)
        return heard

    def _end(self) -> str:
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return "stopped responding"
        self._kill_group()  # with its descendants
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended (exit code {code})"

    def _refused(self, text: str) -> Refused:
        return Refused(_shortened(f"{self.source.name}: {text}"))


_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Thread pools of libraries get one thread: a check computes nothing, and threads cost time and memory."""


def _is_sound(heard: Sequence[Any]) -> bool:
    """Return whether it is a message of a host; a model can make it send anything."""
    kind, *said = heard
    if kind == "fault":
        return len(said) == 2 and isinstance(said[1], dict) and {"exception", "error"} <= said[1].keys()
    return len(said) == {"ready": 2, "unfit": 2, "broken": 1, "checked": 2}.get(str(kind))


def _has_descriptor(stream: Any) -> bool:
    """Return whether the output of a model can go to our own log."""
    try:
        return bool(stream.fileno() >= 0)
    except (AttributeError, OSError, ValueError):
        return False


def _said(fault: Mapping[str, Any]) -> str:
    """The exception in one line, with the plain name of its class as in exit statuses."""
    name, colon, text = str(fault["error"]).partition(":")
    return f"{fault['exception']}{colon}{text}" if name.endswith(fault["exception"]) else str(fault["error"])


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
