"""The tasks of `banyan demo`, its checks and its output."""

import sys
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.rule import Rule

from banyan.cli import demo_words, output
from banyan.cli.look import attempts_table
from banyan.cli.report import memory_view, statistics_view
from banyan.client import Client, Document

PARTS = 12
GROWN_MIB = 160
GROW_SECONDS = 4.0
TIMEOUT_SECONDS = 120.0

_SCRIPT = str(Path(demo_words.__file__))


class Story:
    """The demo on the queue behind `client`; `problems` lists the failed checks.

    `directory` is where the counting tasks run and leave their counts for the one that adds them up.
    """

    def __init__(self, client: Client, directory: Path) -> None:
        self.problems: list[str] = []
        self._client = client
        self._directory = directory
        self._screen = output.screen()
        self._checks: list[str] = []
        self._tasks: dict[str, str] = {}

    def tell(self, url: str) -> None:
        """Submit, wait, check and show."""
        self._heading(f"A queue of its own at {url}")
        self._submit()
        ended = self._watch()
        self._results(ended)
        self._retried(ended["flaky"])
        self._cancelled(ended["endless"])
        self._memory(ended["grow"])
        self._heading("Statistics")
        self._screen.print(statistics_view(self._client.statistics()))

    def expect(self, what: str, came: bool, otherwise: str) -> None:
        """Check that `what` is true; `otherwise` describes the actual result."""
        self._checks.append(f"[green]✓[/] {what}" if came else f"[red]✗[/] {what} [red]({escape(otherwise)})[/]")
        if not came:
            self.problems.append(f"{what}: {otherwise}")

    def close(self) -> None:
        """Show the checks, and the result of all."""
        self._heading("Checked")
        for line in self._checks:
            self._screen.print(line)
        ending = f"[bold red]{len(self.problems)} of {len(self._checks)} did not come out right[/]"
        self._screen.print("\n" + ("[bold green]All of it came out right.[/]" if not self.problems else ending))

    def _submit(self) -> None:
        self._directory.mkdir()
        counters = [_python("count", part, PARTS) | {"name": f"count-{part}"} for part in range(PARTS)]
        for counter in counters:
            counter |= {"tags": ["words"], "directory": str(self._directory), "state": "available"}
        flaky = "test -e tried || { touch tried; echo 'not yet' >&2; exit 1; }; echo 'this time it works'"
        small = {"requested_resources": {"cores": 0.25}, "priority": 10, "state": "available"}
        others = [
            _python("grow", GROWN_MIB, GROW_SECONDS) | small | {"name": "grow"},
            {"name": "flaky", "command": flaky, "workdir": "task", "max_retry_count": 2} | small,
            {"name": "endless", "command": ["sleep", "3600"]} | small,
        ]
        posted = self._client.submit([*others, *counters])
        self._tasks = {task["name"]: answer["_id"] for task, answer in zip([*others, *counters], posted, strict=True)}
        parents = [self._tasks[f"count-{part}"] for part in range(PARTS)]
        adder = _python("add", PARTS) | {"name": "add", "directory": str(self._directory), "dependencies": parents}
        self._tasks["add"] = self._client.submit(adder | {"state": "available"})["_id"]
        print(f"{len(self._tasks)} tasks are submitted: {PARTS} count words, one waits for them all and adds them up,")
        print("one fails at first and is retried, one fills memory, one never ends and will be cancelled.")

    def _watch(self) -> dict[str, Document]:
        names = {task: name for name, task in self._tasks.items()}
        states: dict[str, str] = {}
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=self._screen, transient=True) as progress:
            bar = progress.add_task("running", total=len(names))

            def advance(task: Document) -> None:
                name = names[task["_id"]]
                states[name] = str(output.task_state(task))
                if name == "endless" and task["state"] == "running":
                    self._client.cancel(task["_id"])
                done = sum(state in ("terminated", "cancelled") for state in states.values())
                running = sorted(name for name, state in states.items() if state == "running")
                progress.update(bar, completed=done, description=" ".join(running)[:50] or "waiting")

            self._client.wait(list(names), TIMEOUT_SECONDS, advance)
        return {name: self._client.task(task) for name, task in self._tasks.items()}

    def _results(self, ended: dict[str, Document]) -> None:
        self._heading("Results")
        rows = [_row(ended[name]) for name in sorted(ended, key=lambda name: ended[name]["_id"])]
        columns = ("ID", "NAME", "STATE", "EXIT STATUS", ">RUN TIME", ">PEAK MEMORY", "~RESULT")
        self._screen.print(output.table(columns, rows))
        files = demo_words.sources()
        direct = demo_words.summary(demo_words.words(files), len(files))
        found = ended["add"].get("result")
        counters = [ended[f"count-{part}"] for part in range(PARTS)]
        bad = [
            f"{task['name']}: {task.get('exit_status')}" for task in counters if task.get("exit_status") != "success"
        ]
        self.expect(f"{PARTS} tasks have counted their parts", not bad, ", ".join(bad))
        text = f"their sum is what a direct count gives: {direct['words']:,} words in {len(files):,} files"
        self.expect(text, found == direct, f"the task says {found}, the direct count {direct}")

    def _retried(self, task: Document) -> None:
        self._heading("History of the task that failed at first")
        attempts = self._client.attempts(task["_id"])
        self._screen.print(attempts_table(attempts))
        ends = [attempt.get("exit_status") for attempt in attempts]
        came = ends == ["failure (exit code 1)", "success"] and task.get("retry_count") == 1
        self.expect("a task that failed was retried and succeeded", came, f"its attempts ended {ends}")
        said = self._client.log(task["_id"]).decode().strip()
        self.expect("its log is there", said == "this time it works", f"it is {said!r}")

    def _cancelled(self, task: Document) -> None:
        came = (task["state"], task.get("exit_status")) == ("cancelled", "cancelled")
        self.expect("a task that would run for an hour was cancelled", came, f"it is {task['state']}")

    def _memory(self, task: Document) -> None:
        self._heading(f"Memory of the task that fills {GROWN_MIB} MiB")
        samples = output.by_time(self._client.memory({"task": task["_id"]}))
        peak = int(task.get("peak_memory_bytes") or 0)
        self._screen.print(memory_view(samples, task))
        wanted = GROWN_MIB << 20
        came = wanted <= peak <= wanted * 1.2
        self.expect(
            f"its peak was measured: {output.size(peak)}", came, f"{output.size(wanted)} or a little more expected"
        )
        values = [sample["resident_memory_bytes"] for sample in samples]
        rising = len(values) > 2 and max(values) > 2 * values[0]
        self.expect(f"its curve has {len(values)} samples and rises", rising, f"samples: {values}")

    def _heading(self, text: str) -> None:
        self._screen.print()
        self._screen.print(Rule(f"[bold]{escape(text)}[/]", align="left"))


def _python(*arguments: object) -> dict[str, Any]:
    return {"command": [sys.executable, _SCRIPT, *(str(argument) for argument in arguments)]}


def _row(task: Document) -> tuple[Any, ...]:
    result = task.get("result")
    shown = f"{result['words']:,} words in {result['files']} files" if isinstance(result, dict) else ""
    peak = output.size(task.get("peak_memory_bytes"))
    return (
        task["_id"],
        str(task["name"]),
        output.state(task),
        output.exit_status(task),
        output.run_time(task),
        peak,
        shown,
    )
