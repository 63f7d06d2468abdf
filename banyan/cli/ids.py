"""Ids on the command line: whole ones, unique beginnings of them, and those on standard input."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated

from banyan.cli import completion
from banyan.cli import late_typer as typer
from banyan.cli.completion import DIGITS
from banyan.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from banyan.client import Client, Document

STANDARD_INPUT = "-"
"""The word for the ids on standard input."""
LEAST_DIGITS = 6
_NAMED = 5
"""The most ids that are named of those with the same beginning."""


class Kind(StrEnum):
    """The kinds of documents whose ids commands accept."""

    TASK = "task"
    SWEEP = "sweep"
    WORKER = "worker"

    @property
    def resource(self) -> str:
        """Return its name in the HTTP interface."""
        return f"{self}s"


_LISTED_BY = {Kind.TASK: "banyan list", Kind.SWEEP: "banyan sweep list", Kind.WORKER: "banyan workers"}
_FIELDS = {
    Kind.TASK: ("name", "command", "model", "state", "exit_status"),
    Kind.SWEEP: ("name", "command", "model"),
    Kind.WORKER: ("name", "state"),
}


def resolve(kind: Kind, texts: Sequence[str], option: str | None = None) -> list[str]:
    """Return the whole ids for these texts, in their order; each text may be a beginning, or `-`.

    BadParameter for a text that cannot be an id, NotFound for a beginning that no id has, BadRequest for one that
    several have. No request is sent where all ids are whole. `option` is named as the one at fault.
    """
    return _resolved(kind, texts, partial(_completed, kind), option)


def resolve_one(kind: Kind, text: str, option: str | None = None) -> str:
    """Return the whole id for a text; BadParameter where standard input has several."""
    ids = resolve(kind, [text], option)
    if len(ids) > 1:
        raise typer.BadParameter(f"standard input has {len(ids)} ids, and one is wanted", param_hint=option)
    return ids[0]


def resolve_parents(texts: Sequence[str]) -> list[str]:
    """Return the same for parents of tasks, which may be deleted: beginnings are completed from the ids in edges."""
    return _resolved(Kind.TASK, texts, _parent, "--without")


def _resolved(
    kind: Kind, texts: Sequence[str], complete: "Callable[[Client, str], str]", option: str | None
) -> list[str]:
    """Return the ids of texts, with beginnings completed."""
    words = [word for text in texts for word in (_from_input(kind, option) if text == STANDARD_INPUT else [text])]
    for word in words:
        _check(kind, word, option)
    ids = [word.lower() for word in words]
    if all(len(id) == DIGITS for id in ids):
        return ids
    from banyan.cli.connection import connect

    with connect() as client:
        return [id if len(id) == DIGITS else complete(client, id) for id in ids]


def _parent(client: "Client", beginning: str) -> str:
    """Return the only parent in an edge whose id has this beginning."""
    first = _first_parent(client, beginning, {})
    if first is None:
        raise NotFound(f"there is no parent of a task whose id begins with {beginning}")
    if second := _first_parent(client, beginning, {"$gt": first}):
        raise BadRequest(f"{beginning} is the beginning of several ids; write more digits: {first}, {second}")
    return first


def _first_parent(client: "Client", beginning: str, after: dict[str, str]) -> str | None:
    where = {"parent": completion.beginning_with(beginning) | after}
    edges = client.page("continuations", where, "parent", ["parent"], 1).items
    return str(edges[0]["parent"]) if edges else None


def _check(kind: Kind, word: str, option: str | None) -> None:
    if re.fullmatch("[0-9a-fA-F]+", word) is None or len(word) > DIGITS:
        raise typer.BadParameter(
            f"there is no {kind} {word!r}: ids are {DIGITS} hexadecimal digits, of which the first {LEAST_DIGITS} or "
            f"more are enough; `{_LISTED_BY[kind]}` shows them",
            param_hint=option,
        )
    if len(word) < LEAST_DIGITS:
        text = f"{word!r} is too short for the beginning of an id; write {LEAST_DIGITS} digits or more"
        raise typer.BadParameter(text, param_hint=option)


def _from_input(kind: Kind, option: str | None) -> list[str]:
    """Return the ids on standard input: words, without quotes and commas between them, or a command's JSON output."""
    text = sys.stdin.read()
    words = _in_json(text)
    if words is None:
        words = [word for word in re.split(r"[\s,\"']+", text) if word]
    if not words:
        raise typer.BadParameter(f"standard input has no id of a {kind}", param_hint=option)
    return words


def _in_json(text: str) -> list[str] | None:
    """Return the ids in a JSON list of ids or documents, in a response with such a list, or a document; else None."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = value.get("_items", [value])
    ids = [each.get("_id") if isinstance(each, dict) else each for each in value] if isinstance(value, list) else [None]
    return [str(id) for id in ids] if all(isinstance(id, str) for id in ids) else None


def _completed(kind: Kind, client: "Client", beginning: str) -> str:
    """Return the only id with this beginning."""
    found = client.page(kind.resource, {"_id": completion.beginning_with(beginning)}, "-_id", _FIELDS[kind], _NAMED)
    if not found.total:
        raise NotFound(f"there is no {kind} whose id begins with {beginning}; `{_LISTED_BY[kind]}` shows the ids")
    if found.total > 1:
        more = f" and {found.total - len(found.items)} more" if found.total > len(found.items) else ""
        named = ", ".join(_described(document) for document in found.items)
        raise BadRequest(f"{beginning} is the beginning of {found.total} ids; write more digits: {named}{more}")
    return str(found.items[0]["_id"])


def _described(document: "Document") -> str:
    return f"{document['_id']} ({', '.join(_facts(document))})"


def _facts(document: "Document") -> Iterator[str]:
    yield completion.title(document)
    if stands := document.get("exit_status") or document.get("state"):
        yield str(stands)


def _one(kind: Kind) -> Callable[[typer.Context, str | None], str | None]:
    def read(context: typer.Context, text: str | None) -> str | None:
        return text if text is None or context.resilient_parsing else resolve_one(kind, text)

    return read


def _several(kind: Kind) -> Callable[[typer.Context, list[str] | None], list[str] | None]:
    def read(context: typer.Context, texts: list[str] | None) -> list[str] | None:
        return texts if not texts or context.resilient_parsing else resolve(kind, texts)

    return read


_HELP = "an id or its beginning; - reads standard input."
Id = Annotated[
    str,
    typer.Argument(metavar="ID", help=f"The task: {_HELP}", callback=_one(Kind.TASK), autocompletion=completion.tasks),
]
_TASKS = typer.Argument(
    metavar="ID ..",
    help="The tasks: ids or their beginnings; - reads standard input.",
    callback=_several(Kind.TASK),
    autocompletion=completion.tasks,
)
Ids = Annotated[list[str], _TASKS]
SomeIds = Annotated[list[str] | None, _TASKS]
SweepId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help=f"The sweep: {_HELP}", callback=_one(Kind.SWEEP), autocompletion=completion.sweeps
    ),
]
WorkerIds = Annotated[
    list[str],
    typer.Argument(
        metavar="ID ..",
        help="The workers: ids or their beginnings; - reads standard input.",
        callback=_several(Kind.WORKER),
        autocompletion=completion.workers,
    ),
]
