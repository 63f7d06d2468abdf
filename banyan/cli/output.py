"""The output of the commands: tables for people, JSON for programs."""

import codecs
import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from textwrap import indent
from typing import TYPE_CHECKING, Any

from banyan import wire
from banyan.cli.columns import Cell

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

STATE_STYLES = {
    "inactive": "dim",
    "available": "cyan",
    "assigned": "cyan",
    "running": "bold blue",
    "pending_cancellation": "yellow",
    "terminated": "green",
    "cancelled": "yellow",
    "active": "green",
    "draining": "yellow",
    "quarantined": "red",
    "lost": "red",
    "gone": "dim",
}
WIDE = 160
"""The columns of a table that is not for a terminal."""

_BARS = "▁▂▃▄▅▆▇█"


def screen(stderr: bool = False) -> "Console":
    """Return a console on stdout or stderr; wide without a terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, soft_wrap=False, width=None if stream.isatty() else WIDE)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=not _knows_all())
    sys.stdout.write("\n")


def print_json_list(items: Iterable[Any]) -> int:
    """Print a JSON list on stdout while the items arrive; return their number."""
    count = 0
    for count, item in enumerate(items, 1):
        sys.stdout.write("[\n" if count == 1 else ",\n")
        sys.stdout.write(indent(json.dumps(item, indent=2, ensure_ascii=not _knows_all()), "  "))
    sys.stdout.write("\n]\n" if count else "[]\n")
    return count


def print_text_as_json(document: Mapping[str, Any], name: str, chunks: Iterable[bytes]) -> None:
    """Print one JSON document on stdout, with a long text in its last field that is printed as it arrives."""
    sys.stdout.write(json.dumps({**document, name: ""}, indent=2).removesuffix('"\n}'))
    for text in codecs.iterdecode(chunks, "utf-8", errors="replace"):
        sys.stdout.write(json.dumps(text, ensure_ascii=not _knows_all())[1:-1])
    sys.stdout.write('"\n}\n')


def _knows_all() -> bool:
    """Return whether standard output has every character; else JSON's escapes replace those that it lacks."""
    return str(getattr(sys.stdout, "encoding", "") or "utf-8").lower().replace("-", "") == "utf8"


def table(columns: Sequence[str], rows: "Iterable[Sequence[str | Cell | Text]]") -> "Table":
    """Return a plain table. Headings after `>` are aligned right; those after `~` are cut if space is short."""
    from rich.table import Table

    result = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        result.add_column(
            column.lstrip(">~"),
            justify="right" if column.startswith(">") else "left",
            no_wrap=not column.startswith("~"),
            min_width=8 if column.startswith("~") else None,
        )
    for row in rows:
        result.add_row(*(_cell(each) for each in row))
    return result


def facts(labelled: Mapping[str, Any]) -> "Table":
    """Return a line for each fact with a value, its label before it."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in labelled.items():
        if value not in (None, ""):
            grid.add_row(label, styled(value) if isinstance(value, (Cell, Text)) else Text(str(value)))
    return grid


def _cell(content: "str | Cell | Text") -> "Text":
    """Return one line, cut at the column's width; text is never read as markup."""
    from rich.text import Text

    shown = styled(content)
    return Text(str(shown), shown.style, no_wrap=True, overflow="ellipsis")


def styled(content: "str | Cell | Text") -> "Text":
    """Return the same for Rich."""
    from rich.text import Text

    if isinstance(content, Cell):
        return Text(content.text, content.style)
    return Text(content) if isinstance(content, str) else content


def state(document: Mapping[str, Any]) -> Cell:
    """Return the state of a task or worker in its colour; a failed task is red."""
    name = str(document.get("state", ""))
    bad = name == "terminated" and document.get("exit_status") != "success"
    return Cell(name, "red" if bad else STATE_STYLES.get(name, ""))


def task_state(task: Mapping[str, Any]) -> Cell:
    """Return the same for a task with `time_started`: one that its worker has not begun is called assigned."""
    if task.get("state") == "running" and not task.get("time_started"):
        return Cell("assigned", STATE_STYLES["assigned"])
    return state(task)


def split(states: Mapping[str, int], assigned: int) -> dict[str, int]:
    """Return counts of tasks by state, with those that workers hold and have not begun apart from running ones."""
    parts = dict(states)
    if assigned:
        parts["running"] = parts.get("running", 0) - assigned
        parts["assigned"] = assigned
    return {name: parts[name] for name in STATE_STYLES if parts.get(name)}


def exit_status(document: Mapping[str, Any]) -> Cell:
    """Return the end of a task or an attempt, empty while it has not ended."""
    text = str(document.get("exit_status") or "")
    style = "green" if text == "success" else "yellow" if text == "cancelled" else "red"
    return Cell(text, style)


def moment(text: object) -> str:
    """Return a date of the server in local time; without the day when it is today's."""
    if not text:
        return ""
    date = wire.parse_date(text).astimezone()
    today = date.date() == datetime.now().astimezone().date()
    return date.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M")


def age(date: object) -> str:
    """Return the age of a date, in its largest unit: `42s`, `7m`, `3h`, `12d`."""
    if not date:
        return ""
    seconds = int(max((datetime.now(UTC) - wire.parse_date(date)).total_seconds(), 0))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def ago(date: object) -> str:
    """Return the age of a date of the server as `42s ago`."""
    seconds = max((datetime.now(UTC) - wire.parse_date(date)).total_seconds(), 0.0)
    return f"{seconds:.0f}s ago" if seconds < 60 else f"{wire.format_duration(seconds)} ago"


def run_time(document: Mapping[str, Any]) -> str:
    """Return the run time of a task or an attempt, in all or so far; dates carry whole seconds."""
    started = document.get("time_started")
    if not started:
        return ""
    until = document.get("time_terminated")
    end = wire.parse_date(until) if until else datetime.now(UTC)
    seconds = max((end - wire.parse_date(started)).total_seconds(), 0.0)
    return "<1s" if seconds < 1 else wire.format_duration(seconds).replace(".0s", "s").replace(".00s", "s")


def size(size_bytes: object) -> str:
    """Return bytes for people; empty when unknown."""
    return wire.format_size(size_bytes) if isinstance(size_bytes, (int, float)) else ""


def command(task: Mapping[str, Any]) -> str:
    """Return the command or the model of a task, on one line."""
    what = task.get("command")
    if isinstance(what, list):
        what = shlex.join(what)
    text = what or (f"model {task['model']}" if task.get("model") else "(group)")
    return " ".join(str(text).split())


def resources(amounts: Mapping[str, Any]) -> str:
    """Return requested or granted resources on one line, sizes with their unit."""
    parts = []
    for name, amount in amounts.items():
        if isinstance(amount, Mapping):
            parts += [f"{key} {value}" for key, value in amount.items()]
        elif name in ("memory", "gpu_memory", "scratch"):
            parts.append(f"{name} {size(amount)}")
        elif amount not in (0, None, [], ""):
            parts.append(f"{name} {amount}")
    return ", ".join(parts)


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Return the curve of `values` from zero to their peak, in at most `width` bars."""
    if not values:
        return ""
    step = max(len(values) / width, 1.0)
    count = min(len(values), width)
    peaks = [max(values[int(i * step) : max(int((i + 1) * step), int(i * step) + 1)]) for i in range(count)]
    top = max(peaks) or 1.0
    return "".join(_BARS[min(round(value / top * (len(_BARS) - 1)), len(_BARS) - 1)] for value in peaks)


def one_line(value: Any) -> str:
    """Return a JSON value on one line."""
    return shortened(json.dumps(value, ensure_ascii=False), 200)


def shortened(text: str, limit: int) -> str:
    """Return the text, cut at `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def by_time(samples: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return samples of memory usage in the order in which they were taken."""
    return sorted(samples, key=lambda sample: wire.parse_date(sample["time"]))
