"""The use of running tasks: memory and CPU of all their processes, and their progress.

A thread of its own takes the samples, since reading the PSS of a large process takes long. Tasks younger than the
interval are not sampled, so short ones cost nothing here.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime

from worker import collect, threads
from worker.descent import marks_of, owner
from worker.events import Document, Event, Progressed, Sample

LIMIT_INTERVAL_SECONDS = 0.2
"""The interval between two samples of tasks with a memory limit."""
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table; CPU time in clock ticks."""

    pid: int
    parent: int
    session: int
    cpu_ticks: int
    virtual_bytes: int
    resident_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A running task: its first process, its start (monotonic), its limit, the path of its progress.

    `cpu_ticks` is the CPU time that its first process had used before.
    """

    execution: str
    pid: int
    since: float
    memory_limit_bytes: int | None
    progress_path: str
    gpus: bool = False
    cpu_ticks: int = 0


def process_table() -> dict[int, Process]:
    """Return all processes of this machine that we may see."""
    found = (_process(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return {process.pid: process for process in found if process is not None}


def _process(pid: int) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except OSError:
        return None  # it has ended
    fields = line[line.rindex(b")") + 2 :].split()
    return Process(
        pid,
        int(fields[1]),
        int(fields[3]),
        int(fields[11]) + int(fields[12]),
        int(fields[20]),
        int(fields[21]) * _PAGE,
    )


def trees(table: Mapping[int, Process], roots: Mapping[int, str], reapers: Collection[int]) -> dict[str, list[Process]]:
    """Return the processes of each task. `roots` maps the tasks' first processes to tasks; `reapers` inherit orphans.

    A process belongs to a task by its session, its parent or, for an orphan, its mark or its environment.
    """
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    waiting = [(process, roots[process.session]) for process in table.values() if process.session in roots]
    marks = marks_of(roots.values())
    for orphan in (each for reaper in reapers for each in children.get(reaper, ())):
        if orphan.session not in roots:
            task = owner(orphan.pid, {}, marks)
            if task is not None:
                waiting.append((orphan, task))
    found: dict[str, list[Process]] = {task: [] for task in roots.values()}
    seen: set[int] = set()
    while waiting:
        process, task = waiting.pop()
        if process.pid not in seen and task in found:
            seen.add(process.pid)
            found[task].append(process)
            waiting += [(child, task) for child in children.get(process.pid, ())]
    return found


def resident_bytes(processes: Iterable[Process]) -> int:
    """Return the memory that these processes hold together: shared pages in shares (PSS) where possible, else RSS."""
    return sum(_pss(process.pid) or process.resident_bytes for process in processes)


def _pss(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None  # it has ended, or is not readable for us
    return None


@dataclass(slots=True)
class _Seen:
    """A watched task and its latest sample; `at` is monotonic."""

    task: Watched
    at: float
    cpu_ticks: int = 0
    progress_time: int = 0
    progress: Document | None = None


class Watcher:
    """The sampler of the watched tasks, every `interval` seconds; it sends events.

    `reapers` inherit orphans; `gpu_memory` returns the bytes that processes hold, None where that is unknown.
    """

    def __init__(
        self,
        interval: float,
        reapers: Callable[[], Collection[int]],
        tell: Callable[[Event], None],
        gpu_memory: Callable[[Set[int]], int | None],
    ) -> None:
        self._gpu_memory = gpu_memory
        self._interval = interval
        self._reapers = reapers
        self._tell = tell
        self._changed = threading.Condition()
        self._watched: dict[str, _Seen] = {}
        self._closed = False
        self._resting = False
        self._thread = threads.start("usage", self._run, tell)

    def watch(self, task: Watched) -> None:
        """Watch this task from now on."""
        with self._changed:
            self._watched[task.execution] = _Seen(task, task.since, task.cpu_ticks)
            if self._resting:  # else it looks by itself soon enough, and short tasks cause no wake-up
                self._changed.notify()

    def leave(self, execution: str) -> None:
        """Stop watching this task."""
        with self._changed:
            self._watched.pop(execution, None)

    def close(self) -> None:
        """Stop sampling."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._watched and not self._closed:
                    self._resting = True
                    self._changed.wait()
                self._resting = False
                if self._closed:
                    return
                limited = any(seen.task.memory_limit_bytes is not None for seen in self._watched.values())
                self._changed.wait(min(self._interval, LIMIT_INTERVAL_SECONDS) if limited else self._interval / 2)
                now = time.monotonic()
                due = [seen for seen in self._watched.values() if seen.task.memory_limit_bytes or self._due(seen, now)]
                roots = {seen.task.pid: seen.task.execution for seen in self._watched.values()}
            if due:
                self._look(due, roots, now)

    def _due(self, seen: _Seen, now: float) -> bool:
        return now - seen.at >= self._interval * 0.99

    def _look(self, tasks: list[_Seen], roots: Mapping[int, str], now: float) -> None:
        """Take a sample of these tasks; `roots` are the first processes of all tasks, so that none is an orphan."""
        found = trees(process_table(), roots, self._reapers())
        date = datetime.now(UTC)
        for seen in tasks:
            processes = found[seen.task.execution]
            if processes:
                self._tell(self._sample(seen, processes, now, date))

    def _sample(self, seen: _Seen, processes: list[Process], now: float, date: datetime) -> Sample:
        task, kept = seen.task, self._due(seen, now)
        resident = sum(process.resident_bytes for process in processes)
        if kept or resident > (task.memory_limit_bytes or resident):
            resident = resident_bytes(processes)
        cpu_percent = 0.0
        if kept:
            ticks = sum(process.cpu_ticks for process in processes)
            cpu_percent = 100 * max(0, ticks - seen.cpu_ticks) / _TICKS / max(now - seen.at, 0.01)
            seen.cpu_ticks, seen.at = ticks, now
            self._read_progress(seen)
        return Sample(
            execution=task.execution,
            time=date,
            resident_memory_bytes=resident,
            virtual_memory_bytes=sum(process.virtual_bytes for process in processes),
            cpu_percent=cpu_percent,
            gpu_memory_bytes=self._gpu_memory({process.pid for process in processes}) if task.gpus and kept else None,
            kept=kept,
        )

    def _read_progress(self, seen: _Seen) -> None:
        path = seen.task.progress_path
        try:
            changed = os.stat(path).st_mtime_ns
        except OSError:
            return  # it has no progress
        if changed == seen.progress_time:
            return
        try:
            said = collect.progress(path)
        except collect.Malformed:
            return  # perhaps half written; it is read again at the end of the task
        seen.progress_time = changed
        if said is not None and said != seen.progress:
            seen.progress = said
            self._tell(Progressed(execution=seen.task.execution, progress=said))
