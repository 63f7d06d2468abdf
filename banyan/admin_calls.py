"""The administrator's side of the HTTP interface: queues and users."""

from collections.abc import Mapping
from typing import Any

from banyan.list_calls import ListCalls, part
from banyan.worker_calls import Document


class AdminCalls(ListCalls):
    """The calls for queues and users; a part of `Client`."""

    def queues(self) -> list[Document]:
        """Return the queues with their limits and weights."""
        return sorted(self.each("queues"), key=_by_name)

    def add_queue(self, queue: Mapping[str, Any]) -> Document:
        """Make a queue (`name`, `paused`, `max_running`, `weight`)."""
        return self._act("POST", "queues", body=queue)

    def update_queue(self, name: str, changes: Mapping[str, Any]) -> Document:
        """Pause or resume a queue, or change its limit or weight."""
        return self._act("PATCH", f"queues/{part(name)}", body=changes)

    def users(self) -> list[Document]:
        """Return names and roles; tokens are never shown again."""
        return sorted(self.each("users"), key=_by_name)

    def add_user(self, name: str, role: str, expires: str | None = None) -> Document:
        """Make a user; only this response has the `token`, which ends at `expires`: a duration ("30d") or a date."""
        until = {} if expires is None else {"expires": expires}
        return self._act("POST", "users", body={"name": name, "role": role, **until})

    def rotate_user(self, name: str, expires: str | None = None) -> Document:
        """Give a user a new `token`; the old one ends at once.

        The new one ends at `expires`: a duration ("30d"), a date, or "never"; without it the date stays.
        """
        until = None if expires is None else {"expires": None if expires == "never" else expires}
        return self._act("POST", f"users/{part(name)}/rotate", body=until)

    def remove_user(self, name: str) -> None:
        """Remove a user's access."""
        self._act("DELETE", f"users/{part(name)}")


def _by_name(document: Document) -> str:
    return str(document["name"])
