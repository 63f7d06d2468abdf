"""Making grants and driving the worker's core without processes, clocks or a server."""

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from banyan.domain.resources import Resources
from worker.actions import Action, Ask, Run, Send
from worker.core import Core, Limits
from worker.events import Claimed, Collected, Event, Exited, Grant, Measured, NotStarted, Registered, Reported, Started

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def grant(execution: str, **fields: Any) -> Grant:
    """A grant of a command, as the server sends it; `fields` replace or add keys."""
    document = {
        "_id": f"task-{execution}",
        "execution": execution,
        "token": f"token-{execution}",
        "attempt": 1,
        "class": "class",
        "command": ["true"],
        "requested_resources": {"cores": 1},
    }
    return Grant.from_document(document | fields)


class CoreDriver:
    """A core, its clock, and everything it wanted done, in order."""

    def __init__(self, limits: Limits | None = None, *, cores: float = 2, register: bool = True, **kwargs: Any) -> None:
        numbers = itertools.count(1)
        self.now = 1000.0
        self.core = Core(limits or Limits(), lambda: f"request-{next(numbers)}", self.now, **kwargs)
        self.done: list[Action] = []
        self.cores = cores
        if register:
            self.say(Measured(Resources(millicores=round(cores * 1000), memory_bytes=8 << 30)))
            self.say(Registered(worker="worker-1", wait_seconds=20, uploads=False))

    @property
    def date(self) -> datetime:
        """The UTC time that goes with the monotonic clock."""
        return EPOCH + timedelta(seconds=self.now)

    def say(self, *events: Event) -> list[Action]:
        """Let the core hear of these, at once; what it wants done."""
        actions = self.core.handle(events, self.now, self.date)
        self.done += actions
        return actions

    def wait(self, seconds: float) -> list[Action]:
        """Let time pass, calling the core whenever it wants to be; what it wanted done meanwhile."""
        done: list[Action] = []
        until = self.now + seconds
        while (deadline := self.core.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            actions = self.say()
            done += actions
            if not actions and self.core.next_deadline() == deadline:
                raise AssertionError(f"the core asks to be called at {deadline} again and again")
        self.now = until
        return done + self.say()

    def grant(self, *grants: Grant) -> list[Action]:
        """Answer the open claim with these."""
        return self.say(Claimed(request=self.asked().body["request"], grants=grants))

    def asked(self) -> Ask:
        """The newest claim."""
        newest: Ask = self.all(Ask)[-1]
        return newest

    def all(self, kind: type[Any], among: Iterable[Action] | None = None) -> list[Any]:
        """All actions of one kind."""
        return [action for action in (self.done if among is None else among) if isinstance(action, kind)]

    def start(self, execution: str) -> list[Action]:
        """The task's process runs."""
        return self.say(Started(execution=execution, pid=4711, time_started=self.date))

    def exit(self, execution: str, status: int = 0, *, seconds: float = 0.0, **fields: Any) -> list[Action]:
        """The task ends, having run for so long."""
        return self.say(*self.exited(execution, status, seconds=seconds, **fields))

    def exited(
        self,
        execution: str,
        status: int = 0,
        *,
        seconds: float = 0.0,
        collected: dict[str, Any] | None = None,
        **fields: Any,
    ) -> list[Event]:
        """The events of it: its processes are gone, and what it left has been read."""
        values: dict[str, Any] = {
            "pid": 4711,
            "time_started": self.date - timedelta(seconds=seconds),
            "time_terminated": self.date,
            "wait_status": status,
            "peak_memory_bytes": 1 << 20,
            "peak_is_exact": True,
            "cpu_seconds": 0.5,
        }
        exited = Exited(execution=execution, **(values | fields))
        return [exited, Collected(execution=execution, collected=collected or {})]

    def not_started(self, execution: str, reason: str, exit_code: int | None = None) -> list[Action]:
        """The task could not be started."""
        return self.say(NotStarted(execution=execution, time_terminated=self.date, reason=reason, exit_code=exit_code))

    def reports(self) -> list[dict[str, Any]]:
        """All reports that were sent."""
        return [report for send in self.all(Send) for report in send.reports]

    def end_of(self, execution: str) -> dict[str, Any]:
        """The last report of the attempt's end, told or still to be told."""
        ends = [report for report in (*self.reports(), *self.core.outstanding) if "exit_status" in report]
        return [end for end in ends if end["execution"] == execution][-1]

    def settle(self) -> None:
        """The server accepts batch after batch until nothing more is told."""
        while self.all(Send, self.acknowledge()):
            continue

    def given_back(self) -> list[str]:
        """The attempts that were given back so far."""
        self.settle()
        return [report["execution"] for report in self.reports() if report.get("given_back")]

    def acknowledge(self) -> list[Action]:
        """The server accepts the batch under way."""
        last = self.all(Send)[-1]
        return self.say(Reported(accepted=[report["execution"] for report in last.reports]))

    def running(self) -> list[str]:
        """The attempts that were started, in order."""
        return [run.grant.execution for run in self.all(Run)]
