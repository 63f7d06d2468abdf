"""The commands, each with its module, which is imported when the command is used, and the line of `banyan --help`.

Modules that are not needed to find a command are imported late, here and in the modules: `banyan list` shall be quick.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Annotated

from banyan.cli import late_typer as typer

COMMANDS: Mapping[str, tuple[str, str]] = {
    "up": ("processes", "Start everything on this machine: MongoDB, the server and one worker."),
    "server": ("processes", "Start the server alone, on the replica set that the setting mongo.uri names."),
    "worker": ("processes", "Start a worker: it pulls tasks from the server and runs them."),
    "demo": ("demo", "See it all work on a small real workload; exit 0 only if all of it came out right."),
    "submit": ("submit", "Put a task in the queue and print its id."),
    "run": (
        "models",
        "Run a model: put it in the queue with its inputs and print the task's id, or with --wait its result.",
    ),
    "models": (
        "models",
        "List the models of workers and of the server, and files there that are no models, with the reason.",
    ),
    "list": ("listing", "List tasks, the newest first: how each stands, where it runs or ran, or why it waits."),
    "show": (
        "look",
        "Show a task: what it is, how it stands, its attempts, and the end of its error output if it failed.",
    ),
    "logs": ("look", "Print what a task has written, also while it runs."),
    "explain": ("explain", "Say why a task is not running; without an id, why nothing (more) runs."),
    "files": (
        "files",
        "List the files in a task's work directory, print one of them, or save them, also while it runs.",
    ),
    "cancel": (
        "act",
        "Cancel tasks: running ones get SIGTERM, later SIGKILL; tasks that depend on them are cancelled, too.",
    ),
    "retry": ("act", "Let ended tasks run again, with the descendants that were cancelled because of them."),
    "wait": ("act", "Wait until the tasks have ended; exit 0 if all succeeded, else 1."),
    "hold": ("edit", "Hold tasks that have not begun: they wait until `banyan release`."),
    "release": ("edit", "Release tasks that were held."),
    "edit": ("edit", "Change fields of tasks, of most only until they begin; `tags` and `metadata` at any time."),
    "delete": ("edit", "Delete tasks that have ended, with their histories, files and memory samples."),
    "workers": ("report", "List the workers; drain or resume some (administrators)."),
    "stats": ("report", "Show counts, waits, run times, memory and rates."),
    "history": ("report", "List the attempts of a task."),
    "memory": ("report", "Show how much memory a task used over time."),
    "backup": ("backups", "Write all that the server keeps to a file, while it runs or not."),
    "restore": ("backups", "Fill an empty database from a backup; servers must not be running."),
    "sweep": ("sweeps", "Make, watch and steer sweeps: many tasks of one request."),
    "queues": ("queues", "List the queues, or change them (administrators)."),
    "user": ("users", "Add, list and remove users, and give new tokens (administrators)."),
}
"""The commands in the order of `--help`: the name, the module, and the first sentence of the command's help."""


def declared(names: Iterable[str] | None = None) -> typer.Typer:
    """Return these commands, by default all, as their modules declare them."""
    group = typer.Typer()
    for name in COMMANDS if names is None else names:
        of_module = typer.Typer()
        import_module(f"banyan.cli.{COMMANDS[name][0]}").register(of_module)
        group.commands[name] = of_module.commands[name]
    return group


def banyan(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    """A queue for many computations on whatever machines you have.

    `banyan up` starts everything on this machine. Then, in a second terminal:
    `banyan submit -- echo hello`, `banyan list`, `banyan logs ID`.
    Programs add `--json`.
    """
    if version:
        from importlib.metadata import version as installed

        print(f"banyan {installed('banyan-queue')}")
        raise typer.Exit
