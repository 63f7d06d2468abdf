"""Commands run in this process against a real server, and tasks for them."""

import uuid
from collections.abc import Callable

from banyan.client import Client

UNKNOWN = "f" * 24
"""An id that nothing has."""

Banyan = Callable[..., tuple[int, str, str]]
"""Runs a command, with what standard input has: its exit code, output and error output."""


def fresh_id(beginning: str = "") -> str:
    """An id that differs from all others in its first digits, unlike those that the server makes."""
    return (beginning + uuid.uuid4().hex)[:24]


def ended(client: Client, id: str, command: str = "echo hello") -> str:
    """A task with this id that has ended."""
    client.submit({"_id": id, "name": f"name of {id}", "command": command, "state": "available"})
    client.wait([id], 60)
    return id
