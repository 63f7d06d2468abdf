"""Jobs that got SIGTERM and whose first process has ended, while other processes of theirs use their grace.

Imported by the supervisor, which must stay small.
"""

import time

from worker.offspring import SIGCONT, SIGTERM, group_of, signal_group, signal_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.job import Job

LOOK_SECONDS = 0.05
"""The interval for checking processes whose end the kernel reports to another process than the supervisor."""


class Closing:
    """The jobs that go on because of processes that their first one has left."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self._look_at = 0.0

    @property
    def next_look(self) -> "float | None":
        """Return the time of the next `look`, on the monotonic clock."""
        return self._look_at if self.jobs else None

    def add(self, job: "Job") -> None:
        """Wait for the remaining processes of this job."""
        self.jobs.append(job)
        self._look_at = 0.0

    def look(self, orphans: "Mapping[int, str | None]") -> "list[Job]":
        """Return, and forget, the jobs without processes; `orphans` are the supervisor's, with the job of each.

        SIGTERM went to a job's process group. An orphan outside of it gets its own once that group has ended: until
        then its parent may pass the signal on, and many programs take a second one for "at once".
        """
        self._look_at = time.monotonic() + LOOK_SECONDS
        over = [job for job in self.jobs if not _left(job, [pid for pid, key in orphans.items() if key == job.key])]
        self.jobs = [job for job in self.jobs if job not in over]
        return over


def _left(job: "Job", orphans: "list[int]") -> bool:
    """Return whether a process of the job is left, after SIGTERM to those without one."""
    if signal_group(job.pid, 0):
        return True
    for pid in orphans:
        if pid not in job.asked and group_of(pid) != job.pid:
            signal_process(pid, SIGTERM)
            signal_process(pid, SIGCONT)
        job.asked.add(pid)
    return bool(orphans)
