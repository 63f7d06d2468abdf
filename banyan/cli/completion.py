"""Completion in the shell: ids, and names of queues, models, workers and users, as the server has them now.

A server that does not answer at once completes nothing, and nothing is printed beside the command line.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, suppress
from io import StringIO
from typing import Any

from banyan.cli import late_typer as typer
from banyan.errors import BanyanError

Document = dict[str, Any]
Items = Iterator[tuple[str, str]]
"""Words for this place of the command line, each with a short description."""

_MOST = 100
_TITLE = 40
DIGITS = 24
"""Hexadecimal digits of an id."""
_ENDED = {"state": {"$in": ["terminated", "cancelled"]}}
_GOING_ON = {"state": {"$nin": ["terminated", "cancelled"]}}
_TAKEN_BY: Mapping[str, Mapping[str, Any]] = {
    "cancel": _GOING_ON,
    "wait": _GOING_ON,
    "retry": _ENDED,
    "delete": _ENDED,
    "hold": {"state": {"$in": ["inactive", "available"]}, "hold": {"$ne": True}},
    "release": {"hold": True, **_GOING_ON},
}
"""The tasks to which a command applies; the others accept any."""


def tasks(context: typer.Context, incomplete: str) -> Items:
    """Yield ids of tasks, the newest first."""
    where = _TAKEN_BY.get(context.info_name or "", {})
    fields = ("name", "command", "model", "state", "exit_status")
    yield from _ids("tasks", where, incomplete, fields)


def sweeps(incomplete: str) -> Items:
    """Yield ids of sweeps."""
    yield from _ids("sweeps", {}, incomplete, ("name", "command", "model"))


def workers(incomplete: str) -> Items:
    """Yield ids of active workers."""
    yield from _ids("workers", {"state": {"$nin": ["lost", "gone"]}}, incomplete, ("name", "state"))


def queues() -> Items:
    """Yield names of queues."""
    for queue in _glance("queues", {}):
        yield from _word(queue["name"], "paused" if queue.get("paused") else "open")


def models() -> Items:
    """Yield names of models."""
    for model in _glance("models", None):
        yield from _word(model["name"], model.get("summary") or model.get("fault"))


def users() -> Items:
    """Yield names of users, for administrators."""
    for user in _glance("users", {}, admin=True):
        yield from _word(user["name"], user["role"])


def states() -> Items:
    """Yield states of tasks."""
    from banyan.domain.task import State

    for state in State:
        yield str(state), ""


def title(document: Mapping[str, Any]) -> str:
    """Return the name of a task, sweep or worker, else its command, in a few words."""
    command = document.get("command")
    text = document.get("name") or (" ".join(command) if isinstance(command, list) else command)
    text = text or document.get("model") or "group"
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= _TITLE else line[: _TITLE - 1] + "…"


def beginning_with(beginning: str) -> dict[str, str]:
    """Return a condition for ids that begin with this text."""
    return {"$gte": beginning.ljust(DIGITS, "0"), "$lte": beginning.ljust(DIGITS, "f")}


def _ids(resource: str, where: Mapping[str, Any], beginning: str, fields: tuple[str, ...]) -> Items:
    if re.fullmatch(f"[0-9a-f]{{0,{DIGITS}}}", beginning) is None:
        return
    for document in _glance(resource, {**where, "_id": beginning_with(beginning)}, fields):
        stands = document.get("exit_status") or document.get("state") or ""
        yield from _word(document["_id"], f"{title(document)} {stands}")


def _word(word: object, about: object) -> Items:
    """Yield a word for the shell, if it is plain, with a description that is made plain.

    Other users have chosen names, and shells evaluate these words (zsh twice).
    """
    if re.fullmatch(r"[\w.:+/@-]+", str(word)):
        yield str(word), " ".join(re.sub(r"[^\w.,+/@=-]+", " ", str(about or "")).split())


def _glance(
    resource: str, where: Mapping[str, Any] | None, fields: tuple[str, ...] | None = None, admin: bool = False
) -> list[Document]:
    """Return the current documents; nothing where no server responds at once."""
    from banyan.cli.connection import connect

    with suppress(BanyanError, OSError), redirect_stderr(StringIO()), connect(admin=admin) as client:
        return client.glance(resource, where, fields, _MOST)
    return []
