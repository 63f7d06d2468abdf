"""Measuring several contestants in turns, so that whatever else the machine does meets them all alike."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import psutil

from bench.errors import Missing
from bench.progress import say

Run = Callable[[int], float]
"""Does the work of so many tasks, checks all that came of it, and answers the measured value."""

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

    @property
    def details(self) -> dict[str, object]:
        """What an answer tells of it."""
        return {"tasks": self.counts, "missing": self.missing}


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
                runs[each.name](each.warm_up)
        present = [each for each in contestants if each.name in runs]
        series: dict[str, list[float]] = {each.name: [] for each in present}
        for number in range(max((each.rounds for each in present), default=0)):
            first = number % len(present)
            for each in present[first:] + present[:first]:
                if number < each.rounds:
                    settle()
                    value = runs[each.name](each.count)
                    series[each.name].append(value)
                    say(f"  {each.name}: {value:.4g}")
    return Turns(series=series, missing=missing, counts={each.name: each.count for each in present})


def _let_settle() -> None:
    """Wait a moment for what the last one left to do, as long as the machine is not quiet."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline:
        if psutil.cpu_percent(_QUIET_SECONDS) / 100 < _QUIET_SHARE:
            return
