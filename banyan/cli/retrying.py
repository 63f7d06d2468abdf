"""The options of `banyan retry` and `banyan sweep retry`."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from banyan.cli import late_typer as typer
from banyan.cli.names import check_matched
from banyan.cli.output import print_json
from banyan.errors import IllegalTransition

if TYPE_CHECKING:
    from banyan.client import Client, Document

_NAMED = 5
"""How many of the tasks that cannot be retried are named."""


class Downstream(StrEnum):
    """What becomes of descendants that have begun."""

    REFUSE = "refuse"
    RERUN = "rerun"
    KEEP = "keep"


WhatFollows = Annotated[
    Downstream,
    typer.Option(help="If something that comes after has run: refuse, let it rerun afterwards, or keep it as it is."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a field first: JSON or text; `a.b=1` changes one entry of it. May be repeated.",
    ),
]
Without = Annotated[
    list[str] | None, typer.Option(metavar="ID", help="Do without a parent that was deleted; may be repeated.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would become of it.")]


def options_of(downstream: Downstream, without: list[str], dry_run: bool) -> dict[str, Any]:
    """What the client's methods take."""
    return {"downstream": downstream.value, "without": without, "dry_run": dry_run}


def changes_of(texts: Iterable[str], read: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """`KEY=VALUE` texts as new values of fields; `KEY.ENTRY=VALUE` changes one entry of what `read` tells of."""
    changes: dict[str, Any] = {}
    before: Mapping[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        field, dot, entry = name.partition(".")
        if not equals or not field or (dot and not entry):
            raise typer.BadParameter(f"{text!r} is not of the form KEY=VALUE or KEY.ENTRY=VALUE", param_hint="--set")
        if not dot:
            changes[field] = _value(value)
            continue
        before = before or read()
        there = changes.get(field, before.get(field)) or {}
        if not isinstance(there, dict):
            raise typer.BadParameter(f"{field} is no object; write {field}=VALUE", param_hint="--set")
        changes[field] = {**there, entry: _value(value)}
    return changes


def names_entries(texts: Iterable[str]) -> bool:
    """Whether an entry of an object is to change, so that the rest of it has to be read."""
    return any("." in text.partition("=")[0] for text in texts)


def retry_where(
    client: "Client", where: dict[str, Any], changes: Iterable[str], options: dict[str, Any], as_json: bool
) -> None:
    """Retry all that match, and say how many those are; an error if some of them cannot be retried."""
    answer = client.retry_many(where=where, changes=changes_of(changes, dict), **options)
    if not answer["matched"]:
        check_matched(client, where)
    if as_json:
        print_json(answer)
    else:
        would = "would " if options["dry_run"] else ""
        print(f"{answer['retried']} of {answer['matched']} matching tasks {would}run again{downstream_of(answer)}")
    for item in answer["_items"][:_NAMED]:
        print(f"banyan: {item['_error']['message']}", file=sys.stderr)
    if answer["refused"]:
        raise IllegalTransition({"where": f"{answer['refused']} tasks cannot be retried"})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def described(answer: "Document") -> str:
    """What became of a task, and of what comes after it, in one line."""
    state = answer.get("becomes", answer["state"])
    would = " (nothing was changed)" if answer.get("dry_run") else ""
    return f"{answer['_id']} {state}{downstream_of(answer)}{would}"


def downstream_of(answer: "Document") -> str:
    """How many descendants begin again or stay, if there are any."""
    found = answer.get("descendants") or {}
    texts = [f"{found[key]} {text}" for key, text in (("again", "after it"), ("kept", "kept")) if found.get(key)]
    return f", {', '.join(texts)}" if texts else ""
