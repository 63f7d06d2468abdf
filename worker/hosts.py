"""The supervisor's host processes: each has one model loaded and runs one task at a time; idle ones stay warm.

Hosts of a pool are alike: they have the same model, cores and environment. `model_host` defines their messages.
Imported by the supervisor, which must stay small.
"""

import _socket
import os
import time

from banyan.models import cancel_memory
from worker.host_process import WRITABLE, Host
from worker.job import Job
from worker.offspring import SIGKILL, SIGTERM, resident_bytes, signal_group
from worker.outputs import open_logs

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from collections.abc import Callable, Collection
    from typing import Any

    from worker.outputs import Outputs

MOST_LEFT = 0.25
"""The part of a task's memory limit by which its host may have grown before."""


class Hosts:
    """All host processes. `spawn` starts one; `begun`, `ended` and `failed` receive the news of the jobs."""

    def __init__(
        self,
        poll: "select.poll",
        spawn: "Callable[..., int]",
        begun: "Callable[[Job], None]",
        ended: "Callable[[Job], None]",
        failed: "Callable[[Job, str], None]",
    ) -> None:
        self._poll = poll
        self._start_process = spawn
        self._begun = begun
        self._ended = ended
        self._failed = failed
        self._by_pid: dict[int, Host] = {}
        self._by_line: dict[int, Host] = {}
        self._keys: dict[int, str] = {}
        self._count = 0
        self._idle: list[Host] = []  # the one that has been idle for longest first
        self.configure(1, 0, 300.0, 120.0)

    def configure(self, max_idle: int, max_tasks: int, idle_seconds: float, start_seconds: float) -> None:
        """Set how many may be idle and for how long, how many tasks each may run (0: any number), the time to start."""
        self._max_idle = max_idle
        self._max_tasks = max_tasks
        self._idle_seconds = idle_seconds
        self._start_seconds = start_seconds

    @property
    def processes(self) -> "Collection[int]":
        """Return their process ids."""
        return self._by_pid.keys()

    def keys(self) -> "dict[int, str]":
        """Return the keys with which their processes are marked, by process id."""
        return self._keys

    # Commands

    def give(
        self, lane: int, key: str, hosted: "Any", paths: "tuple[str, str]", owner: "tuple[int, int] | None"
    ) -> bool:
        """Give a task to an idle host of its pool; return whether there is one. OSError.

        Its outputs go to files with these paths, which belong to `owner` (user, group), if that is not us.
        """
        pool, _, what = hosted
        host = self._fitting(pool, what["memory_limit_bytes"])
        if host is None:
            return False
        host.outputs.direct(open_logs(paths, owner))
        self._idle.remove(host)
        host.job = Job(key, lane, host.pid, 0.0, hosted=what)
        self._begin(host, host.job)
        return True

    def start(
        self,
        lane: int,
        key: str,
        argv: list[str],
        env: list[str],
        hosted: "Any",
        streams: tuple[int, int, int],
        outputs: "Outputs",
    ) -> None:
        """Start a host with `streams`, which begins the task once it is ready; OSError. It then owns `outputs`."""
        pool, setup, what = hosted
        host = self._spawn(pool, argv, env, streams, outputs)
        host.send("setup", setup)
        host.job = Job(key, lane, host.pid, 0.0, hosted=what)

    def _fitting(self, pool: str, memory_limit_bytes: int | None) -> "Host | None":
        """Return an idle host of the pool, unless earlier tasks have left it too large for the task's memory."""
        for host in [each for each in reversed(self._idle) if each.pool == pool]:
            if memory_limit_bytes is None or host.grown() <= memory_limit_bytes * MOST_LEFT:
                return host
            self._retire(host)
        return None

    def _spawn(
        self, pool: str, argv: list[str], env: list[str], streams: tuple[int, int, int], outputs: "Outputs"
    ) -> Host:
        ours, theirs = (end.detach() for end in _socket.socketpair())
        memory = cancel_memory.create()
        try:
            for descriptor in (theirs, memory):
                os.set_inheritable(descriptor, True)
            self._count += 1
            key = f"host {self._count} of {os.getpid()}"
            pid = self._start_process(key, [*argv, str(theirs), str(memory)], env, streams)
        except OSError:
            os.close(ours)
            os.close(memory)
            raise
        finally:
            os.close(theirs)
        os.set_inheritable(memory, False)
        os.set_blocking(ours, False)
        host = self._by_pid[pid] = self._by_line[ours] = Host(pool, pid, ours, memory, self._poll, outputs)
        self._keys[pid] = key
        outputs.last()
        return host

    def drop(self, key: str) -> "Job | None":
        """Take back a task whose host is not ready yet; the host stays."""
        for host in self._by_pid.values():
            if host.job is not None and host.job.key == key and not host.ready:
                job, host.job = host.job, None
                return job
        return None

    def signal(self, pid: int, number: int) -> None:
        """Signal a host: SIGTERM raises the flag of its task, SIGKILL kills it with all that it has started."""
        if number == SIGTERM:
            self._by_pid[pid].cancel()
        elif number == SIGKILL:
            self._by_pid[pid].kill()

    # Answers

    def serve(self, ready: dict[int, int]) -> None:
        """Receive from, and send to, the hosts whose sockets are among `ready` (descriptors to events)."""
        for line, events in ready.items():
            host = self._by_line.get(line)
            if host is not None:
                if events & WRITABLE:
                    host.push()
                self._hear(host)

    def _hear(self, host: Host) -> None:
        for kind, *said in host.hear():
            job = host.job
            if host.ready:
                if kind == "ended" and job is not None and said[0] == host.number:
                    self._end(host, job, *said[1:])
            elif kind == "ready":
                host.ready, host.cpu_seconds, host.fresh_bytes = True, said[1], resident_bytes(host.pid)
                self._begin(host, job) if job is not None else self._release(host)
            elif kind == "unfit" and job is not None:
                self._begin(host, job)
                self._end(host, job, {"exception": said[0], "error": said[1]}, 0, False, 0.0, True)
            elif kind == "broken":
                self._fail(host, said[0])
            else:
                host.kill()  # an answer without a request: something else speaks in its place

    def _begin(self, host: Host, job: Job) -> None:
        job.started = time.time()
        job.marked = self._keys[host.pid]
        host.number += 1
        host.send("run", host.number, job.hosted)
        self._begun(job)

    def _end(
        self, host: Host, job: Job, outcome: "Any", peak: int, exact: bool, cpu_seconds: float, leaving: bool
    ) -> None:
        """End the task; the host is free for another one unless it leaves."""
        host.cpu_seconds += cpu_seconds
        host.outputs.direct()
        job.ended, job.outcome = time.time(), outcome
        job.peak, job.exact, job.alone, job.cpu_seconds = peak, exact, exact, cpu_seconds
        if leaving:
            host.job = None
            host.kill()
        else:
            self._release(host)
        self._ended(job)

    def _fail(self, host: Host, reason: str) -> None:
        """Fail the task that waits for this host."""
        job, host.job = host.job, None
        host.outputs.direct()
        if job is not None:
            self._failed(job, reason)

    def _release(self, host: Host) -> None:
        """Make a host idle: it stays warm, unless it has run its number of tasks or too many are idle."""
        host.job = None
        if host.doomed:
            return
        host.since = time.monotonic()
        self._idle.append(host)
        if self._max_tasks and host.number >= self._max_tasks:
            self._retire(host)
        elif len(self._idle) > self._max_idle:
            self._retire(self._idle[0])

    def _retire(self, host: Host) -> None:
        self._idle.remove(host)
        host.kill()

    def keep_outputs(self) -> None:
        """Write the rest of their outputs, when all of them are dead."""
        for host in self._by_pid.values():
            host.outputs.direct()

    # The ends of hosts

    def bury(self, pid: int) -> "Job | None":
        """Take back the job of a dead host, which is still in the process table; the caller ends that job.

        The host's last messages count. If it was not ready yet, the task that waited for it fails, and the host is
        reaped.
        """
        host = self._by_pid[pid]
        host.doomed = True
        if host in self._idle:
            self._idle.remove(host)
        self._hear(host)
        del self._by_pid[pid], self._by_line[host.line], self._keys[pid]
        host.close()
        if host.ready and host.job is not None:
            host.job.outputs = host.outputs
            host.job.outcome = {}
            host.job.cpu_seconds = -host.cpu_seconds  # the process's time, which is added, includes them
            return host.job
        signal_group(pid, SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        self._fail(host, f"it ended {how} before it was ready; its standard error may tell why")
        host.outputs.close()
        return None

    def look(self, now: float) -> None:
        """End the hosts that have been idle for too long, and those that take too long to become ready."""
        while self._idle and now >= self._idle[0].since + self._idle_seconds:
            self._retire(self._idle[0])
        for host in self._starting():
            if now >= host.since + self._start_seconds:
                host.kill()
                self._fail(host, f"it was not ready after {self._start_seconds:g} s")

    @property
    def next_look(self) -> "float | None":
        """Return the time of the next `look`, on the monotonic clock."""
        due = [host.since + self._start_seconds for host in self._starting()]
        due += [host.since + self._idle_seconds for host in self._idle[:1]]
        return min(due, default=None)

    def _starting(self) -> list[Host]:
        return [host for host in self._by_pid.values() if not host.ready and not host.doomed]
