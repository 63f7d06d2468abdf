"""A guard for the disk of the work directory: it finds and stops the task that takes the last room.

The guard has a thread of its own, for directories may be large and disks slow. It checks the free room as often as a
fast program could fill it up, and the room of each task seldom while there is ample room. When there is less than the
floor, it stops the task that has taken most since there was ample room, as long as tasks have taken it at all: no task
is stopped for the files of others. `disk_blame` decides that.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from banyan.config import Reserve
from worker import threads
from worker.disk import Disk, Space, Usage, changed_elsewhere, disk_of, floor_of, used
from worker.disk_blame import Reference, below, filled_words, growth_of, scratch_excess, taker
from worker.events import Cause, Document, Event, Exceeded, Grant
from worker.layout import Layout
from worker.usage import process_table, trees

FASTEST_BYTES, FASTEST_FILES = 4e9, 1e5
"""The most that a program may write within a second."""
SOONEST_SECONDS, LATEST_SECONDS = 0.05, 1.0
"""The shortest and the longest interval between two checks of the free room."""
LIMITED_SECONDS, SELDOM_SECONDS, LOW_SECONDS = 1.0, 10.0, 0.2
"""The intervals between two checks of a task: with a limit, without one, and while there is too little room."""
REST_FACTOR = 10
"""A directory is read again only after this many times the time that reading it took."""
DYING_SECONDS = 10.0
"""The time that a stopped task has to end before another one is chosen."""
SETTLING_SECONDS = 1.0
"""The pause after the end of a task that filled the disk, while its files are being removed."""
FULL_SECONDS = 60.0
"""A task that fails within this time after the disk was full may have failed for that."""
CLOCK_SECONDS = 0.1
"""The largest delay of the times of files behind the clock."""

_Pids = Mapping[str, Sequence[int]]


@dataclass(slots=True, kw_only=True)
class _Task:
    """A running task, and the room that it has taken; times as of `time.time`."""

    grant: Grant
    pid: int
    started: float
    usage: Usage = field(default_factory=Usage)
    found: Usage = field(default_factory=Usage)
    """The files that an earlier attempt had left in its work directory."""
    growth: Space = field(default_factory=Space)
    """Its growth since the reference by which it was judged last."""
    looked_at: float | None = None
    cost_seconds: float = 0.0
    stopped_at: float | None = None

    def grown(self, reference: Reference, elsewhere: Space = Space()) -> Space:  # noqa: B008 - it is frozen
        """Return its growth since the reference."""
        self.growth = growth_of(self.usage, reference.had.get(self.grant.execution, self.found), elsewhere)
        return self.growth

    def due(self, now: float, *, low: bool) -> bool:
        """Return whether its room is to be measured now."""
        if self.looked_at is None:
            usual = 0.0 if low or self.grant.keeps_work else SELDOM_SECONDS
            return now - self.started >= min(usual, self._period)
        return now - self.looked_at >= max(LOW_SECONDS if low else self._period, REST_FACTOR * self.cost_seconds)

    @property
    def _period(self) -> float:
        return SELDOM_SECONDS if self.grant.scratch_limit_bytes is None else LIMITED_SECONDS


def _reference(disk: Disk, now: float, tasks: Mapping[str, _Task]) -> Reference:
    return Reference(disk.free, now, {execution: task.usage for execution, task in tasks.items()})


class DiskGuard:
    """The guard of the disk and the running tasks; `tell` receives a task that must be stopped."""

    def __init__(
        self,
        layout: Layout,
        reserve: Reserve,
        reapers: Callable[[], Collection[int]],
        tell: Callable[[Event], None],
        *,
        tail_bytes: int,
    ) -> None:
        self._layout = layout
        self._reserve = reserve
        self._reapers = reapers
        self._tell = tell
        self._tail_bytes = tail_bytes
        self._changed = threading.Condition()
        self._tasks: dict[str, _Task] = {}
        self._purges: list[Grant] = []
        self._closed = False
        self._full_at: float | None = None
        self._ample: Reference | None = None
        """The last time at which there was ample room, or most of it."""
        self._scarce: Reference | None = None
        """The time at which there began to be too little, without a task's fault."""
        self._low = False
        self._quiet_until = 0.0
        self._judge_at = 0.0
        self._look()
        self._thread = threads.start("disk guard", self._run, tell)

    def watch(self, grant: Grant, pid: int) -> None:
        """Watch this task from now on."""
        with self._changed:
            self._tasks[grant.execution] = _Task(grant=grant, pid=pid, started=time.time())
            if len(self._tasks) == 1:
                self._changed.notify()

    def leave(self, execution: str) -> None:
        """Stop watching this task."""
        with self._changed:
            self._tasks.pop(execution, None)

    def purge(self, grant: Grant) -> None:
        """Remove the files of this ended task, except the ends of its streams."""
        with self._changed:
            self._purges.append(grant)
            self._changed.notify()

    def close(self) -> None:
        """Stop watching."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=5.0)

    def ended(self, grant: Grant) -> Document:
        """Return an ended task's marks: if it exceeded its scratch space, if the disk is full, and who filled it."""
        now, disk = time.time(), disk_of(self._layout.root)
        with self._changed:
            task = self._tasks.pop(grant.execution, None) or _Task(grant=grant, pid=0, started=now - FULL_SECONDS)
            if task.stopped_at is not None:
                self._quiet_until = now + SETTLING_SECONDS
            was_full = self._full_at is not None and self._full_at >= max(task.started, now - FULL_SECONDS)
        is_full = disk is None or disk.full
        if grant.scratch_limit_bytes is None and not (is_full or was_full):
            return {}
        task.usage = used(self._directories(grant))
        marks: Document = {"disk_full": True} if is_full or was_full else {}
        if (excess := scratch_excess(grant, task.usage)) is not None:
            marks["scratch_exceeded"] = excess
        if disk is not None and is_full and self._taker(disk, {grant.execution: task}, {}) is not None:
            self._quiet_until = now + SETTLING_SECONDS
            marks["disk_filled"] = self._words(disk, task)
        return marks

    # In the thread

    def _run(self) -> None:
        while True:
            disk = self._look()
            with self._changed:
                if not self._purges and not self._closed:
                    self._changed.wait(self._pause(disk))
                if self._closed:
                    return
                purges = list(self._purges)
            for grant in purges:
                self._layout.purge(grant, self._tail_bytes)
            if purges:
                with self._changed:
                    self._purges = [each for each in self._purges if each not in purges]

    def _pause(self, disk: Disk | None) -> float:
        """Return the seconds until the next check: before any task can have taken the room above the floor."""
        if disk is None or not self._tasks:
            return LATEST_SECONDS
        if self._scarce is not None:
            return LOW_SECONDS
        floor = floor_of(disk, self._reserve)
        spare = (disk.free.bytes - floor.bytes) / FASTEST_BYTES
        if disk.total.files:
            spare = min(spare, (disk.free.files - floor.files) / FASTEST_FILES)
        return min(LATEST_SECONDS, max(SOONEST_SECONDS, spare))

    def _look(self) -> Disk | None:
        """Check the disk, and the tasks that are due."""
        now, disk = time.time(), disk_of(self._layout.root)
        if disk is None:
            return None
        floor = floor_of(disk, self._reserve)
        low = below(disk.free, floor)
        with self._changed:
            if disk.full:
                self._full_at = now
            tasks = dict(self._tasks)
        due = [task for task in tasks.values() if task.due(now, low=low)]
        pids = self._processes(tasks) if due else {}
        for task in due:
            self._measure(task, pids)
        nobody = bool(low and due and now >= self._judge_at) and self._stop_taker(disk, tasks, pids)
        begins_low, self._low = low and not self._low, low
        if not tasks or self._room(disk, floor):
            self._ample, self._scarce = _reference(disk, now, tasks), None
        elif nobody and begins_low:
            self._scarce = _reference(disk, now, tasks)
        return disk

    def _room(self, disk: Disk, floor: Space) -> bool:
        """Return whether there is ample room, or as much as there was."""
        ample = not below(disk.free, Space(2 * floor.bytes, 2 * floor.files))
        return ample or self._ample is None or not below(disk.free, self._ample.free)

    def _measure(self, task: _Task, pids: _Pids) -> None:
        began, first = time.time(), task.looked_at is None
        task.usage = used(self._directories(task.grant), pids.get(task.grant.execution, ()))
        task.looked_at = time.time()
        task.cost_seconds = task.looked_at - began
        if first and task.grant.keeps_work:
            task.found = task.usage
        excess = scratch_excess(task.grant, task.usage)
        if excess is not None and task.stopped_at is None:
            self._stop(task, Cause.SCRATCH, excess)

    def _stop_taker(self, disk: Disk, tasks: Mapping[str, _Task], pids: _Pids) -> bool:
        """Stop the task that took the last room; return True if there is none, while no other task is being stopped."""
        now = time.time()
        stopping = any(each.stopped_at is not None and now - each.stopped_at < DYING_SECONDS for each in tasks.values())
        if stopping or self._purges or now < self._quiet_until:
            return False
        left = {execution: task for execution, task in tasks.items() if task.stopped_at is None}
        execution = self._taker(disk, left, pids)
        if execution is not None:
            self._stop(left[execution], Cause.DISK, self._words(disk, left[execution]))
        self._judge_at = time.time() + REST_FACTOR * (time.time() - now)
        return execution is None

    def _taker(self, disk: Disk, tasks: Mapping[str, _Task], pids: _Pids) -> str | None:
        """Return the one of these tasks that took the last room."""
        floor = floor_of(disk, self._reserve)
        for reference in filter(None, (self._ample, self._scarce)):
            found = taker(disk, floor, reference, {name: task.grown(reference) for name, task in tasks.items()})
            found = found or taker(disk, floor, reference, self._grown_elsewhere(disk, reference, tasks, pids))
            if found is not None:
                return found
        return None

    def _grown_elsewhere(
        self, disk: Disk, reference: Reference, tasks: Mapping[str, _Task], pids: _Pids
    ) -> dict[str, Space]:
        """Return the growth of tasks, with their files outside of their own directories."""
        lost = max(0, reference.free.bytes - disk.free.bytes), max(0, reference.free.files - disk.free.files)
        grown: dict[str, Space] = {}
        for execution, task in tasks.items():
            others, since = self._layout.elsewhere(task.grant), max(reference.when, task.started) - CLOCK_SECONDS
            usage = changed_elsewhere(self._directories(task.grant), others, pids.get(execution, ()), since)
            elsewhere = Space(*map(min, (usage.taken.bytes, usage.taken.files), lost))
            grown[execution] = task.grown(reference, elsewhere)
        return grown

    def _stop(self, task: _Task, cause: Cause, error: str) -> None:
        task.stopped_at = time.time()
        self._tell(Exceeded(execution=task.grant.execution, cause=cause, error=error))

    def _words(self, disk: Disk, task: _Task) -> str:
        floor, place = floor_of(disk, self._reserve), str(self._layout.root)
        return filled_words(disk, floor, task.growth, place, task.grant.disk_fills)

    def _directories(self, grant: Grant) -> list[str]:
        """Return the directories of a task's own files."""
        logs, work = self._layout.logs(grant), self._layout.work(grant)
        return [logs, work] if work is not None and grant.keeps_work else [logs]

    def _processes(self, tasks: Mapping[str, _Task]) -> _Pids:
        roots = {task.pid: execution for execution, task in tasks.items()}
        found = trees(process_table(), roots, self._reapers())
        return {execution: [each.pid for each in processes] for execution, processes in found.items()}
