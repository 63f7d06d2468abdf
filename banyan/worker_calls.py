"""The worker's side of the HTTP interface: registration, claims, reports, files."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from banyan import wire
from banyan.answers import error_of
from banyan.errors import Conflict
from banyan.transport import READ_SECONDS, Connection

Document = dict[str, Any]
"""A task, an attempt, a worker, .. as the server sends it: ids are hex texts, dates RFC 1123 texts in GMT."""

REPORT_SECONDS = 20.0
"""The time for which the response to a report is awaited before it is sent again."""

Stream = Literal["stdout", "stderr"]


class WorkerCalls:
    """The calls of a worker; a part of `Client`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def register_worker(self, worker: Mapping[str, Any]) -> Document:
        """Register; return `_id`, `lease_seconds`, `heartbeat_seconds` and `files`."""
        return self._act("POST", "workers", body=worker)

    def claim(self, worker: str, body: Mapping[str, Any], timeout: float | None = None) -> Document:
        """Claim tasks; `timeout` in seconds must exceed the `wait` of the body.

        Without one it is half as long again as the wait: a connection that died in silence must not cost the lease. It
        is sent once: after Unavailable repeat it with the same `request` to get the same response.
        """
        wait = float(body.get("wait") or 0.0)
        seconds = timeout or (1.5 * wait + 1.0 if wait else READ_SECONDS)
        return self._act("POST", f"workers/{worker}/claim", body=body, read_seconds=seconds)

    def report(self, worker: str, body: Mapping[str, Any]) -> Document:
        """Report starts, ends, progress and memory; sent once, and safe to repeat."""
        return self._act("POST", f"workers/{worker}/report", body=body, read_seconds=REPORT_SECONDS)

    def update_worker(self, worker: str, changes: Mapping[str, Any]) -> Document:
        """Drain a worker or make it active again (`{"state": "draining"}`)."""
        return self._act("PATCH", f"workers/{worker}", body=changes, tries=2)

    def close_worker(self, worker: str, finished: Sequence[str] = ()) -> None:
        """Close the worker: it is gone, and its tasks are lost except `finished`, which will be reported."""
        self._act("DELETE", f"workers/{worker}", body={"finished": list(finished)})

    def put_log(self, execution: str, stream: Stream, offset: int, data: bytes, token: str) -> int:
        """Send the bytes of a stream from byte `offset` on; see `put_file`."""
        return self._put(f"execution_history/{execution}/{stream}", offset, data, token)

    def put_file(self, execution: str, path: str, offset: int, data: bytes, token: str) -> int:
        """Send the bytes of a file from `offset` on (0 starts it anew); return the size that the server has now.

        It is `offset + len(data)` unless the server had another size than `offset`: then go on from there. TooLarge
        beyond the quota, Conflict for a stale attempt token.
        """
        return self._put(f"execution_history/{execution}/files/{wire.url_path(path)}", offset, data, token)

    def _put(self, path: str, offset: int, data: bytes, token: str) -> int:
        headers = {"Banyan-Attempt-Token": token, "Content-Type": "application/octet-stream"}
        query = {"offset": str(offset)}
        answer = self._connection.send(
            "PUT", path, query=query, data=data, headers=headers, tries=2, accept=frozenset({Conflict.status})
        )
        document: Document = wire.loads(answer.body)
        if "size" not in document:
            raise error_of(answer, path)
        return int(document["size"])

    def _act(self, method: str, path: str, **request: Any) -> Document:
        answer: Document = self._connection.json(method, path, **request)
        return answer
