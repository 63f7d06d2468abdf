"""A job of the supervisor, from its arrival on; imported by the supervisor, which must stay small."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from worker.outputs import Outputs


class Job:
    """`pid` is its process, `hosted` the task if that is a host, `floor` our own size in bytes when it began.

    Times are in seconds since the epoch; `exact` means that `peak` (bytes) is the job's own and not the supervisor's,
    `alone` that it has been one process, as far as is known: else the peak is that of the largest; `outcome` is a
    host's report of its task, `{}` if the host died; `closing` means that the job got SIGTERM and has its grace,
    `asked` are its orphans that got one. `outputs` are its own, and not those of a host; its processes are `marked`
    with its key, or with that of its host.
    """

    __slots__ = (
        *("alone", "asked", "closing", "cpu_seconds", "ended", "exact", "floor", "hosted", "key", "lane", "marked"),
        *("outcome", "outputs", "peak", "pid", "started", "status"),
    )

    def __init__(
        self, key: str, lane: int, pid: int, started: float, *, hosted: "dict[str, Any] | None" = None, floor: int = 0
    ) -> None:
        self.key = key
        self.lane = lane
        self.pid = pid
        self.started = started
        self.hosted = hosted
        self.marked = key
        self.floor = floor
        self.ended = 0.0
        self.status = 0
        self.peak = 0
        self.exact = False
        self.alone = True
        self.cpu_seconds = 0.0
        self.outcome: dict[str, Any] | None = None
        self.outputs: Outputs | None = None
        self.closing = False
        self.asked: set[int] = set()

    def report(self) -> "tuple[Any, ...]":
        """Return the answer that reports its end."""
        end = (self.started, self.ended, self.status, self.peak, self.exact, self.cpu_seconds, self.outcome, self.alone)
        return ("exited", self.key, self.pid, *end)
