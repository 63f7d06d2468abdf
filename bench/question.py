"""What a benchmark is: a question, what is measured for it, and the targets that the answer is held against."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any

from bench.turns import Watch

Again = Callable[[Watch], object]

OURS = "banyan"


class Size(StrEnum):
    """How much is measured: all questions within 15 minutes on two cores, or as much as the answers deserve."""

    QUICK = "quick"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What an answer must reach: a ratio to a peer or floor of the same run, or a value."""

    text: str
    """As it stands in the table, such as "at least 2x HyperQueue"."""
    series: str = OURS
    relative_to: str | None = None
    """The series whose median ours is divided by; None where the median itself counts."""
    floor: bool = False
    """Whether that series is a floor, the bare work without a queue, and not a peer."""
    at_least: float | None = None
    at_most: float | None = None

    def reached(self, answer: "Answer") -> tuple[float, bool] | None:
        """The ratio or value, and whether it holds; None if a series that it needs was not measured."""
        needed = [self.series] if self.relative_to is None else [self.series, self.relative_to]
        if not all(answer.series.get(each) for each in needed):
            return None
        value = median(answer.series[self.series])
        if self.relative_to is not None:
            value /= median(answer.series[self.relative_to])
        holds = (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)
        return value, holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was measured in one session: for each series (ours, a peer, a floor) one value per repetition, in `unit`."""

    unit: str
    series: Mapping[str, Sequence[float]]
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else was seen, ready for JSON: counts, sizes, percentiles.

    `missing` maps each series that could not be measured to a sentence that says why and what helps.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One line of the table."""

    name: str
    """Lower case, words joined by hyphens; what `banyan-bench run NAME` takes."""
    text: str
    conditions: str
    """Durability, batch sizes, numbers of clients, servers and workers, heartbeat."""
    targets: tuple[Target, ...]
    measure: Callable[[Size], Answer]
    """Measures ours, the peers and the floors in turns. Whatever is missing in a run is an error, never a figure."""
    why: str = ""
    """What keeps the line from holding where it does not; shown only then."""
    again: Again | None = None
    """Does some seconds of ours once more, warm and under the watch, for a profile; nothing is measured."""
