"""`banyan submit --file`: the tasks of a JSON-lines or JSON file, submitted as one list."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from banyan.cli import late_typer as typer
from banyan.cli.ids import STANDARD_INPUT
from banyan.errors import BadRequest, Invalid, describe_issues

if TYPE_CHECKING:
    from banyan.client import Client

Document = dict[str, Any]

_NAMED = 5
"""The most faulty tasks that are named."""
_KINDS = ("queue", "requested_resources", "requires", "model", "command")
"""The fields that decide which workers can take a task."""
_MOST_KINDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A task of the file, and its place there."""

    place: str
    task: Document


def read_entries(path: str) -> list[Entry]:
    """Return the tasks of a file: one a line, a JSON list, or one object; `-` is stdin. BadParameter for others."""
    where = "standard input" if path == STANDARD_INPUT else path
    text = _text_of(path, where)
    entries = list(_entries(text, where))
    if not entries:
        raise _mistake(f"{where} has no tasks")
    for entry in entries:
        if not isinstance(entry.task, dict):
            raise _mistake(f'{entry.place}: a task is a JSON object, such as {{"command": "make"}}')
    return entries


def _text_of(path: str, where: str) -> str:
    try:
        data = sys.stdin.buffer.read() if path == STANDARD_INPUT else Path(path).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise _mistake(f"{where} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _mistake(f"{where} is not UTF-8: {error.reason} at byte {error.start}") from error


def _entries(text: str, where: str) -> Iterator[Entry]:
    try:
        whole = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError) as error:
        yield from _lines(text, where, error)
        return
    if isinstance(whole, list):
        yield from (Entry(place=f"{where}, task {number}", task=task) for number, task in enumerate(whole, 1))
    else:
        yield Entry(place=where, task=whole)


def _lines(text: str, where: str, error: Exception) -> Iterator[Entry]:
    """Yield the tasks of JSON lines; if the first is no JSON, the fault is that of the whole text."""
    first = True
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            task = json.loads(line)
        except (ValueError, RecursionError) as fault:
            if first:
                raise _mistake(f"{where} is not JSON: {error}") from error
            at = f", column {fault.colno}: {fault.msg}" if isinstance(fault, json.JSONDecodeError) else f": {fault}"
            raise _mistake(f"{where} is not JSON in line {number}{at}") from fault
        first = False
        yield Entry(place=f"{where}, line {number}", task=task)


def _mistake(text: str) -> typer.BadParameter:
    return typer.BadParameter(text, param_hint="--file")


def below(task: Mapping[str, Any], options: Mapping[str, Any]) -> Document:
    """Return a task of the file, with the command line's values for fields that it lacks.

    Entries of objects are taken one by one, and lists are joined.
    """
    merged = {**options, **task}
    for name in task.keys() & options.keys():
        mine, given = task[name], options[name]
        if isinstance(mine, dict) and isinstance(given, dict):
            merged[name] = {**given, **mine}
        elif isinstance(mine, list) and isinstance(given, list):
            merged[name] = [*given, *(each for each in mine if each not in given)]
    return merged


def submit_entries(client: "Client", entries: Sequence[Entry], options: Mapping[str, Any]) -> list[Document]:
    """Submit the tasks, all of them or none; return the server's items in order. BadRequest names faulty places."""
    try:
        return client.submit([below(entry.task, options) for entry in entries])
    except Invalid as error:
        if error.items is None:
            raise
        faulty = [(entry.place, issues) for entry, issues in zip(entries, error.items, strict=False) if issues]
        named = "; ".join(f"{place}: {describe_issues(issues)}" for place, issues in faulty[:_NAMED])
        more = f"; and {len(faulty) - _NAMED} more" if len(faulty) > _NAMED else ""
        raise BadRequest(f"{named}{more}; no task was submitted") from error


def of_each_kind(entries: Sequence[Entry], answers: Sequence[Document]) -> list[str]:
    """Return the ids of some tasks, at least one of each kind that wants different workers."""
    ids: dict[str, str] = {}
    for entry, answer in zip(entries, answers, strict=True):
        kind = json.dumps([str(entry.task.get(name)) if name != "command" else name in entry.task for name in _KINDS])
        ids.setdefault(kind, answer["_id"])
    return list(ids.values())[:_MOST_KINDS]
