"""`banyan sweep submit`: a template and some ranges become many tasks."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

from banyan.cli import completion, options
from banyan.cli import late_typer as typer
from banyan.cli.connection import connect
from banyan.cli.explain import warn_if_unfit
from banyan.cli.models import parse_inputs
from banyan.cli.output import print_json
from banyan.cli.points import points
from banyan.cli.sweep_wait import stops_waiting_alone, wait_for

if TYPE_CHECKING:
    from banyan.client import Client


def register(group: typer.Typer) -> None:
    """Add the command to `group`."""
    group.command()(submit)


@options.spread
def submit(
    *,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND",
            help="The template: {x} stands for the value of input x, {index} for the number of the point. Run as it "
            "is; one argument alone is a line for /bin/sh, in which values are quoted.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Run this model instead of a command.", autocompletion=completion.models)
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUES",
            help="Values of an input: 1,2,3 or a JSON list or a range 0:10 or 0:1:0.1, whose end is left out. "
            "Several make every combination.",
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--points", metavar="FILE", help="Points from a CSV file or a JSON list of objects; - is stdin."),
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="So many samples of the --range of each input.")] = None,
    ranges: Annotated[
        list[str] | None,
        typer.Option("--range", metavar="NAME=LOW:HIGH[:log]", help="Where samples of an input lie."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="How samples are spread: latin_hypercube (if not given) or sobol.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Repeat the samples of this seed.")] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=JSON", help="An input that all points have; may be repeated."),
    ] = None,
    barrier: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="A line for /bin/sh to run when all have ended; '' only marks the end."),
    ] = None,
    task: options.TaskOptions,
    env: options.Env = None,
    export: options.Export = False,
    stdin: options.Stdin = None,
    result: options.Result = None,
    wait: options.Wait = False,
    as_json: options.Answer = False,
) -> None:
    """Make one task for each point, all or none, and print the sweep's id.

    Examples: `banyan sweep submit --grid x=1,2,3 --grid n=0:10 -- python3 run.py --x {x} --n {n}`,
    `banyan sweep submit --model sum --samples 20 --range x=0:1 --input y=2`
    """
    if bool(command) == (model is not None):
        raise typer.BadParameter("give a command after `--`, or --model", param_hint="COMMAND")
    sweep = task.fields() | options.command_fields(command=command, env=env, export=export, stdin=stdin, result=result)
    directory = task.submission_directory() if command or barrier else None
    if command:
        sweep["directory"] = directory
    sweep |= {"model": model, "inputs": parse_inputs(inputs or ())}
    sweep = options.given(sweep) | points(
        grid=grid or (), file=file, samples=samples, ranges=ranges or (), method=method, seed=seed
    )
    if barrier is not None:
        sweep["barrier"] = options.given({"command": barrier, "directory": directory}) if barrier.strip() else {}
    client = connect()
    answer = client.submit_sweep(sweep)
    with stops_waiting_alone(answer["_id"], waits=wait):
        if as_json:
            print_json(answer)
        else:
            print(answer["_id"], flush=True)
            print(_told(answer), file=sys.stderr)
        _warn_of_the_first(client, answer["_id"])
        if wait:
            wait_for(client, answer["_id"])


def _warn_of_the_first(client: "Client", sweep: str) -> None:
    """Warn on stderr when no active worker could ever take the tasks of a sweep, which all want the same."""
    for task in client.tasks({"sweep": sweep}, projection=["_id"], max_results=1).items:
        warn_if_unfit(client, task["_id"])


def _told(answer: dict[str, Any]) -> str:
    parts = [f"{answer['count']} tasks" if answer["count"] > 1 else "1 task"]
    parts += [f"seed {answer['seed']}"] if "seed" in answer else []
    parts += [f"barrier {answer['barrier']}"] if "barrier" in answer else []
    return ", ".join(parts)
