"""Doing what the core wants, and telling it in its own words what the supervisor says."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
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
    Register,
    Run,
    Send,
    Stream,
    Sync,
    Withdraw,
)
from worker.events import Document, Dropped, Event, Exited, Forgotten, Grant, NotStarted, Started
from worker.executors import CannotStart, Executors
from worker.layout import Layout
from worker.link import Link
from worker.offspring import cpu_ticks
from worker.outcome import MARKS
from worker.spawner import Spawner
from worker.uploads import Uploads
from worker.usage import Watched, Watcher


class Hands:
    """Carries out actions; knows the grants of the tasks at hand, and their processes."""

    def __init__(
        self,
        *,
        link: Link,
        executors: Executors,
        layout: Layout,
        watcher: Watcher,
        uploads: Uploads,
        spawner: Callable[[], Spawner],
        register: Callable[[Register], Document],
        empty_trash: Callable[[], None],
        note: Callable[[Note], None],
    ) -> None:
        self._link = link
        self._executors = executors
        self._layout = layout
        self._watcher = watcher
        self._uploads = uploads
        self._spawner = spawner
        self._register = register
        self._empty_trash = empty_trash
        self._note = note
        self._grants: dict[str, Grant] = {}
        self._pids: dict[str, int] = {}
        self._happened: list[Event] = []
        self._does: dict[type, Callable[[Any], None]] = {
            Register: lambda action: link.register(lambda: register(action)),
            Ask: link.ask,
            Send: link.send,
            Keep: lambda action: link.keep(action.ends),
            Run: self._run,
            Withdraw: lambda action: spawner().drop(action.execution),
            Kill: lambda action: spawner().signal(action.execution, action.signal),
            Stream: lambda action: uploads.begin(self._grants[action.execution]),
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

    def do(self, action: Action) -> None:
        """Do this."""
        self._does[type(action)](action)

    def hear(self, answers: Sequence[tuple[Any, ...]]) -> Iterator[Event]:
        """What the supervisor's answers mean. The start of a task whose end is among them is not worth telling."""
        ended = {key for kind, key, *_ in answers if kind == "exited"}
        for kind, key, *rest in answers:
            if kind == "started" and key in ended:
                continue
            event = self._hears[kind](key, *rest)
            if event is not None:
                yield event

    @property
    def restless(self) -> bool:
        """Whether something has happened that the core does not know yet."""
        return bool(self._happened)

    def happened(self) -> list[Event]:
        """What happened while actions were done."""
        happened, self._happened = self._happened, []
        return happened

    def groups(self) -> list[int]:
        """The process groups of the running tasks."""
        return list(self._pids.values())

    def forget_all(self) -> None:
        """No process of a task is left."""
        for execution in list(self._pids):
            self._over(execution)

    # Actions

    def _run(self, action: Run) -> None:
        grant = action.grant
        self._grants[grant.execution] = grant
        try:
            job = self._executors.of(grant).prepare(grant, action.allocation)
        except CannotStart as error:
            self._happened.append(self._not_started(grant, error))
        else:
            self._spawner().run(action.lane, grant.execution, job)

    def _clear(self, action: Clear) -> None:
        grant = self._grants.pop(action.execution, None)
        if grant is not None and action.files:
            self._uploads.drop(action.execution)
            self._layout.clear(grant)

    def _forget(self, action: Forget) -> None:
        busy = {grant.task for grant in self._grants.values()}
        gone = self._layout.forget(action.names, busy)
        if gone:
            self._happened.append(Forgotten(names=gone))
            self._empty_trash()

    # What the supervisor says

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
    ) -> Event | None:
        self._over(execution)
        grant = self._grants.get(execution)
        if grant is None:
            return None
        return Exited(
            execution=execution,
            pid=pid,
            time_started=_date(started),
            time_terminated=_date(ended),
            wait_status=status,
            peak_memory_bytes=peak,
            peak_is_exact=exact,
            cpu_seconds=cpu,
            collected=self._executors.of(grant).collect(grant, outcome),
        )

    def _failed(self, execution: str, stage: str, number: int, text: str) -> Event | None:
        grant = self._grants.get(execution)
        if grant is None:
            return None
        return self._not_started(grant, self._executors.of(grant).refused(grant, stage, number, text))

    def _dropped(self, execution: str) -> Event:
        return Dropped(execution)

    def _not_started(self, grant: Grant, error: CannotStart) -> NotStarted:
        collected: Document = {}
        if error.exit_code is not None:
            collected = {k: v for k, v in self._executors.of(grant).collect(grant).items() if k not in MARKS}
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
