"""The views of a sweep in a terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from banyan.cli import columns, output
from banyan.cli.columns import WHOLE, Cell, Column
from banyan.cli.report import distributions

if TYPE_CHECKING:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

Document = Mapping[str, Any]

_WIDTH = 40
"""The characters of a bar."""
_PARTS = (("succeeded", "green"), ("failed", "red"), ("cancelled", "yellow"))


_LISTED = (
    Column(heading="ID", least=WHOLE),
    Column(heading="NAME", least=16, most=48, middle=True),
    Column(heading="TASKS", least=WHOLE, right=True),
    Column(heading="DONE", least=WHOLE, right=True),
    Column(heading="FAILED", least=WHOLE, right=True),
    Column(heading="NOW", least=12),
)


def listing(sweeps: Sequence[Document]) -> list[str]:
    """Return the lines of a table with a row for each sweep, which fits the terminal."""
    rows = []
    for sweep in sweeps:
        progress = sweep["progress"]
        name, failed = str(sweep.get("name") or template(sweep)), str(progress["failed"] or "")
        rows.append(
            (
                *(Cell(sweep["_id"]), Cell(name), Cell(str(sweep["count"])), Cell(_percent(progress))),
                *(Cell(failed, "red"), Cell(pulse(progress), _style(progress))),
            )
        )
    return columns.lines(_LISTED, rows, columns.width(), colours=columns.coloured())


def panel(sweep: Document, statistics: Document, failed: Sequence[Document]) -> "Panel":
    """Return a view of a sweep: its template, its progress, the figures of its tasks, and the first that failed."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    parts: list[Any] = [_facts(sweep), Text(), bar(sweep["progress"])]
    if statistics.get("run_seconds", {}).get("max") is not None:
        parts += [Text(), distributions(statistics)]
    if failed:
        rows = [
            (f"[{task['index']}]", task["_id"], output.exit_status(task), output.one_line(task.get("inputs") or {}))
            for task in failed
        ]
        parts += [Text(), output.table(("FAILED", "ID", "EXIT STATUS", "~INPUTS"), rows)]
        more = sweep["progress"]["failed"] - len(failed)
        parts += [Text(f"and {more} more", style="dim")] if more > 0 else []
    name = output.shortened(sweep.get("name") or template(sweep), 60)
    title = Text.assemble((name, "bold"), "  ", (pulse(sweep["progress"]), _style(sweep["progress"])))
    return Panel(Group(*parts), title=title, title_align="left", expand=False, padding=(1, 2))


def _facts(sweep: Document) -> "Table":
    facts: dict[str, Any] = {
        "id": sweep["_id"],
        "command": template(sweep) if sweep.get("model") is None else None,
        "directory": sweep.get("directory"),
        "model": sweep.get("model"),
        "points": _points(sweep),
        "inputs": output.one_line(sweep["inputs"]) if sweep.get("inputs") else None,
        "queue": f"{sweep.get('queue', '')}, priority {sweep.get('priority', 0)}",
        "owner": sweep.get("owner"),
        "requested": output.resources(sweep.get("requested_resources") or {}),
        "tags": ", ".join(sweep.get("tags") or ()),
        "barrier": f"{sweep['barrier']} ({sweep['progress'].get('barrier')})" if "barrier" in sweep else None,
        "created": output.moment(sweep.get("_created")),
    }
    return output.facts(facts)


def template(sweep: Document) -> str:
    """Return the command or the model of a sweep, on one line, as it was written."""
    command = sweep.get("command")
    return " ".join(command) if isinstance(command, list) else output.command(sweep)


def _style(progress: Document) -> str:
    """Return the colour of a sweep's activity."""
    if progress["failed"]:
        return "red"
    if progress["fraction"] < 1:
        return "bold blue" if progress["states"].get("running") else "cyan"
    return "yellow" if progress["cancelled"] else "green"


def _points(sweep: Document) -> str:
    """Return the source of the points, in a few words."""
    count = sweep["count"]
    if "grid" in sweep:
        factors = ", ".join(f"{name} ({len(values)})" for name, values in sweep["grid"].items())
        return output.shortened(f"{count}: every combination of {factors}", 200)
    if "samples" in sweep:
        samples = sweep["samples"]
        names = ", ".join(samples["inputs"])
        method = samples["method"].replace("_", " ")
        return output.shortened(f"{count} samples of {names} ({method}, seed {samples['seed']})", 200)
    return output.shortened(f"{count} of {', '.join(sweep.get('input_names') or ())}", 200)


def bar(progress: Document) -> "Text":
    """Return the states of the points, drawn and in figures."""
    from rich.text import Text

    count = progress["count"]
    text, drawn = Text(), 0
    for name, style in _PARTS:
        width = min(_drawn(progress[name], count), _WIDTH - drawn)
        text.append("█" * width, style=style)
        drawn += width
    text.append("░" * (_WIDTH - drawn), style="dim")
    text.append(f"  {_percent(progress)} of {count}: ")
    for name, style in _PARTS:
        if progress[name]:
            text.append(f"{progress[name]} {name}  ", style=style)
    for state, number in output.split(progress["states"], progress.get("assigned", 0)).items():
        if state in ("terminated", "cancelled"):
            continue
        text.append(f"{number} {state.replace('_', ' ')}  ", style=output.STATE_STYLES.get(state, ""))
    if progress["deleted"]:
        text.append(f"{progress['deleted']} deleted", style="dim")
    return text


def _drawn(part: int, whole: int) -> int:
    """Return the characters for a part of the whole: at least one for a part above zero."""
    return max(round(_WIDTH * part / whole), 1) if part else 0


def _percent(progress: Document) -> str:
    """Return the percentage rounded down, so that 100% means all."""
    return f"{int(progress['fraction'] * 100)}%"


def pulse(progress: Document) -> str:
    """Return the activity of a sweep, in a word or two."""
    if progress["fraction"] == 1:
        barrier = progress.get("barrier", "terminated")
        return "ended" if barrier in ("terminated", "cancelled", "deleted") else f"barrier {barrier.replace('_', ' ')}"
    standing = output.split(progress["states"], progress.get("assigned", 0))
    running = standing.get("running", 0) + standing.get("pending_cancellation", 0)
    failed = f", {progress['failed']} failed" if progress["failed"] else ""
    return (f"{running} running" if running else "waiting") + failed


def outcome(progress: Document) -> str:
    """Return the end of a sweep, in a sentence."""
    others = [f"{progress[name]} {name}" for name in ("failed", "cancelled", "deleted") if progress[name]]
    return ", ".join([f"{progress['succeeded']} of {progress['count']} tasks succeeded", *others])


def rows(table: Document, count: int) -> "Table":
    """Return the first rows of the results; exit statuses replace states where there are any."""
    labels = [label for label in table["columns"] if label not in ("index", "task", "state", "exit_status")]
    shown: list[tuple[str | Cell, ...]] = [
        (
            str(row["index"]),
            output.exit_status(row) if row.get("exit_status") else output.state(row),
            *(output.shortened(_cell(row[label]), 40) if label in row else "" for label in labels),
        )
        for row in table["_items"][:count]
    ]
    return output.table((">#", "STATUS", *(f"~{label}" for label in labels)), shown)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else output.one_line(value)
