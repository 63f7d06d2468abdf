"""The executor of the core's actions, and the translation of the supervisors' answers into events.

Threads do all work on disks: `_disk` makes and removes directories in the order of the actions, `_readers` read the
output of ended tasks, `_trash` removes discarded directories.
"""

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from worker.actions import (
    Action,
    Ask,
    Clear,
    Forget,
    Keep,
    Kill,
    Leave,
    Note,
    Purge,
    Register,
    Run,
    Send,
    Stream,
    Sync,
    Withdraw,
)
from worker.background import Crew
from worker.disk_guard import DiskGuard
from worker.events import Collected, Document, Dropped, Event, Exited, Forgotten, Grant, NotStarted, Started
from worker.executors import CannotStart, Executors
from worker.layout import Layout
from worker.link import Link
from worker.offspring import cpu_ticks
from worker.outcome import MARKS
from worker.spawner import Job, Spawner
from worker.uploads import Uploads
from worker.usage import Watched, Watcher

CLOSE_SECONDS = 2.0


class Hands:
    """The executor of actions; it knows the grants of the tasks at hand, and their processes.

    `spawner` is None while a supervisor that died is being replaced. `tell` passes an event to the core, `wake` makes
    the loop turn; both from any thread.
    """

    def __init__(
        self,
        *,
        link: Link,
        executors: Executors,
        layout: Layout,
        watcher: Watcher,
        guard: DiskGuard,
        uploads: Uploads,
        spawner: Spawner,
        register: Callable[[Register], Document],
        note: Callable[[Note], None],
        tell: Callable[[Event], None],
        wake: Callable[[], None],
    ) -> None:
        self.spawner: Spawner | None = spawner
        self._disk = Crew("disk", tell, wake, most=1)
        self._readers = Crew("collect", tell, wake)
        self._trash = Crew("trash", tell, most=1)
        self._done: queue.SimpleQueue[Callable[[], Event | None]] = queue.SimpleQueue()
        self._link = link
        self._executors = executors
        self._layout = layout
        self._watcher = watcher
        self._guard = guard
        self._uploads = uploads
        self._grants: dict[str, Grant] = {}
        self._preparing: set[str] = set()
        """Attempts whose directories are being made."""
        self._held_back: dict[str, tuple[int, Job]] = {}
        """Jobs that wait for a supervisor."""
        self._spawned: set[str] = set()
        """Attempts that a supervisor has, and whose end it has not reported."""
        self._pids: dict[str, int] = {}
        self._happened: list[Event] = []
        self._does: dict[type, Callable[[Any], None]] = {
            Register: lambda action: link.register(lambda: register(action)),
            Ask: link.ask,
            Send: link.send,
            Keep: lambda action: link.keep(action.ends),
            Run: self._run,
            Withdraw: self._withdraw,
            Kill: self._kill,
            Stream: lambda action: uploads.begin(self._grants[action.execution]),
            Purge: lambda action: guard.purge(self._grants[action.execution]),
            Sync: lambda action: uploads.end(self._grants[action.execution]),
            Clear: self._clear,
            Forget: self._forget,
            Leave: lambda action: None,  # the loop ends by itself
            Note: note,
        }
        self._hears: dict[str, Callable[..., Event | None]] = {
            "started": self._started,
            "exited": self._exited,
            "failed": self._failed,
            "dropped": self._dropped,
        }
        self.empty_trash()

    def do(self, action: Action) -> None:
        """Carry out an action."""
        self._does[type(action)](action)

    def hear(self, answers: Sequence[tuple[Any, ...]]) -> Iterator[Event]:
        """Yield the events that follow from the supervisors' answers. A start is left out if the end is among them."""
        ended = {key for kind, key, *_ in answers if kind == "exited"}
        for kind, key, *rest in answers:
            if kind == "started" and key in ended:
                continue
            event = self._hears[kind](key, *rest)
            if event is not None:
                yield event

    @property
    def restless(self) -> bool:
        """Return whether there are events that the core has not received."""
        return bool(self._happened)

    @property
    def busy(self) -> bool:
        """Return whether the threads have waiting work: `happened` must be called soon."""
        return self._disk.busy or self._readers.busy

    def happened(self) -> list[Event]:
        """Return the events that occurred since."""
        self._disk.relieve()
        self._readers.relieve()
        while True:
            try:
                event = self._done.get_nowait()()
            except queue.Empty:
                break
            if event is not None:
                self._happened.append(event)
        happened, self._happened = self._happened, []
        return happened

    def empty_trash(self) -> None:
        """Remove discarded directories, also those of an earlier life."""
        if not self._trash.waiting:
            self._trash.do(self._layout.trash.empty)

    def lose_spawner(self) -> tuple[list[int], frozenset[str]]:
        """Record a supervisor's death; return the process groups of running tasks, and all lost attempts."""
        groups, lost = list(self._pids.values()), frozenset(self._spawned)
        self.spawner = None
        self._spawned.clear()
        for execution in list(self._pids):
            self._over(execution)
            self._guard.leave(execution)
        return groups, lost

    def use(self, spawner: Spawner) -> None:
        """Use another supervisor."""
        self.spawner = spawner
        held_back, self._held_back = self._held_back, {}
        for execution, (lane, job) in held_back.items():
            self._spawn(execution, lane, job)

    def close(self) -> None:
        """Finish the work on the disk, for a moment at most."""
        self._disk.close(CLOSE_SECONDS)
        self._readers.close(0.0)
        self._trash.close(0.0)

    # Actions

    def _run(self, action: Run) -> None:
        self._grants[action.grant.execution] = action.grant
        self._preparing.add(action.grant.execution)
        self._disk.do(partial(self._prepare, action))

    def _prepare(self, action: Run) -> None:
        """Make the directories, in the thread `disk`."""
        grant = action.grant
        if grant.execution not in self._preparing:
            return  # the attempt was withdrawn
        try:
            job = self._executors.of(grant).prepare(grant, action.allocation)
        except CannotStart as error:
            event = self._not_started(grant, error)
            self._done.put(lambda: event if self._still_wanted(grant) else None)
        else:
            self._done.put(partial(self._prepared, grant, action.lane, job))

    def _still_wanted(self, grant: Grant) -> bool:
        """Return whether the attempt was not withdrawn while its directories were made."""
        wanted = grant.execution in self._preparing
        self._preparing.discard(grant.execution)
        return wanted

    def _prepared(self, grant: Grant, lane: int, job: Job) -> None:
        if self._still_wanted(grant):
            self._spawn(grant.execution, lane, job)

    def _spawn(self, execution: str, lane: int, job: Job) -> None:
        if self.spawner is None:
            self._held_back[execution] = lane, job
        else:
            self._spawned.add(execution)
            self.spawner.run(lane, execution, job)

    def _withdraw(self, action: Withdraw) -> None:
        execution = action.execution
        if execution in self._preparing or self._held_back.pop(execution, None) is not None:
            self._preparing.discard(execution)
            self._happened.append(Dropped(execution))
        elif self.spawner is not None:
            self.spawner.drop(execution)

    def _kill(self, action: Kill) -> None:
        if self.spawner is not None:
            self.spawner.signal(action.execution, action.signal)

    def _clear(self, action: Clear) -> None:
        grant = self._grants.pop(action.execution, None)
        if grant is not None and action.files:
            self._uploads.drop(action.execution)
            self._disk.do(partial(self._remove, grant))

    def _remove(self, grant: Grant) -> None:
        """Remove the directories, in the thread `disk`."""
        self._executors.release(grant)
        self._layout.clear(grant)
        self.empty_trash()

    def _forget(self, action: Forget) -> None:
        busy = {grant.task for grant in self._grants.values()}
        self._disk.do(partial(self._throw_away, action.names, busy))

    def _throw_away(self, names: Sequence[str], busy: set[str]) -> None:
        """Remove forgotten directories, in the thread `disk`."""
        gone = self._layout.forget(names, busy)
        if gone:
            self._done.put(lambda: Forgotten(names=gone))
            self.empty_trash()

    # The supervisors' answers

    def _started(self, execution: str, pid: int, when: float) -> Event | None:
        grant = self._grants.get(execution)
        if grant is None:
            return None
        self._pids[execution] = pid
        self._watcher.watch(
            Watched(
                execution=execution,
                pid=pid,
                since=time.monotonic(),
                memory_limit_bytes=grant.memory_limit_bytes,
                progress_path=f"{self._layout.told(grant)}/progress.json",
                gpus=grant.resources.gpus > 0,
                cpu_ticks=cpu_ticks(pid) if grant.document.get("model") is not None else 0,
            )
        )
        self._guard.watch(grant, pid)
        return Started(execution=execution, pid=pid, time_started=_date(when))

    def _exited(
        self,
        execution: str,
        pid: int,
        started: float,
        ended: float,
        status: int,
        peak: int,
        exact: bool,
        cpu: float,
        outcome: Document | None,
        alone: bool,
    ) -> Event | None:
        self._spawned.discard(execution)
        self._over(execution)
        grant = self._grants.get(execution)
        if grant is None:
            self._guard.leave(execution)
            return None
        self._readers.do(partial(self._collect, grant, outcome))
        return Exited(
            execution=execution,
            pid=pid,
            time_started=_date(started),
            time_terminated=_date(ended),
            wait_status=status,
            peak_memory_bytes=peak,
            peak_is_exact=exact,
            alone=alone,
            cpu_seconds=cpu,
        )

    def _collect(self, grant: Grant, outcome: Document | None) -> None:
        """Read the output, in one of the threads `collect`."""
        event = Collected(execution=grant.execution, collected=self._executors.of(grant).collect(grant, outcome))
        self._done.put(lambda: event)

    def _failed(self, execution: str, stage: str, number: int, text: str) -> None:
        self._spawned.discard(execution)
        grant = self._grants.get(execution)
        if grant is not None:
            self._readers.do(partial(self._explain, grant, stage, number, text))

    def _explain(self, grant: Grant, stage: str, number: int, text: str) -> None:
        """Find the fault, in one of the threads `collect`."""
        event = self._not_started(grant, self._executors.of(grant).refused(grant, stage, number, text))
        self._done.put(lambda: event)

    def _dropped(self, execution: str) -> Event:
        self._spawned.discard(execution)
        return Dropped(execution)

    def _not_started(self, grant: Grant, error: CannotStart) -> NotStarted:
        collected: Document = {}
        if error.exit_code is not None or error.exit_status is not None:
            collected = {k: v for k, v in self._executors.of(grant).collect(grant).items() if k not in MARKS}
        else:
            self._executors.release(grant)
        return NotStarted(
            execution=grant.execution,
            time_terminated=datetime.now(UTC),
            reason=error.reason,
            exit_code=error.exit_code,
            exit_status=error.exit_status,
            collected=collected,
        )

    def _over(self, execution: str) -> None:
        if self._pids.pop(execution, None) is not None:
            self._watcher.leave(execution)


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
