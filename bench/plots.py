"""Plots of results as SVG, the same bytes for the same results."""

from pathlib import Path
from statistics import median

from bench.question import OURS, Answer
from bench.session import Line
from bench.table import figure

_OURS, _OTHERS = "#2f7d4f", "#8a94a6"
_LINEAR = 100.0
"""Series that differ by more are drawn on a logarithmic axis."""
_INCHES_WIDE, _INCHES_A_BAR = 7.0, 0.42


def worth_drawing(line: Line) -> bool:
    """Whether there is anything to compare."""
    return line.answer is not None and len(_measured(line.answer)) > 1


def draw(line: Line, path: Path) -> Path:
    """One bar for each series with the spread of its rounds; `path`."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    series = _measured(line.answer) if line.answer else {}
    middles = [median(values) for values in series.values()]
    below = [middle - min(values) for middle, values in zip(middles, series.values(), strict=True)]
    above = [max(values) - middle for middle, values in zip(middles, series.values(), strict=True)]
    with rc_context({"svg.hashsalt": line.name, "font.size": 10}):
        sheet = Figure(figsize=(_INCHES_WIDE, 1.0 + _INCHES_A_BAR * len(series)), layout="constrained")
        axes = sheet.subplots()
        colours = [_OURS if name == OURS or OURS not in series else _OTHERS for name in series]
        bars = axes.barh(list(series), middles, xerr=[below, above], color=colours, ecolor="#333333", capsize=3)
        axes.bar_label(bars, [figure(each) for each in middles], padding=6)
        if min(middles) > 0 and max(middles) / min(middles) > _LINEAR:
            axes.set_xscale("log")
        axes.margins(x=0.18)
        axes.invert_yaxis()
        axes.set_xlabel(line.answer.unit if line.answer else "")
        axes.spines[["top", "right"]].set_visible(False)
        sheet.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    return path


def _measured(answer: Answer) -> dict[str, list[float]]:
    return {name: list(values) for name, values in answer.series.items() if values}
