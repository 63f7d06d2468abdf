"""The tasks that this worker holds: the start, the watch, the end and the reports of each.

An attempt is QUEUED when it was granted, SENT when it has a place in a lane, RUNNING once its process is known, SYNCING
while its files are being sent, and leaves with the report of its end. Part of the core: pure.
"""

import signal
from collections.abc import Callable, Iterable, Sequence

from worker import outcome
from worker.actions import Clear, Kill, Note, Purge, Run, Stream, Sync, Withdraw
from worker.asking import Experience, cost_of, excess
from worker.attempts import Attempt, Phase
from worker.events import (
    Cause,
    Collected,
    Document,
    Dropped,
    Exceeded,
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
"""The run time from which on a task's start is reported; for a shorter one only its end is."""
OVERHEAD_SECONDS = 0.05
"""The most of the pause between two tasks of a lane that counts as run time of the second."""
CHECK_SECONDS = 0.25
"""The longest interval between two checks of running tasks while it is unknown whether they run for long."""
COLLECT_SECONDS = 300.0
"""The time for reading the output of a task, after which the disk counts as broken."""
MOST_COLLECTING = 500
"""The number of ended tasks with unread output at which no more tasks are accepted."""
_NOT_COLLECTED = f"what the task left could not be read within {COLLECT_SECONDS:g} s"


class Tasks:
    """All attempts, by execution id. At most `ahead_seconds` of expected work wait here, and no task much longer."""

    def __init__(self, turn: Turn, outbox: Outbox, ahead_seconds: float) -> None:
        self.attempts: dict[str, Attempt] = {}
        self.experience = Experience()
        self.lanes = Lanes(self.experience.expected_seconds, ahead_seconds)
        self.uploads = False
        """True if the files of a task are sent before its end is reported."""
        self.taken = 0
        """The number of tasks that were accepted and not returned."""
        self._collecting = 0
        self._turn = turn
        self._outbox = outbox
        self._ahead_seconds = ahead_seconds
        self._check_at: float | None = None

    # Arrivals

    def accept(self, grants: Iterable[Grant]) -> None:
        """Add tasks to the local queue, and return those that would have to wait here for too long."""
        cost = self._cost()
        for grant in grants:
            self.taken += 1
            self.experience.saw(grant, self._turn.now)
            attempt = Attempt(grant=grant, received=self._turn.now)
            attempt.cost_seconds = cost(attempt)
            self.attempts[grant.execution] = attempt
            self.lanes.waiting.add(attempt)
        self.start()
        for attempt in self.lanes.waiting:
            if attempt.received == self._turn.now:
                self._turn.remind(1.0 + 2 * self._ahead_seconds, "overdue", attempt.grant.execution)
        self._give_back_unfit()
        for attempt in excess(self.lanes.waiting, self._ahead_seconds):
            self._drop(attempt)

    def give_back(self, grant: Grant) -> None:
        """Return a task that was not accepted, or not begun: other workers may have it at once."""
        report: Document = {"execution": grant.execution, "token": grant.token, "given_back": True}
        self._outbox.add(report, self._turn.now, urgent=True)

    def price(self) -> None:
        """Estimate anew the cost of the tasks that wait here."""
        self.lanes.waiting.price(self._cost())

    def _cost(self) -> Callable[[Attempt], float]:
        return cost_of(self.lanes.soon, self.experience, self.lanes.allocator.slots, self._ahead_seconds)

    @property
    def unsent(self) -> list[Document]:
        """Return the ends of tasks whose files are still being sent."""
        return [attempt.report for attempt in self.attempts.values() if attempt.report is not None]

    @property
    def collecting(self) -> list[str]:
        """Return the attempts that have ended while their output is still being read."""
        return [each for each, attempt in self.attempts.items() if attempt.phase is Phase.COLLECTING]

    @property
    def choked(self) -> bool:
        """Return whether the disk is too slow for the output of tasks."""
        return self._collecting >= MOST_COLLECTING

    @property
    def ended(self) -> bool:
        """Return whether no task waits or runs here."""
        return all(attempt.phase is Phase.SYNCING for attempt in self.attempts.values())

    def start(self) -> None:
        """Start the tasks for which there is room."""
        long_before = self.lanes.long_count
        for attempt in self.lanes.fill(self._turn.now):
            if attempt.allocation is not None:
                self._turn.do(Run(lane=attempt.lane, grant=attempt.grant, allocation=attempt.allocation))
        if self.lanes.long_count > long_before:
            self._give_back_stuck()
        self._check_later()

    def give_back_queued(self) -> None:
        """Return all tasks that have not started."""
        for attempt in list(self.lanes.waiting):
            self._drop(attempt)
        for attempt in self.attempts.values():
            if attempt.phase is Phase.SENT and attempt.cause is None:
                self._withdraw(attempt)

    def take_back(self, executions: Sequence[str]) -> None:
        """Return these attempts to the queue if they have not begun; report at once those that have, or have ended."""
        if executions:
            self._outbox.hurry()
        for execution in executions:
            attempt = self.attempts.get(execution)
            if attempt is None:
                continue
            if attempt.phase is Phase.QUEUED:
                self._drop(attempt)
            elif attempt.phase is Phase.SENT and attempt.cause is None:
                self._withdraw(attempt)
            elif attempt.pid is not None and not attempt.start_reported:
                self._report_start(attempt, urgent=True)

    def _withdraw(self, attempt: Attempt) -> None:
        """Take it back from its lane, unless it has started by then."""
        if not attempt.withdrawn:
            attempt.withdrawn = True
            self._turn.do(Withdraw(attempt.grant.execution))

    # Long tasks: no task waits behind them

    def _check_later(self) -> None:
        """Schedule the check for tasks that have become long."""
        due = self.lanes.next_long if self._check_at is None else None
        if due is not None:
            seconds = min(CHECK_SECONDS, max(0.0, due - self._turn.now))
            self._check_at = self._turn.now + seconds
            self._turn.remind(seconds, "check")

    def check(self) -> None:
        """Return the tasks that wait for long ones."""
        self._check_at = None
        if self.lanes.look_for_long_tasks(self._turn.now):
            self._give_back_stuck()
        self.price()
        self._check_later()

    def _give_back_stuck(self) -> None:
        for attempt in self.lanes.stuck():
            if attempt.phase is Phase.SENT and attempt.cause is None:
                self._withdraw(attempt)
        self.price()
        self._give_back_unfit()

    def _give_back_unfit(self) -> None:
        """Return the tasks that do not fit the resources that are soon free."""
        if not self.lanes.waiting:
            return
        soon = self.lanes.soon
        for attempt in [each for each in self.lanes.waiting if not each.grant.resources.fits(soon)]:
            self._drop(attempt)

    # Running tasks

    def started(self, event: Started) -> None:
        attempt = self.attempts.get(event.execution)
        if attempt is None or attempt.phase is not Phase.SENT:
            return
        attempt.phase, attempt.pid, attempt.time_started = Phase.RUNNING, event.pid, event.time_started
        if attempt.cause is not None:
            return self._signal(attempt)
        if attempt.withdrawn:
            self._report_start(attempt, urgent=True)
        else:
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

    def exceeded(self, event: Exceeded) -> None:
        """Kill a task that takes too much of the disk, without a grace, in which it could go on writing."""
        attempt = self.attempts.get(event.execution)
        if attempt is None or not attempt.live:
            return
        if attempt.cause is None:
            attempt.cause, attempt.error = event.cause, event.error
        attempt.took_disk = True
        self._turn.do(Note(f"task {attempt.grant.task} is stopped: {event.error}", warning=True))
        self._turn.do(Kill(event.execution, signal.SIGKILL))

    def progressed(self, event: Progressed) -> None:
        attempt = self.attempts.get(event.execution)
        if attempt is None or not attempt.live:
            return
        attempt.progress = event.progress
        said = {"execution": event.execution, "token": attempt.grant.token, "progress": event.progress}
        self._outbox.add(said, self._turn.now)

    def ring(self, what: str, execution: str) -> None:
        """Act on a due reminder about an attempt."""
        attempt = self.attempts.get(execution)
        if attempt is None:
            return
        if what == "overdue":
            self._overdue(attempt)
        elif what == "collect":
            self._end_uncollected(attempt)
        elif attempt.phase is not Phase.RUNNING:
            return
        elif what == "timeout" and attempt.cause is None:
            self._end_early(attempt, Cause.TIMEOUT)
        elif what == "kill":
            self._turn.do(Kill(execution, signal.SIGKILL))
        elif what == "start" and not attempt.start_reported:
            self._report_start(attempt)

    def _report_start(self, attempt: Attempt, *, urgent: bool = False) -> None:
        attempt.start_reported = True
        self._outbox.add(outcome.start(attempt), self._turn.now, urgent=urgent)
        if self.uploads and attempt.phase is Phase.RUNNING:
            self._turn.do(Stream(attempt.grant.execution))

    def _overdue(self, attempt: Attempt) -> None:
        """Return a task whose start is long overdue, unless it is about to start: another worker may have it."""
        if attempt.phase is Phase.QUEUED:
            self._drop(attempt)
        elif attempt.phase is Phase.SENT and self.lanes.behind(attempt):
            self._withdraw(attempt)

    # Early ends

    def cancel(self, executions: Iterable[str]) -> None:
        """End these at a user's request."""
        for execution in executions:
            attempt = self.attempts.get(execution)
            if attempt is not None and attempt.cause is None:
                self._end_early(attempt, Cause.CANCEL)

    def lose_server(self) -> None:
        """End all tasks, because the server no longer wants them."""
        for attempt in list(self.attempts.values()):
            self._end_early(attempt, Cause.SERVER_LOST)

    def abandon(self, execution: str | None = None) -> None:
        """Stop a task (or all) at once, without a report of its end."""
        for attempt in [self.attempts.get(execution)] if execution else list(self.attempts.values()):
            if attempt is not None and not attempt.over:
                attempt.cause = None
                self._end_early(attempt, Cause.ABANDON)

    def stop(self) -> float:
        """Ask all running tasks to end, without a report; return their longest grace in seconds."""
        for attempt in list(self.attempts.values()):
            if attempt.phase is not Phase.SYNCING and attempt.cause is None:
                self._end_early(attempt, Cause.STOP)
        return max((attempt.grant.grace_seconds for attempt in self.attempts.values() if attempt.live), default=0.0)

    def _end_early(self, attempt: Attempt, cause: Cause) -> None:
        if attempt.over:
            return
        attempt.cause = attempt.cause or cause
        if attempt.phase is Phase.QUEUED:
            self._drop(attempt)
        elif attempt.phase is Phase.SENT:
            self._withdraw(attempt)
        elif attempt.phase is Phase.RUNNING:
            self._signal(attempt)

    def _signal(self, attempt: Attempt) -> None:
        """Ask a task to end, and schedule its kill for the end of its grace."""
        execution = attempt.grant.execution
        if attempt.cause is Cause.ABANDON:
            self._turn.do(Kill(execution, signal.SIGKILL))
        elif not attempt.term_sent:
            attempt.term_sent = True
            self._turn.do(Kill(execution, signal.SIGTERM))
            self._turn.remind(attempt.grant.grace_seconds, "kill", execution)

    # Departures

    def exited(self, event: Exited) -> None:
        attempt = self.attempts.get(event.execution)
        if attempt is None:
            return
        self._learn(attempt, event)
        if attempt.silent:
            return self._discard(attempt)
        attempt.phase, attempt.exited = Phase.COLLECTING, event
        self._collecting += 1
        self._turn.remind(COLLECT_SECONDS, "collect", event.execution)
        return None

    def collected(self, event: Collected) -> None:
        attempt = self.attempts.get(event.execution)
        if attempt is None or attempt.phase is not Phase.COLLECTING or (end := attempt.exited) is None:
            return
        peak, source = outcome.peak_of(end, attempt.sampled_peak, event.collected.get("group_peak_bytes"))
        if not attempt.sampled_peak:
            self._outbox.add_sample(outcome.only_sample(attempt.grant, end, peak), self._turn.now)
        self._collecting -= 1
        self._end(attempt, outcome.of_exit(attempt, end, event.collected, (peak, source)))

    def _end_uncollected(self, attempt: Attempt) -> None:
        """Give up the output of a task: its disk does not answer. That is the machine's fault."""
        if attempt.phase is not Phase.COLLECTING:
            return
        self._turn.do(Note(f"task {attempt.grant.task}: {_NOT_COLLECTED}", warning=True))
        status = outcome.worker_failure(_NOT_COLLECTED)
        self._collecting -= 1
        self._end(attempt, outcome.of_never_started(attempt, status, _NOT_COLLECTED, self._turn.date))

    def _learn(self, attempt: Attempt, event: Exited) -> None:
        """Leave the lane, and record for how long one task of this class keeps a lane busy."""
        started, ended = event.time_started.timestamp(), event.time_terminated.timestamp()
        before = self.lanes.leave(attempt, ended, self._turn.now)
        begun = started if before is None else min(started, max(before, started - OVERHEAD_SECONDS))
        self.experience.learned(attempt.grant.task_class, max(0.0, ended - begun), self._turn.now)

    def not_started(self, event: NotStarted) -> None:
        attempt = self.attempts.get(event.execution)
        if attempt is None:
            return
        self.lanes.leave(attempt, None, self._turn.now)
        if attempt.silent:
            return self._discard(attempt)
        if event.exit_code is None:
            self._turn.do(Note(f"task {attempt.grant.task} could not be started: {event.reason}", warning=True))
        return self._end(attempt, outcome.of_no_start(attempt, event))

    def dropped(self, event: Dropped) -> None:
        attempt = self.attempts.get(event.execution)
        if attempt is not None:
            self.lanes.leave(attempt, None, self._turn.now)
            self._drop(attempt)

    def supervisor_lost(self, event: SupervisorLost) -> None:
        self._turn.do(Note("the supervisor died, and the tasks with it; another one is started", warning=True))
        lost = [each for each in self.attempts.values() if each.live and each.grant.execution in event.executions]
        for attempt in lost:
            self.lanes.leave(attempt, None, self._turn.now)
            if attempt.silent:
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
        if report["exit_status"] in outcome.TOOK_TOO_MUCH or attempt.took_disk:
            self._turn.do(Purge(attempt.grant.execution))
        if self.uploads:
            attempt.phase, attempt.report = Phase.SYNCING, report
            self._turn.do(Sync(attempt.grant.execution))
        else:
            self._outbox.add(report, self._turn.now, urgent=attempt.withdrawn)
            self._discard(attempt, files=False)

    def _drop(self, attempt: Attempt) -> None:
        """Drop an attempt that did not start: it was cancelled, is not wanted any more, or is returned."""
        if attempt.phase is Phase.QUEUED:
            self.lanes.waiting.remove(attempt)
        if attempt.cause is Cause.CANCEL:
            text = "cancelled before it started"
            report = outcome.of_never_started(attempt, outcome.CANCELLED, text, self._turn.date)
            self._outbox.add(report, self._turn.now)
        elif not attempt.silent:
            self.taken -= 1
            self.give_back(attempt.grant)
        self._discard(attempt)

    def _discard(self, attempt: Attempt, *, files: bool = True) -> None:
        del self.attempts[attempt.grant.execution]
        self._turn.forget(attempt.grant.execution)
        self._turn.do(Clear(attempt.grant.execution, files))
