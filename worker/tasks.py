"""The tasks that this worker holds: how each starts, is watched, is ended, and what is told of it.

An attempt is QUEUED when it was granted, SENT when it has a place in a lane, RUNNING once its process is known, SYNCING
while what it wrote is being sent, and leaves with the report of its end. Part of the core: pure.
"""

import signal
from collections.abc import Iterable

from worker import outcome
from worker.actions import Clear, Kill, Note, Run, Stream, Sync, Withdraw
from worker.asking import Experience
from worker.attempts import Attempt, Phase
from worker.events import (
    Cause,
    Document,
    Dropped,
    Exited,
    Grant,
    NotStarted,
    Progressed,
    Sample,
    Started,
    SupervisorLost,
    Synced,
)
from worker.lanes import Lanes
from worker.outbox import Outbox
from worker.turn import Turn

START_REPORT_SECONDS = 0.5
"""A task that runs longer has its start reported; a shorter one only its end."""
OVERHEAD_SECONDS = 0.05
"""How much of the pause between two tasks of a lane counts as the time that the second takes, at most."""


class Tasks:
    """All attempts, by execution id. `patience` is how many seconds a task may wait here before it is given back."""

    def __init__(self, turn: Turn, outbox: Outbox, patience: float) -> None:
        self.attempts: dict[str, Attempt] = {}
        self.experience = Experience()
        self.lanes = Lanes(self.experience.mean_seconds)
        self.uploads = False
        """Whether what a task wrote is to be sent before its end is reported."""
        self.taken = 0
        """How many were accepted and not given back."""
        self._turn = turn
        self._outbox = outbox
        self._patience = patience

    # Coming in

    def accept(self, grant: Grant) -> None:
        """Take a task into the local queue."""
        self.taken += 1
        self.experience.saw(grant, self._turn.now)
        attempt = Attempt(grant=grant, received=self._turn.now)
        self.attempts[grant.execution] = attempt
        self.lanes.wait(attempt)
        if len(self.lanes.queue) > 1 or not grant.resources.fits(self.lanes.allocator.free):
            self._turn.remind(self._patience, "overdue", grant.execution)

    def give_back(self, grant: Grant) -> None:
        """Return a task that was not taken."""
        self._outbox.add({"execution": grant.execution, "token": grant.token, "given_back": True}, self._turn.now)

    @property
    def unsent(self) -> list[Document]:
        """The ends of tasks whose files are still being sent."""
        return [attempt.report for attempt in self.attempts.values() if attempt.report is not None]

    @property
    def ended(self) -> bool:
        """Whether nothing waits or runs here."""
        return all(attempt.phase is Phase.SYNCING for attempt in self.attempts.values())

    def start(self) -> None:
        """Start what has room."""
        for attempt in self.lanes.fill():
            if attempt.allocation is not None:
                self._turn.do(Run(lane=attempt.lane, grant=attempt.grant, allocation=attempt.allocation))

    def give_back_queued(self) -> None:
        """Return everything that has not started."""
        for attempt in list(self.lanes.queue):
            self._drop(attempt)
        for attempt in self.attempts.values():
            if attempt.phase is Phase.SENT and attempt.cause is None:
                self._turn.do(Withdraw(attempt.grant.execution))

    # Running

    def started(self, event: Started) -> None:
        attempt = self.attempts.get(event.execution)
        if attempt is None or attempt.phase is not Phase.SENT:
            return
        attempt.phase, attempt.pid, attempt.time_started = Phase.RUNNING, event.pid, event.time_started
        if attempt.cause is not None:
            return self._signal(attempt)
        self._turn.remind(START_REPORT_SECONDS, "start", event.execution)
        if attempt.grant.timeout_seconds is not None:
            self._turn.remind(attempt.grant.timeout_seconds, "timeout", event.execution)
        return None

    def sampled(self, event: Sample) -> None:
        attempt = self.attempts.get(event.execution)
        if attempt is None or not attempt.live:
            return
        attempt.sampled_peak = max(attempt.sampled_peak, event.resident_memory_bytes)
        if event.kept:
            self._outbox.add_sample(outcome.sample(attempt.grant, event), self._turn.now)
        limit = attempt.grant.memory_limit_bytes
        if limit is not None and event.resident_memory_bytes > limit and attempt.cause is not Cause.MEMORY:
            attempt.cause = Cause.MEMORY
            self._turn.do(Kill(event.execution, signal.SIGKILL))

    def progressed(self, event: Progressed) -> None:
        attempt = self.attempts.get(event.execution)
        if attempt is None or not attempt.live:
            return
        attempt.progress = event.progress
        said = {"execution": event.execution, "token": attempt.grant.token, "progress": event.progress}
        self._outbox.add(said, self._turn.now)

    def ring(self, what: str, execution: str) -> None:
        """A reminder about an attempt is due."""
        attempt = self.attempts.get(execution)
        if attempt is None:
            return
        if what == "overdue":
            self._overdue(attempt)
        elif attempt.phase is not Phase.RUNNING:
            return
        elif what == "timeout" and attempt.cause is None:
            self._end_early(attempt, Cause.TIMEOUT)
        elif what == "kill":
            self._turn.do(Kill(execution, signal.SIGKILL))
        elif what == "start" and attempt.allocation is not None:
            self._outbox.add(outcome.start(attempt), self._turn.now)
            if self.uploads:
                self._turn.do(Stream(execution))

    def _overdue(self, attempt: Attempt) -> None:
        """It was to start long before now: others may have it, unless it is about to start."""
        if attempt.phase is Phase.QUEUED:
            self._drop(attempt)
        elif attempt.phase is Phase.SENT and self.lanes.behind(attempt):
            self._turn.do(Withdraw(attempt.grant.execution))

    # Ending early

    def cancel(self, executions: Iterable[str]) -> None:
        """End these because someone asked for it."""
        for execution in executions:
            attempt = self.attempts.get(execution)
            if attempt is not None and attempt.cause is None:
                self._end_early(attempt, Cause.CANCEL)

    def lose_server(self) -> None:
        """End everything, because the server cannot want it any more."""
        for attempt in list(self.attempts.values()):
            self._end_early(attempt, Cause.SERVER_LOST)

    def abandon(self, execution: str | None = None) -> None:
        """Stop a task (or all) at once, saying nothing of its end."""
        for attempt in [self.attempts.get(execution)] if execution else list(self.attempts.values()):
            if attempt is not None and attempt.phase is not Phase.SYNCING:
                attempt.cause = None
                self._end_early(attempt, Cause.STOP)

    def _end_early(self, attempt: Attempt, cause: Cause) -> None:
        attempt.cause = attempt.cause or cause
        if attempt.phase is Phase.QUEUED:
            self._drop(attempt)
        elif attempt.phase is Phase.SENT:
            self._turn.do(Withdraw(attempt.grant.execution))
        elif attempt.phase is Phase.RUNNING:
            self._signal(attempt)

    def _signal(self, attempt: Attempt) -> None:
        """Ask a task to end, and remember to kill it when its grace is over."""
        execution = attempt.grant.execution
        if attempt.cause is Cause.STOP:
            self._turn.do(Kill(execution, signal.SIGKILL))
        elif not attempt.term_sent:
            attempt.term_sent = True
            self._turn.do(Kill(execution, signal.SIGTERM))
            self._turn.remind(attempt.grant.grace_seconds, "kill", execution)

    # Going out

    def exited(self, event: Exited) -> None:
        attempt = self.attempts.get(event.execution)
        if attempt is None:
            return
        self._learn(attempt, event)
        if attempt.cause is Cause.STOP:
            return self._discard(attempt)
        peak = attempt.sampled_peak
        if event.peak_is_exact or not peak:
            peak = max(peak, event.peak_memory_bytes)
        if not attempt.sampled_peak:
            self._outbox.add_sample(outcome.only_sample(attempt.grant, event, peak), self._turn.now)
        return self._end(attempt, outcome.of_exit(attempt, event, peak))

    def _learn(self, attempt: Attempt, event: Exited) -> None:
        """Leave the lane, and learn how long one task of this class keeps a lane busy."""
        started, ended = event.time_started.timestamp(), event.time_terminated.timestamp()
        before = self.lanes.leave(attempt, ended)
        begun = started if before is None else min(started, max(before, started - OVERHEAD_SECONDS))
        self.experience.learned(attempt.grant.task_class, max(0.0, ended - begun), self._turn.now)

    def not_started(self, event: NotStarted) -> None:
        attempt = self.attempts.get(event.execution)
        if attempt is None:
            return
        self.lanes.leave(attempt, None)
        if attempt.cause is Cause.STOP:
            return self._discard(attempt)
        if event.exit_code is None:
            self._turn.do(Note(f"task {attempt.grant.task} could not be started: {event.reason}", warning=True))
        return self._end(attempt, outcome.of_no_start(attempt, event))

    def dropped(self, event: Dropped) -> None:
        attempt = self.attempts.get(event.execution)
        if attempt is not None:
            self.lanes.leave(attempt, None)
            self._drop(attempt)

    def supervisor_lost(self, event: SupervisorLost) -> None:
        self._turn.do(Note("the supervisor died, and the tasks with it; another one is started", warning=True))
        for attempt in [each for each in self.attempts.values() if each.live]:
            self.lanes.leave(attempt, None)
            if attempt.cause is Cause.STOP:
                self._discard(attempt)
            else:
                status = outcome.worker_failure("its supervisor died")
                self._end(attempt, outcome.of_never_started(attempt, status, "its supervisor died", self._turn.date))

    def synced(self, event: Synced) -> None:
        attempt = self.attempts.get(event.execution)
        if attempt is None or attempt.report is None:
            return
        report = attempt.report | ({"excess": dict(event.excess)} if event.excess else {})
        self._outbox.add(report, self._turn.now)
        self._discard(attempt)

    def _end(self, attempt: Attempt, report: Document) -> None:
        if self.uploads:
            attempt.phase, attempt.report = Phase.SYNCING, report
            self._turn.do(Sync(attempt.grant.execution))
        else:
            self._outbox.add(report, self._turn.now)
            self._discard(attempt, files=False)

    def _drop(self, attempt: Attempt) -> None:
        """An attempt that did not start: it was cancelled, is not wanted any more, or is given back."""
        if attempt.phase is Phase.QUEUED:
            self.lanes.remove(attempt)
        if attempt.cause is Cause.CANCEL:
            text = "cancelled before it started"
            report = outcome.of_never_started(attempt, outcome.CANCELLED, text, self._turn.date)
            self._outbox.add(report, self._turn.now)
        elif attempt.cause is not Cause.STOP:
            self.taken -= 1
            self.give_back(attempt.grant)
        self._discard(attempt)

    def _discard(self, attempt: Attempt, *, files: bool = True) -> None:
        del self.attempts[attempt.grant.execution]
        self._turn.forget(attempt.grant.execution)
        self._turn.do(Clear(attempt.grant.execution, files))
