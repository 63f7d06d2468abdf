"""`banyan workers`, `stats`, `history` and `memory`: workers, figures, attempts, and the use of memory."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from banyan import wire
from banyan.cli import columns, output
from banyan.cli import late_typer as typer
from banyan.cli.act import AsJson, read_filter
from banyan.cli.columns import WHOLE, Cell, Column
from banyan.cli.connection import connect
from banyan.cli.ids import Id, WorkerIds
from banyan.cli.look import attempts_table
from banyan.cli.names import check_matched
from banyan.cli.steering import each

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from banyan.client import Client, Document


group = typer.Typer(invoke_without_command=True, help="List the workers; drain or resume some (administrators).")


_HEADS = {"pending_cancellation": "ending"}
"""Short headings of columns."""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.add_typer(group, name="workers")
    for command in (stats, history, memory):
        app.command()(command)


@group.callback()
def workers(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Also those that are lost or gone.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the workers; drain or resume some (administrators)."""

    if context.invoked_subcommand is not None:
        return
    found = connect().workers(None if every else {"state": {"$nin": ["lost", "gone"]}})
    if as_json:
        output.print_json(found)
        return
    print_workers(found)
    for worker in found:
        if reason := (worker.get("quarantine") or {}).get("reason"):
            print(columns.one_line(f"{worker['name']} is quarantined: {reason}"))


@group.command()
def drain(ids: WorkerIds, as_json: AsJson = False) -> None:
    """Give workers no new tasks: they finish running ones, return those not begun, and stay until `resume`."""
    _set_state(ids, "draining", as_json)


@group.command()
def resume(ids: WorkerIds, as_json: AsJson = False) -> None:
    """Let workers that drain, or that are quarantined, take tasks again."""
    _set_state(ids, "active", as_json)


def _set_state(ids: list[str], state: str, as_json: bool) -> None:
    with connect(admin=True) as client:
        each(ids, lambda worker: client.update_worker(worker, {"state": state}), as_json)


def print_workers(workers: "Sequence[Document]") -> None:
    """Print a table of workers that fits the terminal: use and free resources of each, and its last request."""
    rows = [_worker_row(worker) for worker in workers]
    used = [i for i in range(len(_WORKERS)) if _WORKERS[i].heading != "GPUS" or any(row[i].text for row in rows)]
    shown = [_WORKERS[i] for i in used]
    width, colours = columns.width(), columns.coloured()
    for line in columns.lines(shown, [[row[i] for i in used] for row in rows], width, colours=colours):
        print(line)
    if rows:
        print("Cores, memory and GPUs: used/free, as the worker reported last.")


_WORKERS = (
    Column(heading="ID", least=24),
    Column(heading="NAME", least=10, most=40, middle=True),
    Column(heading="STATE", least=6, most=16),
    Column(heading="CORES", least=WHOLE, right=True),
    Column(heading="MEMORY", least=WHOLE, right=True),
    Column(heading="GPUS", least=WHOLE, right=True),
    Column(heading="LAST HEARD", least=WHOLE, right=True),
    Column(heading="QUEUES", least=6, most=40, goes=2),
    Column(heading="LABELS", least=6, most=60, goes=3),
)


def _worker_row(worker: "Document") -> tuple[Cell, ...]:
    state = output.state(worker)
    there = worker.get("state") not in ("lost", "gone")
    return (
        Cell(worker["_id"]),
        Cell(str(worker.get("name") or "")),
        state,
        Cell(_used_and_free(worker, "cores") if there else ""),
        Cell(_used_and_free(worker, "memory") if there else ""),
        Cell(_used_and_free(worker, "gpus") if there else ""),
        Cell(f"{output.age(worker['last_seen'])} ago" if worker.get("last_seen") else ""),
        Cell(", ".join(worker.get("queues") or ["all"])),
        Cell(", ".join(f"{label}={value}" for label, value in (worker.get("labels") or {}).items())),
    )


def _used_and_free(worker: "Document", name: str) -> str:
    """Return `3/5`: used and free parts of an amount; sizes in the unit of the whole."""
    whole = (worker.get("resources") or {}).get(name) or 0
    if not whole:
        return ""
    free = min(max((worker.get("free") or worker["resources"]).get(name) or 0, 0), whole)
    if name != "memory":
        return f"{round(whole - free, 1):g}/{round(free, 1):g}"
    exponent = max(0, min((int(whole).bit_length() - 1) // 10, len(_UNITS) - 1))
    amounts = [each / 1024**exponent for each in (whole - free, free)]
    texts = [f"{each:.0f}" if each >= 10 else f"{each:.1f}".removesuffix(".0") for each in amounts]
    return f"{'/'.join(texts)} {_UNITS[exponent]}"


_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def stats(
    where: Annotated[str | None, typer.Option(metavar="JSON", help="Only of the tasks that match.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show counts, waits, run times, memory and rates."""
    client, chosen = connect(), read_filter(where) or {}
    answer = client.statistics(chosen)
    if not answer.get("total"):
        check_matched(client, chosen)
    if as_json:
        output.print_json(answer)
    else:
        output.screen().print(statistics_view(answer))


def history(task_id: Id, as_json: AsJson = False) -> None:
    """List the attempts of a task."""
    client = connect()
    attempts = client.attempts(task_id) or _none_of(client, task_id)
    if as_json:
        output.print_json(attempts)
    else:
        output.screen().print(attempts_table(attempts))


def memory(task_id: Id, as_json: AsJson = False) -> None:
    """Show how much memory a task used over time."""
    client = connect()
    samples = output.by_time(client.memory({"task": task_id})) or _none_of(client, task_id)
    if as_json:
        output.print_json(samples)
        return
    output.screen().print(memory_view(samples, client.task(task_id, ["peak_memory_bytes", "peak_memory_source"])))


def _none_of(client: "Client", task_id: str) -> "list[Document]":
    """Return an empty list for a task that exists; NotFound if it does not."""
    client.task(task_id, ["state"])
    return []


PEAKS = {
    "process": "true peak {}",
    "samples": "peak {}",
    "control group": "peak {}, with cached files",
    "largest process": "{} in the largest process, all together perhaps more",
}
"""Words for a peak, by its source."""


def memory_view(samples: "Sequence[Document]", task: "Document") -> "Text":
    """Return the curve of resident memory, its highest sample and the peak of the task."""
    from rich.text import Text

    if not samples:
        return Text("no samples yet", style="dim")
    values = [sample["resident_memory_bytes"] for sample in samples]
    dates = [wire.parse_date(sample["time"]) for sample in samples]
    text = Text.assemble((output.sparkline(values), "cyan"))
    spread = wire.format_duration((dates[-1] - dates[0]).total_seconds())
    count = "1 sample" if len(samples) == 1 else f"{len(samples)} samples over {spread}"
    text.append(f"\n{count}, the highest {output.size(max(values))}")
    if (peak := task.get("peak_memory_bytes")) is not None:
        text.append("; " + PEAKS.get(task.get("peak_memory_source") or "", "peak {}").format(output.size(peak)))
    return text


def statistics_view(answer: Mapping[str, Any]) -> "Group":
    """Return tables of a response of `/statistics`."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [*_headed(counts(answer)), Text()]
    parts += [distributions(answer), Text()]
    if answer.get("exit_statuses"):
        ends = sorted(answer["exit_statuses"].items(), key=lambda each: -each[1])
        parts += [output.table(("EXIT STATUS", ">TASKS"), [(str(end), str(count)) for end, count in ends]), Text()]
    rates = answer.get("rates", {})
    parts.append(Text(_counts("workers", answer.get("workers", {}), "{} {}")))
    parts.append(Text(_counts("rates", rates, "{} {:g}")))
    return Group(*parts)


def _headed(lines: Sequence[str]) -> "Iterator[Text]":
    from rich.text import Text

    for number, line in enumerate(lines):
        yield Text(line, "" if number else "bold", no_wrap=True)


def counts(answer: Mapping[str, Any]) -> list[str]:
    """Return lines with the tasks of each queue by state, unbegun ones apart; they fit the terminal."""
    assigned = answer.get("assigned") or {}
    queues = {name: output.split(states, assigned.get(name, 0)) for name, states in answer.get("queues", {}).items()}
    whole = output.split(answer.get("states", {}), sum(assigned.values()))
    rows = [
        [Cell(queue), *(Cell(str(states.get(name, 0))) for name in whole), Cell(str(sum(states.values())))]
        for queue, states in [*queues.items(), ("all", whole)]
    ]
    heads = [*(_HEADS.get(name, name).upper() for name in whole), "TOTAL"]
    widest = [max(len(row[place].text) for row in rows) for place in range(1, len(heads) + 1)]
    numbers = [Column(heading=head, least=wide, right=True) for head, wide in zip(heads, widest, strict=True)]
    shown = [Column(heading="QUEUE", least=12, most=40, middle=True), *numbers]
    return columns.lines(shown, rows, min(columns.width(), output.WIDE))


def distributions(answer: Mapping[str, Any]) -> "Table":
    """Return waits, run times and memory of `/statistics`."""

    def cells(values: Mapping[str, Any] | None, form: Any) -> list[str]:
        known = values or {}
        return [form(known[key]) if known.get(key) is not None else "" for key in ("min", "median", "p95", "max")]

    rows = [
        ["wait", *cells(answer.get("wait_seconds"), wire.format_duration)],
        ["run time", *cells(answer.get("run_seconds"), wire.format_duration)],
        ["peak memory", *cells(answer.get("peak_memory_bytes"), wire.format_size)],
    ]
    return output.table(("", ">MIN", ">MEDIAN", ">95%", ">MAX"), rows)


def _counts(title: str, values: Mapping[str, Any], form: str) -> str:
    parts = [form.format(name.replace("_", " "), value) for name, value in values.items() if value is not None]
    return f"{title}: {', '.join(parts) or 'none'}"
