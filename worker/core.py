"""The worker's state machine: events go in, actions come out. It reads no clock and does no I/O.

`Tasks` has the attempts, `Lanes` decides which task starts, `asking` makes the offers of claims, `Outbox` has the
reports; this module handles the server's responses and decides when the worker leaves.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from banyan.domain.resources import MILLI
from worker import asking
from worker.actions import Action, Ask, Forget, Keep, Leave, Note, Register, Send
from worker.allocation import offered, share
from worker.asking import Offer
from worker.claims import RETURN_SECONDS, Claims
from worker.events import (
    Claimed,
    Collected,
    Document,
    Drain,
    Dropped,
    Event,
    Exceeded,
    Exited,
    Forgotten,
    Grant,
    Measured,
    NotStarted,
    Progressed,
    Reached,
    Refused,
    Registered,
    Reported,
    Sample,
    Started,
    Stop,
    SupervisorLost,
    Synced,
    TurnedAway,
    Unanswered,
    Unreached,
)
from worker.outbox import Outbox
from worker.tasks import Tasks
from worker.turn import Turn

UNFIT_PAUSE_SECONDS = 1.0
"""The pause after a task that does not fit the worker's remaining lifetime."""
LAST_WORDS_SECONDS = 5.0
"""The time before the end of its lifetime at which a worker begins to leave."""
PARTING_SECONDS = 60.0
"""The time for which a leaving worker tries to send its last results and their files; its spool has the results."""
STOP_SECONDS = 3.0
"""The time for which a stopping worker waits for its last reports, and for tasks that it has killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits that the settings give to the core. Seconds and numbers: 0 means no limit."""

    max_tasks: int = 0
    ask_ahead_seconds: float = 2.0
    server_lost_seconds: float = 600.0
    idle_seconds: float = 0.0
    life_seconds: float = 0.0


class Core:
    """The worker's state. `ids` makes a fresh text for each claim.

    `replaces` is the id of the worker's previous life, `ends` are the reports that it left in the spool.
    """

    def __init__(
        self,
        limits: Limits,
        ids: Callable[[], str],
        now: float,
        *,
        replaces: str | None = None,
        ends: Iterable[Document] = (),
    ) -> None:
        self.worker: str | None = None
        self.left = False
        self.turned_away = False
        self._limits = limits
        self._turn = Turn(now)
        self._outbox = Outbox(ends)
        self._tasks = Tasks(self._turn, self._outbox, limits.ask_ahead_seconds)
        self._replaces = replaces
        self._measured = False
        self._registering = False
        self._wait_seconds = 20.0
        self._claims = Claims(ids)
        self._forgotten: dict[str, str | None] = {}  # removed directories, and the last claim that reported each
        self._reached_at = self._busy_at = now
        self._away = False
        self._server_lost = False
        self._draining = False
        self._stopping = False
        self._leave_by: float | None = None
        self._ends_at = now + limits.life_seconds if limits.life_seconds else None
        if limits.life_seconds:
            self._turn.remind(max(0.0, limits.life_seconds - LAST_WORDS_SECONDS), "nearly over")
            self._turn.remind(limits.life_seconds, "over")

    @property
    def outstanding(self) -> list[Document]:
        """Return the reports of ends that the server has not acknowledged."""
        return [*self._outbox.ends, *self._tasks.unsent]

    @property
    def held(self) -> list[str]:
        """Return the attempts that the worker has, and whose end is not acknowledged."""
        attempts = self._tasks.attempts
        return [*attempts, *(each for each in self._outbox.unacknowledged if each not in attempts)]

    def handle(self, events: Iterable[Event], now: float, date: datetime) -> list[Action]:
        """Process these events, and return the actions that follow. `now` is monotonic, `date` the UTC time."""
        self._turn.begin(now, date)
        for event in events:
            _HANDLERS[type(event)](self, event)
        for what, execution in self._turn.due():
            if what == "nearly over":
                self._drain(Drain("its time limit is near"))
            elif what == "over":
                self._kill()
            elif what == "check":
                self._tasks.check()
            else:
                self._tasks.ring(what, execution)
        if not self.left:
            self._advance()
        return self._turn.end()

    def next_deadline(self) -> float | None:
        """Return the latest time of the next `handle`, on the monotonic clock, if no event happens before."""
        if self.left:
            return None
        told = self._outbox.due(self._busy) if self.worker else None
        idle = self._busy_at + self._limits.idle_seconds
        may_idle = self._limits.idle_seconds and not self._tasks.attempts and not self._draining
        due = [self._turn.next_reminder, told, self._outbox.keep_due, self._leave_by, *self._claims.deadlines]
        due.append(idle if may_idle else None)
        return min((when for when in due if when is not None), default=None)

    # The consequences of any event

    @property
    def _busy(self) -> bool:
        """Return whether there is more to do here, so that reports can wait a moment."""
        return self._tasks.lanes.backlog

    def _advance(self) -> None:
        if self._measured and self.worker is None and not self._registering and not self.left:
            self._registering = True
            capacity = self._tasks.lanes.allocator.capacity
            resources = offered(capacity, capacity)
            finished = [*self._outbox.unacknowledged, *self._tasks.collecting]
            finished += [report["execution"] for report in self._tasks.unsent]
            self._turn.do(Register(resources=resources, replaces=self._replaces, finished=finished))
        self._tasks.start()
        if self._tasks.attempts:
            self._busy_at = self._turn.now
        self._ask()
        due = self._outbox.due(self._busy)
        if self.worker is not None and due is not None and due <= self._turn.now:
            reports, samples = self._outbox.batch(self._turn.now)
            self._turn.do(Send(worker=self.worker, reports=reports, samples=samples))
        keep = self._outbox.keep_due
        if keep is not None and keep <= self._turn.now:
            self._turn.do(Keep(self._outbox.to_keep()))
        self._perhaps_leave()

    def _ask(self) -> None:
        if self.worker is None or (self._draining and not self.held):
            return
        now = self._turn.now
        takes_nothing = self._draining or self._server_lost or self._tasks.choked
        offer = asking.NOTHING if takes_nothing or self._claims.paused(now) else self._offer()
        request = self._claims.ask(offer, now, idle=self._tasks.lanes.idle, take_back=takes_nothing)
        if request is None:
            return
        self._tasks.price()
        body = {
            "request": request,
            "number": self._claims.number,
            **offer.to_document(),
            **self._ahead(offer),
            "held": self.held,
            "unanswered": list(self._claims.overtaken),
            "cancelling": self._ending,
            "draining": self._draining,
            "wait": self._wait_seconds,
        }
        if self._forgotten:
            body["forgotten"] = list(self._forgotten)
            self._forgotten = dict.fromkeys(self._forgotten, request)
        self._turn.do(Ask(worker=self.worker, body=body))

    @property
    def _ending(self) -> list[str]:
        """Return the attempts that need no cancellation: they are being ended, or have ended."""
        ending = [each for each, attempt in self._tasks.attempts.items() if attempt.cause or attempt.over]
        return [*ending, *(each for each in self._outbox.unacknowledged if each not in ending)]

    def _offer(self) -> Offer:
        lanes, capacity = self._tasks.lanes, self._tasks.lanes.allocator.capacity
        return asking.offer(
            offered(lanes.free, capacity),
            offered(lanes.soon, capacity),
            lanes.waiting,
            self._tasks.experience,
            here=len(self._tasks.attempts),
            ahead_seconds=self._limits.ask_ahead_seconds,
            room=self._room,
        )

    def _ahead(self, offer: Offer) -> Document:
        lanes, experience = self._tasks.lanes, self._tasks.experience
        seconds = self._limits.ask_ahead_seconds
        slots = lanes.allocator.slots
        return asking.ahead_document(offer, lanes.waiting, experience, slots, seconds, self._turn.now)

    @property
    def _room(self) -> int | None:
        """Return how many tasks may still be taken in this life; None: any number."""
        return max(0, self._limits.max_tasks - self._tasks.taken) if self._limits.max_tasks else None

    # The server

    def _on_measured(self, event: Measured) -> None:
        self._measured = True
        allocator, cores = self._tasks.lanes.allocator, event.capacity.millicores
        if 0 < cores < MILLI and cores != allocator.capacity.millicores:
            text = "tasks that ask for one, or for nothing, run one at a time and get all of that"
            self._turn.do(Note(f"there are {cores / MILLI:g} cores, less than one: {text}"))
        allocator.resize(event.capacity, event.gpu_indexes)

    def _on_registered(self, event: Registered) -> None:
        self.worker = event.worker
        self._registering = False
        self._tasks.uploads = event.uploads
        self._wait_seconds = event.wait_seconds
        self._claims.clear()
        self._on_reached(Reached())

    def _on_claimed(self, event: Claimed) -> None:
        self._on_reached(Reached())
        self._forgotten = {name: told for name, told in self._forgotten.items() if told != event.request}
        self._forget(event.forget)
        self._tasks.cancel(event.cancel)
        if event.take_back:
            self._tasks.take_back(event.take_back)
            self._claims.wait_for_returns(self._turn.now + RETURN_SECONDS)
        counts = self._claims.answered(event.request, granted=bool(event.grants))
        if counts:
            self._accept(grant for grant in event.grants if grant.execution not in self._tasks.attempts)
        if event.drain and counts:
            self._turn.do(Note("the server gives this worker no more tasks; running ones are finished"))
            self._tasks.give_back_queued()

    def _on_unanswered(self, event: Unanswered) -> None:
        self._claims.give_up(event.request)

    def _accept(self, grants: Iterable[Grant]) -> None:
        accepted: list[Grant] = []
        capacity = self._tasks.lanes.allocator.capacity
        for asked in grants:
            resources = share(asked.resources, capacity)
            grant = asked if resources is asked.resources else replace(asked, resources=resources)
            too_many = self._room is not None and len(accepted) >= self._room
            if self._draining or too_many or not self._fits_our_life(grant):
                self._claims.pause(self._turn.now + UNFIT_PAUSE_SECONDS)
                self._tasks.give_back(grant)
            else:
                accepted.append(grant)
        if accepted:
            self._tasks.accept(accepted)

    def _fits_our_life(self, grant: Grant) -> bool:
        if self._ends_at is None:
            return True
        return grant.timeout_seconds is not None and self._turn.now + grant.timeout_seconds <= self._ends_at

    def _on_reported(self, event: Reported) -> None:
        self._on_reached(Reached())
        self._outbox.answered(event.accepted, event.stale, self._turn.now)
        self._claims.returned()
        self._forget(event.forget)
        self._tasks.cancel(event.cancel)
        self._tasks.take_back(event.take_back)
        for execution in event.stale:
            attempt = self._tasks.attempts.get(execution)
            if attempt is not None:
                text = f"task {attempt.grant.task}: the server has given up this attempt, so it is stopped"
                self._turn.do(Note(text, warning=True))
                self._tasks.abandon(execution)

    def _on_refused(self, event: Refused) -> None:
        if event.worker != self.worker:
            return
        text = "the server has given up this worker: its tasks are stopped, and it registers anew"
        self._turn.do(Note(text, warning=True))
        self._on_reached(Reached())
        self._tasks.abandon()
        self._outbox.returned()
        self._claims.clear()
        self._replaces, self.worker = self.worker, None

    def _on_reached(self, event: Reached) -> None:
        self._reached_at = self._turn.now
        if self._away:
            self._away = self._server_lost = False
            self._turn.do(Note("the server answers again"))

    def _on_turned_away(self, event: TurnedAway) -> None:
        if self._claims.ever_asked:  # it was admitted before: that may be mended, and tasks of ours may run
            self._on_unreached(Unreached(event.reason))
            return
        self._turn.do(Note(event.reason, warning=True))
        self.left = self.turned_away = True
        self._turn.do(Leave(None))

    def _on_unreached(self, event: Unreached) -> None:
        if not self._away:
            self._away = True
            self._turn.do(Note(f"{event.reason} (trying again)", warning=True))
        silence = self._turn.now - self._reached_at
        if not self._server_lost and silence >= self._limits.server_lost_seconds:
            self._server_lost = True
            text = f"no response from the server for {silence:.0f} s: the tasks are given up"
            self._turn.do(Note(text, warning=True))
            self._tasks.lose_server()

    def _forget(self, names: Iterable[str]) -> None:
        if names:
            self._turn.do(Forget(list(names)))

    def _on_forgotten(self, event: Forgotten) -> None:
        self._forgotten |= dict.fromkeys(event.names)

    # Leaving

    def _drain(self, event: Drain) -> None:
        if self._draining:
            return
        self._draining = True
        running = sum(attempt.live for attempt in self._tasks.attempts.values())
        first = f"; first {running} running tasks are finished" if running else ""
        self._turn.do(Note(f"leaving, because {event.reason}{first}"))
        self._tasks.give_back_queued()

    def _on_stop(self, event: Stop) -> None:
        """Ask the tasks to end, within their grace; a second time, kill them."""
        if self._stopping:
            return self._kill()
        if self._draining and self._tasks.attempts:
            self._turn.do(Note("stopping: running tasks are asked to end, and go back to the queue"))
        self._drain(Drain("it has to stop"))
        self._stopping = True
        self._leave_by = self._turn.now + self._tasks.stop() + STOP_SECONDS
        return None

    def _kill(self) -> None:
        if self._draining and self._tasks.attempts:
            self._turn.do(Note("stopping now: running tasks are killed and go back to the queue"))
        self._drain(Drain("it has to stop now"))
        self._tasks.abandon()
        self._leave_by = self._turn.now + STOP_SECONDS

    def _perhaps_leave(self) -> None:
        now, attempts = self._turn.now, self._tasks.attempts
        if not attempts and self._room == 0:
            self._drain(Drain(f"it has run {self._tasks.taken} tasks"))
        if not attempts and self._limits.idle_seconds and now >= self._busy_at + self._limits.idle_seconds:
            self._drain(Drain(f"it was idle for {self._limits.idle_seconds:g} s"))
        if not self._draining:
            return
        if self._tasks.ended and self._leave_by is None:
            self._leave_by = now + PARTING_SECONDS
        elif self._tasks.ended and self._stopping and self._leave_by is not None:
            self._leave_by = min(self._leave_by, now + STOP_SECONDS)
        if not self.held or (self._leave_by is not None and now >= self._leave_by):
            self.left = True
            self._turn.do(Leave(self.worker))


_HANDLERS: dict[type, Callable[[Core, Any], None]] = {
    Measured: Core._on_measured,
    Registered: Core._on_registered,
    Claimed: Core._on_claimed,
    Forgotten: Core._on_forgotten,
    Unanswered: Core._on_unanswered,
    Reported: Core._on_reported,
    Refused: Core._on_refused,
    TurnedAway: Core._on_turned_away,
    Reached: Core._on_reached,
    Unreached: Core._on_unreached,
    Drain: Core._drain,
    Stop: Core._on_stop,
    Started: lambda core, event: core._tasks.started(event),
    Exited: lambda core, event: core._tasks.exited(event),
    Collected: lambda core, event: core._tasks.collected(event),
    NotStarted: lambda core, event: core._tasks.not_started(event),
    Dropped: lambda core, event: core._tasks.dropped(event),
    Synced: lambda core, event: core._tasks.synced(event),
    Sample: lambda core, event: core._tasks.sampled(event),
    Exceeded: lambda core, event: core._tasks.exceeded(event),
    Progressed: lambda core, event: core._tasks.progressed(event),
    SupervisorLost: lambda core, event: core._tasks.supervisor_lost(event),
}
