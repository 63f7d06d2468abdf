"""One process of the server that has a model loaded and calls its `task` for the posting check."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from banyan import frames
from banyan.child import default_environment
from banyan.errors import Unavailable
from banyan.models import host
from banyan.models.finding import Source

_END_SECONDS = 5.0
_MAX_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a model is asked about: its inputs, the task's id, an empty directory or None."""

    inputs: Mapping[str, Any]
    jobid: str
    workdir: str | None


class Refused(Exception):
    """The process could not be used, or is of no use any more; the text says why the task is refused."""


class CheckHost:
    """A process for one model as it is now; not to be used by two threads at once.

    It must be made in a thread that lives as long as it shall: Linux kills it when that thread ends.
    """

    def __init__(self, source: Source, version: str, dask: Mapping[str, Any]) -> None:
        """Start it; OSError if that cannot be done."""
        self.source = source
        self.version = version
        self.checks = 0
        self._ready = False
        self._unpacker = frames.Unpacker(frames.foreign)
        self._heard: list[tuple[Any, ...]] = []
        self._line, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                host.command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
                stderr=None,
                env=default_environment() | dict.fromkeys(_ONE_THREAD, "1"),
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                umask=0o022,
            )
        except OSError:
            self._line.close()
            raise
        finally:
            theirs.close()
        named = {name: getattr(source, name) for name in ("name", "module", "attribute", "directory")}
        self._setup = named | {"dask": dict(dask), "cores": 1, "scheduler": "synchronous", "cluster": ""}

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        if self._process.returncode is not None:
            return False
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def check(self, job: Job, start_seconds: float, seconds: float) -> str | None:
        """Let the model build its graph; what it says against the job, or None.

        Raises `Refused` when the model cannot be loaded, does not come to an end in time or takes the process with it,
        and then the process is to be closed; `Unavailable` when the machine is to blame.
        """
        if not self._ready:
            self._start(start_seconds)
        self.checks += 1
        what = {"inputs": dict(job.inputs), "jobid": job.jobid, "workdir": job.workdir}
        try:
            _, _, fault = self._answer(("check", self.checks, what), seconds)
        except TimeoutError as error:
            text = f"task did not return within {seconds:g} s (posting.check_seconds); leave long work to the graph"
            raise self._refused(text) from error
        return None if fault is None else _shortened(f"{self.source.name}: {_said(fault)}")

    def kill(self) -> None:
        """Kill the process with all that it has started; whoever waits for its answer learns of it."""
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
        """Kill the process and wait until it is gone."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._line.close()

    def _start(self, seconds: float) -> None:
        try:
            kind, *said = self._answer(("setup", self._setup), seconds)
        except TimeoutError as error:
            raise self._refused(f"it could not be imported within {seconds:g} s (models.host_start_seconds)") from error
        if kind == "broken":
            raise Unavailable(f"the server cannot check model {self.source.name!r} now: {said[0]}")
        if kind != "ready":
            raise self._refused(f"it cannot be loaded: {str(said[1]).rstrip().splitlines()[-1]}")
        self._ready = True

    def _answer(self, message: tuple[Any, ...], seconds: float) -> tuple[Any, ...]:
        """Ask, and wait for the answer; TimeoutError, or `Refused` if the process dies."""
        deadline = time.monotonic() + seconds
        try:
            self._line.settimeout(seconds)
            self._line.sendall(frames.pack([message]))
            while not self._heard:
                self._line.settimeout(max(deadline - time.monotonic(), 0.001))
                data = self._line.recv(frames.READ_BYTES)
                if not data:
                    break
                self._heard += self._unpacker.feed(data)
        except (ConnectionError, frames.Nonsense):
            self._heard.clear()
        if not self._heard:
            raise self._refused(f"the process that called its task {self._end()}")
        heard = self._heard.pop(0)
        if not _is_sound(heard):
            raise self._refused("the process that called its task answered nonsense")
        return heard

    def _end(self) -> str:
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return "stopped answering"
        self._kill_group()  # what it has left behind
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended (exit code {code})"

    def _refused(self, text: str) -> Refused:
        return Refused(_shortened(f"{self.source.name}: {text}"))


_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""A check computes nothing, and threads cost time and memory."""


def _is_sound(heard: Sequence[Any]) -> bool:
    """Whether it is something that a host says; a model can make it say anything."""
    kind, *said = heard
    if kind == "checked":
        fault = said[1] if len(said) == 2 else False
        return fault is None or (isinstance(fault, dict) and {"exception", "error"} <= fault.keys())
    return len(said) == {"ready": 2, "unfit": 2, "broken": 1}.get(str(kind))


def _has_descriptor(stream: Any) -> bool:
    """Whether what a model prints can go where our own log goes."""
    try:
        return bool(stream.fileno() >= 0)
    except (AttributeError, OSError, ValueError):
        return False


def _said(fault: Mapping[str, Any]) -> str:
    """The exception in one line, with the plain name of its class as exit statuses have it."""
    name, colon, text = str(fault["error"]).partition(":")
    return f"{fault['exception']}{colon}{text}" if name.endswith(fault["exception"]) else str(fault["error"])


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
