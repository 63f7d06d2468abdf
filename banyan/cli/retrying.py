"""The options of `banyan retry` and `banyan sweep retry`."""

import json
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from banyan.client import Document


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
