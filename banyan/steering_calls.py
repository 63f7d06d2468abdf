"""The cancellation, retry and deletion in the client, of one task or of many."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from banyan.list_calls import Where, filter_of, part
from banyan.transport import SAFE_TRIES
from banyan.worker_calls import Document, WorkerCalls

Downstream = Literal["refuse", "rerun", "keep"]

_MANY_SECONDS = 300.0
"""The longest time for one change of many tasks."""


class SteeringCalls(WorkerCalls):
    """The calls that steer tasks; a part of `Client`."""

    def cancel(self, task: str) -> Document:
        """Request the end of a task; one that has ended stays as it is."""
        return self._act("POST", f"tasks/{part(task)}/cancel", tries=SAFE_TRIES)

    def cancel_many(
        self, ids: Sequence[str] | None = None, where: Where | None = None, *, dry_run: bool = False
    ) -> Document:
        """Cancel these tasks, or one's own that match: `matched`, `cancelled`, `refused`, and `_items`."""
        body = which(ids, where) | ({"dry_run": True} if dry_run else {})
        return self._act("POST", "tasks/cancel", body=body, tries=SAFE_TRIES, read_seconds=_MANY_SECONDS)

    def retry(
        self,
        task: str,
        changes: Mapping[str, Any] | None = None,
        *,
        downstream: Downstream = "refuse",
        without: Iterable[str] = (),
        dry_run: bool = False,
    ) -> Document:
        """Let an ended task run again, with `changes` of its fields, and with descendants that its end had cancelled.

        `downstream` decides on descendants that have begun; `without` names deleted parents to ignore; `dry_run` only
        returns the consequences.
        """
        body = retry_body(changes, downstream, without, dry_run)
        return self._act("POST", f"tasks/{part(task)}/retry", body=body or None, read_seconds=_MANY_SECONDS)

    def retry_many(
        self,
        ids: Sequence[str] | None = None,
        where: Where | None = None,
        changes: Mapping[str, Any] | None = None,
        *,
        downstream: Downstream = "refuse",
        without: Iterable[str] = (),
        dry_run: bool = False,
    ) -> Document:
        """Retry these tasks, or one's own that match: `matched`, `retried`, `refused`, `descendants`, and `_items`."""
        body = which(ids, where) | retry_body(None, downstream, without, dry_run)
        body |= {"changes": dict(changes)} if changes else {}
        return self._act("POST", "tasks/retry", body=body, read_seconds=_MANY_SECONDS)

    def delete(self, task: str) -> Document:
        """Remove an ended task with its history and files."""
        return self._act("DELETE", f"tasks/{part(task)}")

    def delete_where(self, where: Where) -> Document:
        """Remove those of one's own tasks (an admin: of all) that match and have ended: `matched`, `deleted`."""
        return self._act("DELETE", "tasks", query=filter_of(where), read_seconds=_MANY_SECONDS)


def retry_body(
    changes: Mapping[str, Any] | None, downstream: Downstream, without: Iterable[str], dry_run: bool
) -> Document:
    """Return the body of a retry."""
    body: Document = dict(changes or {})
    body |= {"downstream": downstream} if downstream != "refuse" else {}
    body |= {"without": list(without)} if without else {}
    return body | ({"dry_run": True} if dry_run else {})


def which(ids: Sequence[str] | None, where: Where | None) -> Document:
    """Return the part of a body that selects tasks."""
    return {"ids": list(ids)} if ids is not None else {"where": dict(where or {})}
