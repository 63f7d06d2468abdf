"""The options of `banyan retry` and `banyan sweep retry`."""

import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from banyan.cli import late_typer as typer
from banyan.cli.changes import Setting, changes_of
from banyan.cli.steering import in_batches, matching, state_of

if TYPE_CHECKING:
    from banyan.client import Client, Document


class Downstream(StrEnum):
    """The treatment of descendants that have begun."""

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
        help="Change a field first, as `banyan edit` does: JSON or text; `a.b=1` changes one entry. May be repeated.",
    ),
]
Without = Annotated[
    list[str] | None, typer.Option(metavar="ID", help="Do without a parent that was deleted; may be repeated.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")]


def options_of(downstream: Downstream, without: list[str], dry_run: bool) -> dict[str, Any]:
    """Return the arguments of the client's methods."""
    return {"downstream": downstream.value, "without": without, "dry_run": dry_run}


def retry_where(
    client: "Client", where: dict[str, Any], changes: Sequence[Setting], options: dict[str, Any], as_json: bool
) -> None:
    """Retry all that match, and print their number; an error if some of them cannot be retried."""
    answer = client.retry_many(where=where, changes=changes_of(changes, dict, "--set"), **options)
    would = "would " if options["dry_run"] else ""
    matching(client, where, answer, "retried", f"{would}run again{downstream_of(answer)}", as_json)


def retry_together(
    client: "Client", ids: Sequence[str], changes: Sequence[Setting], options: dict[str, Any], as_json: bool
) -> None:
    """Retry tasks by one request, so that one may come after another; print the result of each."""

    def act(batch: list[str]) -> "list[Document]":
        answer = client.retry_many(batch, changes=changes_of(changes, dict, "--set"), **options)
        if follow := downstream_of(answer).removeprefix(", "):
            print(follow, file=sys.stderr)
        return list(answer["_items"])

    in_batches(ids, act, as_json, _would if options["dry_run"] else state_of)


def _would(item: "Document") -> str:
    return f"{item['_id']} would run again"


def described(answer: "Document") -> str:
    """Return the result for a task, and for its descendants, in one line."""
    state = answer.get("becomes", answer["state"])
    would = " (nothing was changed)" if answer.get("dry_run") else ""
    return f"{answer['_id']} {state}{downstream_of(answer)}{would}"


def downstream_of(answer: "Document") -> str:
    """Return how many descendants begin again or stay, if there are any."""
    found = answer.get("descendants") or {}
    texts = [f"{found[key]} {text}" for key, text in (("again", "after it"), ("kept", "kept")) if found.get(key)]
    return f", {', '.join(texts)}" if texts else ""
