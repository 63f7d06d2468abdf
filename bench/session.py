"""One session of measuring: every question after the other on one machine, and the file that keeps what came of it."""

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Self

from banyan.errors import BanyanError, SetupError
from bench.errors import Incomplete
from bench.machine import machine, revision, versions
from bench.progress import say
from bench.question import Answer, Question, Size, Target
from bench.sampling import profile_of

_FORMAT = 1
_SOURCES = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A question with its answer, or with what went wrong."""

    name: str
    text: str
    conditions: str
    targets: tuple[Target, ...]
    answer: Answer | None = None
    error: str = ""
    seconds: float = 0.0
    why: str = ""

    def holds(self) -> bool | None:
        """Whether all targets hold; None if one of them could not be measured."""
        reached = [None if self.answer is None else target.reached(self.answer) for target in self.targets]
        if any(each is not None and not each[1] for each in reached):
            return False
        return None if self.answer is None or None in reached else True


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """All lines of one run of `banyan-bench`, and where they were measured."""

    begun: str
    size: Size
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    revision: str = ""
    lines: tuple[Line, ...] = field(default=())

    def to_json(self) -> str:
        """The whole as a file; `summary` and `reached` are for readers, and are worked out anew when it is read."""
        lines = [{**asdict(line), **_told(line)} for line in self.lines]
        whole = {"format": _FORMAT, **{name: getattr(self, name) for name in _PLAIN}, "lines": lines}
        return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote; SetupError if it is something else."""
        try:
            whole = json.loads(text)
            if whole["format"] != _FORMAT:
                raise SetupError(f"these results have the format {whole['format']}; this program reads {_FORMAT}")
            lines = tuple(_line(each) for each in whole["lines"])
            return cls(**{name: whole[name] for name in _PLAIN} | {"size": Size(whole["size"]), "lines": lines})
        except (ValueError, KeyError, TypeError) as error:
            raise SetupError(f"these are no results of banyan-bench: {error!r}") from error


_PLAIN = ("begun", "size", "machine", "versions", "revision")


def measure(questions: Sequence[Question], size: Size, keep: Callable[[Session], object] = lambda _: None) -> Session:
    """Ask all questions. One that cannot be answered is told with its error, and does not stop the others.

    `keep` is called after each with what is there so far.
    """
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    on, known, commit = machine(), versions(), revision(_SOURCES)
    session = Session(begun=begun, size=size, machine=on, versions=known, revision=commit)
    for question in questions:
        session = replace(session, lines=(*session.lines, _asked(question, size)))
        keep(session)
    return session


def _asked(question: Question, size: Size) -> Line:
    say(f"{question.name}: {question.text}")
    begun = time.monotonic()
    answer, fault = None, ""
    try:
        answer = question.measure(size)
    except (BanyanError, Incomplete) as error:
        fault = str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other lines are measured, and this one says so
        fault = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    if fault:
        say(f"  not measured: {fault}")
    shared = {name: getattr(question, name) for name in ("name", "text", "conditions", "targets", "why")}
    line = Line(**shared, answer=answer, error=fault)
    if answer is not None and question.again is not None and line.holds() is False:
        say("  it does not hold: once more, for a profile")
        line = replace(line, answer=replace(answer, details={**answer.details, "profile": profile_of(question.again)}))
    return replace(line, seconds=round(time.monotonic() - begun, 1))


def _told(line: Line) -> dict[str, Any]:
    if line.answer is None:
        return {"summary": {}, "reached": []}
    series = {name: values for name, values in line.answer.series.items() if values}
    summary = {name: {"median": median(v), "least": min(v), "most": max(v)} for name, v in series.items()}
    return {"summary": summary, "reached": [target.reached(line.answer) for target in line.targets]}


def _line(told: Mapping[str, Any]) -> Line:
    fields = {name: told[name] for name in ("name", "text", "conditions", "error", "seconds", "why")}
    answer = None if told["answer"] is None else Answer(**told["answer"])
    return Line(**fields, targets=tuple(Target(**each) for each in told["targets"]), answer=answer)
