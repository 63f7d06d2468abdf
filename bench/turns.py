"""Measuring several contestants in turns, so that whatever else the machine does meets them all alike."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Self

import psutil

from bench.errors import Missing
from bench.processes import cpu_seconds
from bench.progress import say


class Watch:
    """A context manager that times its block, and counts the CPU time of this process and all beneath it."""

    seconds = 0.0
    cpu_seconds = 0.0

    def __enter__(self) -> Self:
        self._cpu = cpu_seconds(os.getpid())
        self._begun = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._begun
        self.cpu_seconds = cpu_seconds(os.getpid()) - self._cpu


Run = Callable[[int, Watch], float]
"""Does the work of so many tasks while the watch is on, checks all that came of it, and answers the measured value."""

_QUIET_SHARE = 0.15
_QUIET_SECONDS = 0.25
_WAIT_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """Ours, a peer or a floor, ready to be measured again and again."""

    name: str
    open: Callable[[], AbstractContextManager[Run]]
    """Starts all that it needs, and stops it at the end of the block; raises `Missing`."""
    count: int
    """How many tasks a run has."""
    rounds: int
    warm_up: int = 20
    """How many tasks the run has that is not counted; 0: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """The value of each round by contestant, and why some have none."""

    series: dict[str, list[float]]
    missing: dict[str, str]
    counts: dict[str, int]
    cpu_ms: dict[str, list[float]]
    """The CPU time of a task, that of client, servers and workers together; it depends less on what else runs."""

    @property
    def details(self) -> dict[str, object]:
        """What an answer tells of it."""
        return {"tasks": self.counts, "missing": self.missing, "cpu_ms_a_task": self.cpu_ms}


def once(
    open_ours: Callable[[], AbstractContextManager[Run]], count: int, warm_up: int = 20
) -> Callable[[Watch], None]:
    """A run of so many tasks that nobody measures, under the watch that it is given."""

    def again(watch: Watch) -> None:
        with open_ours() as run:
            run(warm_up, Watch())
            run(count, watch)

    return again


def in_turns(contestants: Sequence[Contestant], settle: Callable[[], None] | None = None) -> Turns:
    """Start all of them, warm each up, and let them run one after the other, round by round.

    All stay started in between, idle. The first of a round is another one each time. `settle` is called before each
    run; by default it waits a moment for a quiet machine.
    """
    settle = settle or _let_settle
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        runs: dict[str, Run] = {}
        for each in contestants:
            try:
                runs[each.name] = stack.enter_context(each.open())
            except Missing as error:
                missing[each.name] = str(error)
                say(f"  {each.name} is left out: {error}")
                continue
            if each.warm_up:
                runs[each.name](each.warm_up, Watch())
        present = [each for each in contestants if each.name in runs]
        series: dict[str, list[float]] = {each.name: [] for each in present}
        cpu_ms: dict[str, list[float]] = {each.name: [] for each in present}
        for number in range(max((each.rounds for each in present), default=0)):
            first = number % len(present)
            for each in present[first:] + present[:first]:
                if number < each.rounds:
                    settle()
                    watch = Watch()
                    series[each.name].append(runs[each.name](each.count, watch))
                    cpu_ms[each.name].append(round(1000 * watch.cpu_seconds / each.count, 3))
                    say(f"  {each.name}: {series[each.name][-1]:.4g} (CPU {cpu_ms[each.name][-1]:.3g} ms a task)")
    counts = {each.name: each.count for each in present}
    return Turns(series=series, missing=missing, counts=counts, cpu_ms=cpu_ms)


def _let_settle() -> None:
    """Wait a moment for what the last one left to do, as long as the machine is not quiet."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline:
        if psutil.cpu_percent(_QUIET_SECONDS) / 100 < _QUIET_SHARE:
            return
