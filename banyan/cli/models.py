"""`banyan run` and `banyan models`: a task from a model with its inputs; the list of models."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from banyan.cli import completion, options, output
from banyan.cli import late_typer as typer
from banyan.cli.act import AsJson, stops_waiting_alone, waited
from banyan.cli.changes import value_of
from banyan.cli.connection import connect
from banyan.cli.explain import warn_if_unfit
from banyan.cli.ids import Kind, resolve_one

if TYPE_CHECKING:
    from banyan.client import Client


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(run)
    app.command()(models)


@options.spread
def run(
    *,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="The model's name, as `banyan models` shows it.",
            autocompletion=completion.models,
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=JSON ..", help="Its inputs: JSON; a value that is no JSON is taken as a text."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--inputs", metavar="FILE", help="A JSON object with inputs, below those given here; - is stdin."),
    ] = None,
    taken: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="NAME=ID[:KEY]", help="Take an input from the result of this task, once done."),
    ] = None,
    task: options.TaskOptions,
    env: options.Env = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for its end and print the result as JSON; exit 1 unless it succeeds.")
    ] = False,
    as_json: options.Answer = False,
) -> None:
    """Run a model: put it in the queue with its inputs and print the task's id, or with --wait its result.

    Example: `banyan run sum x=1 y=2 --wait`. Values are JSON (`3`, `[1, 2]`, `true`, `"3"`, `NaN`); what is no JSON is
    taken as a text, so that `site=north` needs no quotes.
    """
    fields = task.fields()
    fields |= {"model": model, "inputs": (_from_file(file) if file else {}) | parse_inputs(inputs or ())}
    fields |= {"input_refs": dict(_parse_ref(text) for text in taken or ()), "env": options.pairs(env or (), "--env")}
    client = connect()
    answer = client.submit(options.given(fields))
    if not wait:
        if as_json:
            output.print_json(answer)
        else:
            print(answer["_id"], flush=True)
        warn_if_unfit(client, answer["_id"])
        return
    with stops_waiting_alone([answer["_id"]]):
        print(answer["_id"], file=sys.stderr, flush=True)
        warn_if_unfit(client, answer["_id"])
        _print_result(client, answer["_id"])


def parse_inputs(texts: Sequence[str]) -> dict[str, Any]:
    """Return `NAME=JSON` texts as inputs; a value that is no JSON is a text."""
    inputs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text!r} is not of the form NAME=JSON", param_hint="NAME=JSON")
        inputs[name] = value_of(value)
    return inputs


def _from_file(path: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        inputs = json.loads(text)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} cannot be read as JSON: {error}", param_hint="--inputs") from error
    if not isinstance(inputs, dict):
        raise typer.BadParameter(f"{path} must hold a JSON object, names to values", param_hint="--inputs")
    return inputs


def _parse_ref(text: str) -> tuple[str, dict[str, str]]:
    """Return `NAME=ID` or `NAME=ID:KEY` as an input that is a result."""
    parts = re.fullmatch("(.*?)=([0-9a-fA-F]{6,24}|-)(?::(.*))?", text, re.DOTALL)
    if parts is None:
        raise typer.BadParameter(f"{text!r} is not of the form NAME=ID or NAME=ID:KEY", param_hint="--from")
    name, parent, key = parts.groups()
    return name, {"task": resolve_one(Kind.TASK, parent, "--from")} | ({} if key is None else {"result": key})


def _print_result(client: "Client", task: str) -> None:
    """Wait for the end of a task; print its result on one line of stdout, or its error on stderr and exit 1."""
    (ended,) = waited(client, [task])
    if ended.get("exit_status") != "success":
        print(f"{task}: {ended.get('exit_status') or ended['state']}", file=sys.stderr)
        attempts = client.attempts(task)
        error = str(attempts[-1].get("error") or attempts[-1].get("stderr_tail") or "") if attempts else ""
        if error:
            print(error.rstrip(), file=sys.stderr)
        raise typer.Exit(1)
    found = client.task(task, ["result", "result_file"])
    result = found.get("result")
    if result is None and found.get("result_file") is not None:
        result = json.loads(client.file(task, found["result_file"]))
    print(json.dumps(result, ensure_ascii=False), flush=True)


def models(as_json: AsJson = False) -> None:
    """List the models of workers and of the server, and files there that are no models, with the reason."""
    client = connect()
    found = client.models()
    if as_json:
        output.print_json(found)
        return
    rows = [
        (
            each["name"],
            output.shortened(f"broken: {each['fault']}" if each.get("fault") else each["summary"], 120),
            ", ".join(worker["name"] for worker in each["workers"]) or "none",
            ", ".join(each["defaults"]),
        )
        for each in found
    ]
    output.screen().print(output.table(("NAME", "~SUMMARY", "~WORKERS", "~DEFAULT INPUTS"), rows))
    for each in client.model_helpers():
        output.screen().print(f"not a model: {each['fault']}", markup=False)
