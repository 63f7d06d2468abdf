"""Jobs that were asked to end and whose first process has ended, while others of their processes use their grace.

Imported by the supervisor, which must stay small.
"""

import time

from worker.offspring import SIGCONT, SIGTERM, group_of, signal_group, signal_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.job import Job

LOOK_SECONDS = 0.05
"""How often to look for processes whose end the kernel tells to another process than the supervisor."""


class Closing:
    """The jobs that are not over because of what their first process has left."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self._look_at = 0.0

    @property
    def next_look(self) -> "float | None":
        """When to `look` again, on the monotonic clock."""
        return self._look_at if self.jobs else None

    def add(self, job: "Job") -> None:
        """Wait for the rest of this job."""
        self.jobs.append(job)
        self._look_at = 0.0

    def look(self, orphans: "Mapping[int, str | None]") -> "list[Job]":
        """Let go of the jobs of which nothing is left; `orphans` are the supervisor's, with the job of each.

        SIGTERM went to a job's process group. An orphan outside of it gets its own once that group has ended: until
        then the one that started it may pass the signal on, and many programs take a second one for "at once".
        """
        self._look_at = time.monotonic() + LOOK_SECONDS
        over = [job for job in self.jobs if not _left(job, [pid for pid, key in orphans.items() if key == job.key])]
        self.jobs = [job for job in self.jobs if job not in over]
        return over


def _left(job: "Job", orphans: "list[int]") -> bool:
    """Report if a process of the job is left, having asked those that nobody has asked yet."""
    if signal_group(job.pid, 0):
        return True
    for pid in orphans:
        if pid not in job.asked and group_of(pid) != job.pid:
            signal_process(pid, SIGTERM)
            signal_process(pid, SIGCONT)
        job.asked.add(pid)
    return bool(orphans)
