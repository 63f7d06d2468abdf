"""`banyan queues`: list them, and (as an administrator) make, pause, resume and limit them."""

from typing import Annotated, Any

from banyan.cli import completion, output
from banyan.cli import late_typer as typer
from banyan.cli.act import AsJson
from banyan.cli.connection import connect

Name = Annotated[str, typer.Argument(help="The queue's name.", autocompletion=completion.queues)]
NewName = Annotated[str, typer.Argument(help="The queue's name.")]
MaxRunning = Annotated[int | None, typer.Option(min=0, help="How many of its tasks may run at once.")]
Weight = Annotated[float | None, typer.Option(min=0, help="Its share of the claims beside other queues.")]

group = typer.Typer(invoke_without_command=True, help="List the queues, or change them (administrators).")


def register(app: typer.Typer) -> None:
    """Add the group of commands to `app`."""
    app.add_typer(group, name="queues")


@group.callback()
def list_queues(context: typer.Context, as_json: AsJson = False) -> None:
    """List the queues, or change them (administrators)."""
    if context.invoked_subcommand is not None:
        return
    found = connect().queues()
    if as_json:
        output.print_json(found)
        return
    rows = [
        (
            str(queue["name"]),
            "paused" if queue.get("paused") else "open",
            "" if queue.get("max_running") is None else str(queue["max_running"]),
            f"{queue.get('weight', 1):g}",
        )
        for queue in found
    ]
    output.screen().print(output.table(("QUEUE", "STATE", ">MAX RUNNING", ">WEIGHT"), rows))


@group.command()
def add(name: NewName, max_running: MaxRunning = None, weight: Weight = None, as_json: AsJson = False) -> None:
    """Make a queue."""
    _tell(connect(admin=True).add_queue({"name": name} | _given(max_running, weight)), as_json)


@group.command()
def pause(name: Name, as_json: AsJson = False) -> None:
    """Start no more tasks of a queue; running ones go on."""
    _tell(connect(admin=True).update_queue(name, {"paused": True}), as_json)


@group.command()
def resume(name: Name, as_json: AsJson = False) -> None:
    """Let a paused queue go on."""
    _tell(connect(admin=True).update_queue(name, {"paused": False}), as_json)


@group.command("set")
def change(name: Name, max_running: MaxRunning = None, weight: Weight = None, as_json: AsJson = False) -> None:
    """Change a queue's limit or weight."""
    changes = _given(max_running, weight)
    if not changes:
        raise typer.BadParameter("give --max-running or --weight", param_hint="NAME")
    _tell(connect(admin=True).update_queue(name, changes), as_json)


def _tell(answer: dict[str, Any], as_json: bool) -> None:
    """Print the server's response, for programs."""
    if as_json:
        output.print_json(answer)


def _given(max_running: int | None, weight: float | None) -> dict[str, float]:
    fields = {"max_running": max_running, "weight": weight}
    return {key: value for key, value in fields.items() if value is not None}
