"""Sweeps in the client: many tasks made, watched and steered as one."""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from banyan import watching
from banyan.list_calls import part
from banyan.steering_calls import Downstream, retry_body
from banyan.transport import SAFE_TRIES, Connection
from banyan.worker_calls import Document, WorkerCalls

_LONG_SECONDS = 600.0
"""The longest time for one change of a hundred thousand tasks."""


class SweepCalls(WorkerCalls):
    """The calls for sweeps; a part of `Client`."""

    def __init__(self, connection: Connection, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(connection)
        self._sleep = sleep

    def submit_sweep(self, sweep: Mapping[str, Any], *, key: str | None = None) -> Document:
        """Post a sweep, accepted completely or not at all: `_id`, `count`, and `barrier` and `seed` where there is one.

        `key` is the `Idempotency-Key`, a fresh one by default: the same sweep is never accepted twice.
        """
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        return self._act("POST", "sweeps", body=sweep, headers=headers, tries=SAFE_TRIES, read_seconds=_LONG_SECONDS)

    def sweep(self, sweep: str) -> Document:
        """Return one sweep with its `progress`."""
        return self._act("GET", f"{_path(sweep)}", tries=SAFE_TRIES)

    def sweep_statistics(self, sweep: str) -> Document:
        """Return counts, waits, run times, memory and rates of a sweep's tasks."""
        return self._act("GET", f"{_path(sweep)}/statistics", tries=SAFE_TRIES)

    def sweep_results(self, sweep: str) -> Document:
        """Return the table of a sweep: `columns`, and a row for each task in `_items`, without missing fields."""
        return self._act("GET", f"{_path(sweep)}/results", tries=SAFE_TRIES, read_seconds=_LONG_SECONDS)

    def sweep_csv(self, sweep: str) -> bytes:
        """Return the same table as CSV."""
        query = {"format": "csv"}
        path = f"{_path(sweep)}/results"
        return self._connection.send("GET", path, query=query, tries=SAFE_TRIES, read_seconds=_LONG_SECONDS).body

    def cancel_sweep(self, sweep: str) -> Document:
        """Cancel a whole sweep, its barrier too; `cancelled` counts the points that had not ended."""
        return self._act("POST", f"{_path(sweep)}/cancel", tries=SAFE_TRIES, read_seconds=_LONG_SECONDS)

    def retry_sweep(
        self,
        sweep: str,
        changes: Mapping[str, Any] | None = None,
        *,
        downstream: Downstream = "refuse",
        without: Iterable[str] = (),
        dry_run: bool = False,
    ) -> Document:
        """Let unsuccessful tasks run again: the numbers `retried` and `refused`, with the reasons in `_items`.

        The rest is as for `retry` of a task.
        """
        body = retry_body(changes, downstream, without, dry_run)
        return self._act("POST", f"{_path(sweep)}/retry", body=body or None, read_seconds=_LONG_SECONDS)

    def delete_sweep(self, sweep: str) -> Document:
        """Remove a sweep that has ended with all its tasks, their histories and files."""
        return self._act("DELETE", f"{_path(sweep)}", read_seconds=_LONG_SECONDS)

    def wait_sweep(
        self, sweep: str, timeout: float | None = None, on_change: Callable[[Document], None] | None = None
    ) -> Document:
        """Wait until all of a sweep has ended, its barrier too; return the sweep as it is then.

        `on_change` is called with its `progress` at the start and whenever that has changed. TimeoutError after
        `timeout` seconds. The call waits for a server that goes away meanwhile.
        """
        return watching.wait_sweep(self, sweep, timeout, on_change, self._sleep)


def _path(sweep: str) -> str:
    return f"sweeps/{part(sweep)}"
