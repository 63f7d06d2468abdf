"""The table: for each target its floor or peer, ours, the ratio, and whether it holds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.question import OURS, Target
from bench.session import Line, Session

_HEAD = ("question", "target", "floor", "peer", "ours", "ratio", "holds")
_NONE = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One target, in words."""

    question: str
    target: str
    floor: str = _NONE
    peer: str = _NONE
    ours: str = _NONE
    ratio: str = _NONE
    holds: str

    def cells(self) -> tuple[str, ...]:
        """In the order of the table's head."""
        return (self.question, self.target, self.floor, self.peer, self.ours, self.ratio, self.holds)


def rows(session: Session) -> list[Row]:
    """One row for each target, and one for a question without any."""
    return [row for line in session.lines for row in _rows_of(line)]


def text(session: Session) -> str:
    """The table for a terminal, with what is missing and why a line does not hold below it."""
    table = [_HEAD, *(row.cells() for row in rows(session))]
    widths = [max(len(row[i]) for row in table) for i in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    lines.insert(1, "  ".join("-" * width for width in widths))
    for line in session.lines:
        lines += remarks(line)
        for title, functions in profiles(line):
            lines += ["", f"  {title}", *(f"  {share:>6}  {own:>6}  {name}" for share, own, name in functions), ""]
    return "\n".join(lines) + "\n"


def markdown(session: Session) -> str:
    """The table for the documentation."""
    body = [_HEAD, tuple("---" for _ in _HEAD), *(row.cells() for row in rows(session))]
    return "\n".join(f"| {' | '.join(row)} |" for row in body) + "\n"


def remarks(line: Line) -> list[str]:
    """What there is to say of a line: that it failed, what is missing, why it does not hold."""
    said = [f"{line.name} was not measured: {line.error}"] if line.error else []
    said += [f"{line.name} was measured without {name}: {reason}" for name, reason in missing(line).items()]
    if line.holds() is False and (reasons := [each for each in (line.why, _spent(line), _unseen(line)) if each]):
        said.append(f"{line.name} does not hold: {'; '.join(reasons)}")
    return said


def profiles(line: Line) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """For each part of ours that did something a title and its functions: share with all calls, share alone, name."""
    profile = {part: each for part, each in _profile(line).items() if part != "missing" and each["functions"]}
    return [
        (_title(line, part, each), [_shown(function) for function in each["functions"]])
        for part, each in profile.items()
    ]


def _title(line: Line, part: str, profile: Mapping[str, Any]) -> str:
    packages = "".join(f", {name} {share:.0%}" for name, share in profile["packages"].items())
    return (
        f"{line.name}: the {part}'s time in Python ({profile['samples']:,} samples{packages}) by functions, "
        "with all that they call, and alone with libraries"
    )


def _shown(function: Mapping[str, Any]) -> tuple[str, str, str]:
    return f"{function['share']:.0%}", f"{function['own']:.0%}", f"{function['name']} ({function['file']})"


def _profile(line: Line) -> Mapping[str, Any]:
    return line.answer.details.get("profile", {}) if line.answer else {}


def _unseen(line: Line) -> str:
    reason = _profile(line).get("missing")
    return f"there is no profile of it: {reason}" if reason else ""


def _spent(line: Line) -> str:
    """Where the CPU time of ours went, for each task, and what those of the others took."""
    details = line.answer.details if line.answer else {}
    everyone = {name: f"{median(ms):.2f}" for name, ms in details.get("cpu_ms_a_task", {}).items() if ms}
    count = details.get("tasks", {}).get(OURS)
    parts = {name: 1000 * median(s) / count for name, s in details.get("cpu_seconds", {}).items() if count and s}
    ours = ", ".join(f"{name} {ms:.2f}" for name, ms in parts.items() if name != "wall")
    whole = ", ".join(f"{name} {ms}" for name, ms in everyone.items())
    return (f"ms of CPU time a task: {whole}" + (f" (of ours: {ours})" if ours else "")) if whole else ""


def missing(line: Line) -> dict[str, str]:
    """Which series of a line are not there, and why."""
    return {} if line.answer is None else dict(line.answer.details.get("missing", {}))


def figure(value: float) -> str:
    """A value with three digits that count."""
    if value == 0 or abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.2e}"


def spread(values: Sequence[float], unit: str) -> str:
    """The median with the least and the most beside it."""
    middle = f"{figure(median(values))} {unit}".rstrip().replace(" %", "%")
    return middle if len(values) == 1 else f"{middle} ({figure(min(values))} to {figure(max(values))})"


def _rows_of(line: Line) -> Iterator[Row]:
    if not line.targets:
        yield Row(question=line.name, target=_NONE, holds="not measured" if line.answer is None else _NONE)
    for target in line.targets:
        yield _row(line, target)


def _row(line: Line, target: Target) -> Row:
    if line.answer is None:
        return Row(question=line.name, target=target.text, holds="not measured")
    unit = line.answer.unit
    shown = {name: spread(values, unit) for name, values in line.answer.series.items() if values}
    beside = shown.get(target.relative_to or "", _NONE)
    reached = target.reached(line.answer)
    bounded = target.at_least is not None or target.at_most is not None
    verdict = ("yes" if reached[1] else "no") if reached is not None and bounded else _NONE
    return Row(
        question=line.name,
        target=target.text,
        floor=beside if target.floor else _NONE,
        peer=_NONE if target.floor else beside,
        ours=shown.get(target.series, _NONE),
        ratio=_NONE if reached is None or target.relative_to is None else f"{reached[0]:.2f}",
        holds=verdict if reached is not None else "not measured",
    )
