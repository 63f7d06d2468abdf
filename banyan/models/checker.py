"""The posting check: the server calls a model's `task` before it accepts a task, in processes that can be killed."""

import logging
import queue
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Self

from banyan import beneath
from banyan.config import Models
from banyan.errors import Unavailable
from banyan.models.check_host import CheckHost, Job, Refused
from banyan.models.finding import Source, find, offered
from banyan.wire import dumps

log = logging.getLogger("banyan.models")

MAX_TOGETHER = 100
MAX_TOGETHER_BYTES = 1 << 20
"""The limits on the number and the size of tasks in one message to a model."""
MAX_HOSTS = 4
"""The number of models that stay loaded in each server process; the least recently used is unloaded first."""

_STOPPING = "the server is stopping; try again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A task for the check by its model; `workdir` is true if the task gets a directory."""

    inputs: Mapping[str, Any]
    jobid: str
    workdir: bool = True


@dataclass(eq=False, slots=True)
class _Slot:
    """The slot of one model's process; `lock` is held while it is used."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    host: CheckHost | None = None
    used: float = 0.0


class Checker:
    """Finds the models on this machine and checks tasks by them; safe to be shared by threads.

    A process is started at the first check of its model, and stays warm until it was idle for `host_idle_seconds`.
    """

    def __init__(self, settings: Models | None = None, seconds: float = 10.0) -> None:
        self._settings = settings or Models(path=())
        self._seconds = seconds
        self._lock = threading.RLock()  # reentrant: a signal handler may close it during `close`
        self._slots: dict[str, _Slot] = {}
        self._told: dict[str, Source] = {}
        self._starts: queue.SimpleQueue[tuple[Source, str, Future[CheckHost]] | None] = queue.SimpleQueue()
        self._keeper: threading.Thread | None = None
        self._closed = False

    def sources(self) -> dict[str, Source]:
        """All models that are found here now, including those with a `fault`, which is logged once."""
        found = find(self._settings.path)
        faulty = {name: source for name, source in found.items() if source.fault is not None and not source.helper}
        if faulty != self._told:
            self._told = faulty
            offered(faulty)
        return found

    def check(self, source: Source, questions: Sequence[Question]) -> list[str | None]:
        """The fault that the model finds in each of the tasks, in order, None for none.

        When the model fails during the check (it hangs, dies or cannot be loaded), that is the fault of the current
        task, and the rest is not checked. Raises `Unavailable` when the machine is to blame.
        """
        version = source.version()
        faults: list[str | None] = []
        lost = False
        with _Workdirs() as workdirs:
            while len(faults) < len(questions) and not lost:
                said, lost = self._ask(source, version, _together(questions, len(faults)), workdirs)
                faults += said
        return faults + [None] * (len(questions) - len(faults))

    def close(self) -> None:
        """Kill all processes; checks in progress end, and no other one begins."""
        with self._lock:
            closed, self._closed = self._closed, True
            slots = list(self._slots.values())
        if closed:
            return
        self._starts.put(None)
        for slot in slots:
            if slot.host is not None:
                slot.host.kill()
            with slot.lock:
                _empty(slot)
        if self._keeper is not None:
            self._keeper.join()

    def _ask(
        self, source: Source, version: str, jobs: Sequence[Job], workdirs: "_Workdirs"
    ) -> tuple[list[str | None], bool]:
        """The faults of the first of the jobs, at least of one, and whether the model is lost."""
        slot = self._slot(source.name)
        with slot.lock:
            slot.used = time.monotonic()
            host = self._host(slot, source, version)
            most = self._settings.host_max_tasks - host.checks if self._settings.host_max_tasks else len(jobs)
            workdir = workdirs.empty() if any(job.workdir for job in jobs) else None
            try:
                return host.check(jobs[:most], workdir, self._settings.host_start_seconds, self._seconds), False
            except Refused as refused:
                _empty(slot)
                if self._closed:
                    raise Unavailable(_STOPPING) from refused
                log.warning("task %s is refused: %s", jobs[len(refused.before)].jobid, refused)
                return [*refused.before, str(refused)], True
            except Unavailable:
                _empty(slot)
                raise

    def _slot(self, name: str) -> _Slot:
        with self._lock:
            slot = self._slots.setdefault(name, _Slot())
            others = sorted((each for each in self._slots.values() if each is not slot and each.host), key=_last_used)
        for other in others[: max(0, len(others) - MAX_HOSTS + 1)]:
            if other.lock.acquire(blocking=False):
                _empty(other)
                other.lock.release()
        return slot

    def _host(self, slot: _Slot, source: Source, version: str) -> CheckHost:
        """The slot's process, or a new one for a model that has changed, died, checked many tasks or left threads."""
        host = slot.host
        worn = host is not None and (0 < self._settings.host_max_tasks <= host.checks or not host.tidy)
        if host is None or worn or not host.alive or (host.source, host.version) != (source, version):
            _empty(slot)
            host = slot.host = self._start(source, version)
        return host

    def _start(self, source: Source, version: str) -> CheckHost:
        started: Future[CheckHost] = Future()
        with self._lock:
            if self._closed:
                raise Unavailable(_STOPPING)
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="model-hosts", daemon=True)
                self._keeper.start()
            self._starts.put((source, version, started))
        try:
            return started.result()
        except OSError as error:
            raise Unavailable(f"the server cannot start a process to check model {source.name!r}: {error}") from error

    def _keep(self) -> None:
        """Start processes, in this one thread because they die with it, and end idle ones."""
        idle_seconds = self._settings.host_idle_seconds
        while True:
            try:
                wanted = self._starts.get(timeout=max(idle_seconds / 4, 0.05))
            except queue.Empty:
                self._end_idle(time.monotonic() - idle_seconds)
                continue
            if wanted is None:
                return
            source, version, started = wanted
            try:
                started.set_result(CheckHost(source, version, self._settings.dask))
            except OSError as error:
                started.set_exception(error)

    def _end_idle(self, before: float) -> None:
        with self._lock:
            slots = [slot for slot in self._slots.values() if slot.host is not None and slot.used < before]
        for slot in slots:
            if slot.lock.acquire(blocking=False):
                _empty(slot)
                slot.lock.release()


def _together(questions: Sequence[Question], start: int) -> list[Job]:
    """The questions from `start` on that are sent in one message."""
    jobs: list[Job] = []
    size = 0
    for question in questions[start : start + MAX_TOGETHER]:
        jobs.append(Job(inputs=dumps(question.inputs), jobid=question.jobid, workdir=question.workdir))
        size += len(jobs[-1].inputs)
        if size > MAX_TOGETHER_BYTES:
            break
    return jobs


def _empty(slot: _Slot) -> None:
    if slot.host is not None:
        slot.host.close()
        slot.host = None


def _last_used(slot: _Slot) -> float:
    return slot.used


class _Workdirs:
    """Empty directories, each for one task, that are removed at the end with everything in them."""

    def __init__(self) -> None:
        self._last: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def empty(self) -> str:
        """An empty directory; the previous one, if nothing was left in it, as is nearly always so."""
        if self._last is None or not beneath.is_empty(self._last):
            self._drop()
            self._last = tempfile.mkdtemp(prefix="banyan-check-")
        return self._last

    def _drop(self) -> None:
        if self._last is not None:
            beneath.remove(self._last)
            self._last = None
