"""Names of fields that do not exist: the field of the schema that was meant, and its place."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from banyan.spelling import closest

OTHER_WORDS: Mapping[str, str] = {
    "args": "command",
    "cmd": "command",
    "script": "command",
    "cpu": "cores",
    "cpus": "cores",
    "ncpus": "cores",
    "slots": "cores",
    "ram": "memory",
    "mem": "memory",
    "gpu": "gpus",
    "ngpus": "gpus",
    "disk": "scratch",
    "retries": "max_retry_count",
    "maxretries": "max_retry_count",
    "retrylimit": "max_retry_count",
    "backoff": "retry_delay",
    "dependson": "dependencies",
    "after": "dependencies",
    "parents": "dependencies",
    "children": "continuations",
    "cwd": "directory",
    "dir": "directory",
    "workingdirectory": "directory",
    "environment": "env",
    "enviroment": "env",
    "walltime": "timeout",
    "timelimit": "timeout",
    "startafter": "not_before",
    "labels": "requires",
    "constraints": "requires",
    "partition": "queue",
    "status": "state",
    "exitcode": "exit_status",
    "user": "owner",
    "params": "inputs",
    "parameters": "inputs",
    "resources": "requested_resources",
    "requirements": "requested_resources",
}
"""Words of other systems (without dashes and underscores), and our word for each."""

Path = tuple[str, ...]

_SHOWN = 40
"""The length above which values are not repeated in an example."""


def unknown_field(path: Path, value: object, schema: Mapping[str, Any]) -> str:
    """The fault of a field at `path` that `schema` does not have: the field that was meant, or its right place."""
    *outer, name = path
    fields = list(_fields(schema))
    here = [known[-1] for known in fields if known[:-1] == tuple(outer)]
    elsewhere = {known[-1]: known for known in reversed(fields) if known[:-1] != tuple(outer)}
    if name in elsewhere:
        return f"unknown field here; {_place(elsewhere[name], value)}"
    if meant := closest(name, here, OTHER_WORDS):
        return f"unknown field; did you mean {meant!r}?"
    if meant := closest(name, elsewhere, OTHER_WORDS):
        return f"unknown field; did you mean {meant!r}? {_place(elsewhere[meant], value).capitalize()}"
    if "custom" in here:
        return f"unknown field; for an amount of your own: {_example((*outer, 'custom', name), value)}"
    return "unknown field"


def unknown_path(path: str, schema: Mapping[str, Any]) -> str:
    """The suggestion for a dotted path of a query that names no field: `; did you mean 'a.b'?`, or an empty text."""
    *outer, name = path.split(".")
    fields = [*_fields(schema, readable=True)]
    exact = [known for known in fields if known[-1] == name]
    here = [known[-1] for known in fields if known[:-1] == tuple(outer)]
    if exact:
        return f"; did you mean {'.'.join(exact[0])!r}?"
    if meant := closest(name, here, OTHER_WORDS):
        return f"; did you mean {'.'.join((*outer, meant))!r}?"
    places = {known[-1]: known for known in reversed(fields)}
    meant = closest(name, places, OTHER_WORDS)
    return "" if meant is None else f"; did you mean {'.'.join(places[meant])!r}?"


def _fields(schema: Mapping[str, Any], outer: Path = (), *, readable: bool = False) -> Iterator[Path]:
    """The paths of all fields that a user may set, or with `readable` may name in a query; the outer ones first."""
    known = {name: rules for name, rules in schema.items() if readable or not rules.get("readonly")}
    yield from ((*outer, name) for name in known)
    for name, rules in known.items():
        yield from _fields(rules.get("schema", {}), (*outer, name), readable=readable)


def _place(path: Path, value: object) -> str:
    if len(path) == 1:
        return "it belongs to the top level"
    return f"it belongs to {'.'.join(path[:-1])!r}: {_example(path, value)}"


def _example(path: Path, value: object) -> str:
    """The JSON with a field at its right place."""
    shown: object = value if len(str(value)) <= _SHOWN else "..."
    for step in reversed(path):
        shown = {step: shown}
    return json.dumps(shown, ensure_ascii=False, default=str)
