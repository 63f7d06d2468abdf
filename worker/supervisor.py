"""The small process that spawns the tasks and leaves none of their processes behind.

It imports next to nothing and stays small, for two reasons: Linux counts the spawner's size towards the peak memory
of what it spawns, and spawning from a small process is quick. As a child subreaper it inherits every orphan of a
task. When the worker dies, its pipe ends, and the supervisor kills all tasks.

It reads commands from its standard input and writes answers to its standard output (`banyan.frames`). Commands:

- `("limits", umask, core_bytes, user)`: the limits of all following jobs: their umask, how large a core dump may
  be, and the ids of the user as whom they run (user, group, all groups), or None for our own.
- `("run", lane, key, job)`: run the job once the lane's earlier jobs have ended. A job is `(argv, env, cwd, stdin,
  stdout, stderr, procs, hosted)`: a list of texts, a list of `NAME=value` texts, paths (stdin may be None; procs is
  None or the `cgroup.procs` file to enter, for another user's jobs), and for the task of a model `(pool, setup, what)`;
  then argv starts a host of the pool if no idle one is there, and `what` is the task.
- `("drop", key)`: forget a job that has not started.
- `("signal", key, number)`: send a signal to the job's process group. After a SIGTERM the job has its grace: it ends
  when all of its processes have ended, not when the first has (`worker.closing`); SIGKILL ends the grace. In a host
  SIGTERM raises the flag `cancel`, and SIGKILL kills the host with all that it has started.
- `("hosts", max_idle, max_tasks, idle_seconds, start_seconds)`: how to keep hosts (`worker.hosts`).

Answers (times in seconds since the epoch):

- `("hello", pid)`: ready.
- `("started", key, pid, time)`: the job's first process runs.
- `("exited", key, pid, started, ended, status, peak, exact, cpu, outcome, alone)`: the job ended and left nothing
  behind. `status` is the wait status, `peak` in bytes, `exact` whether that is the job's own peak and not the
  supervisor's, `cpu` seconds, `outcome` a host's report of its task (`worker.model_host`), `{}` if it died, None for a
  program; `alone` means that it was one process: else `peak` is that of its largest.
- `("failed", key, stage, errno, text)`: it could not be started; stage is `output`, `directory`, `command` or `host`.
- `("dropped", key)`: the job was forgotten.
"""

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself brings the large `enum` along
import errno
import os
import select
import time

from banyan import frames
from worker.closing import Closing
from worker.hosts import Hosts
from worker.job import Job
from worker.offspring import (
    IGNORED_SIGNALS,
    SIGCONT,
    SIGKILL,
    SIGTERM,
    become_subreaper,
    children,
    had_children,
    kill,
    peak_bytes,
    reset_peak,
    signal_group,
)
from worker.orphans import Orphans
from worker.outputs import Copier
from worker.starter import Refused, Starter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLUSH_SECONDS = 0.02
"""The time for which answers are batched while there is more to do."""
SWEEP_SECONDS = 2.0
"""The time for which the end of a job waits for processes that die slowly."""
LOOK_SECONDS = 0.5
"""The time after the end of a job at which its orphans are searched once more."""
PEAK_SLACK_BYTES = 1 << 20
"""The possible growth of this process since it last read its own size."""


class Supervisor:
    """The jobs, by lane and by process."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._received = frames.Unpacker()
        self._queued: dict[int, list[tuple[str, Any]]] = {}
        self._busy: set[int] = set()
        self._running: dict[int, Job] = {}
        self._closing = Closing()
        self._sweeping: list[Job] = []
        self._orphans = Orphans()
        self._outgoing: list[tuple[Any, ...]] = []
        self._urgent = False
        self._flush_at = 0.0
        self._look_at: float | None = None
        self._own_peak = 0
        self._own_peak_until = 0.0
        self._null = os.open("/dev/null", os.O_RDONLY)
        self._poll = select.poll()
        self._starter = Starter()
        self._copier = Copier()
        self._hosts = Hosts(self._poll, self._starter.start, self._begun, self._ended, self._failed)

    def run(self) -> None:
        """Serve until the worker is gone, then kill all remaining processes."""
        self._poll.register(self._commands, select.POLLIN)
        wake = _child_alarm()
        self._poll.register(wake, select.POLLIN)
        self._answer(("hello", os.getpid()), urgent=True)
        try:
            while True:
                self._flush()
                ready = dict(self._poll.poll(self._patience_ms()))
                if wake in ready:
                    os.read(wake, 4096)
                self._hosts.serve(ready)
                self._reap()  # before a dead host gets a task
                if self._commands in ready and not self._read():
                    break
                self._look()
        except BrokenPipeError:
            pass  # the worker is gone, and the tasks go with it
        self._kill_everything()

    # Commands and answers

    def _patience_ms(self) -> float | None:
        if self._sweeping:
            return 5
        flush_at = self._flush_at if self._outgoing else None
        times = (self._look_at, flush_at, self._hosts.next_look, self._closing.next_look, self._copier.next_look)
        due = [when for when in times if when is not None]
        return max(0.0, (min(due) - time.monotonic()) * 1000) if due else None

    def _read(self) -> bool:
        data = os.read(self._commands, frames.READ_BYTES)
        for command in self._received.feed(data):
            self._obey(command)
        return bool(data)

    def _obey(self, command: "Any") -> None:
        if command[0] == "run":
            _, lane, key, job = command
            if lane in self._busy:
                self._queued.setdefault(lane, []).append((key, job))
            else:
                self._start(lane, key, job)
        elif command[0] == "drop":
            self._drop(command[1])
        elif command[0] == "hosts":
            self._hosts.configure(*command[1:])
        elif command[0] == "limits":
            self._starter.limit(*command[1:])
        else:
            for job in [*self._running.values(), *self._closing.jobs]:
                if job.key == command[1]:
                    self._signal(job, command[2])

    def _drop(self, key: str) -> None:
        for queued in self._queued.values():
            for place, (each, _) in enumerate(queued):
                if each == key:
                    del queued[place]
                    return self._answer(("dropped", key), urgent=True)
        job = self._hosts.drop(key)
        if job is not None:
            self._answer(("dropped", key), urgent=True)
            self._next(job.lane)
        return None

    def _signal(self, job: Job, number: int) -> None:
        if job.pid in self._hosts.processes:
            return self._hosts.signal(job.pid, number)
        if number in (SIGTERM, SIGKILL):
            job.closing = number == SIGTERM
        signal_group(job.pid, number)
        signal_group(job.pid, SIGCONT)  # a stopped process would never receive it
        if number == SIGKILL and job in self._closing.jobs:
            self._closing.jobs.remove(job)
            self._clear_away(job)
        return None

    def _answer(self, answer: "tuple[Any, ...]", *, urgent: bool) -> None:
        if not self._outgoing:
            self._flush_at = time.monotonic() + FLUSH_SECONDS
        self._outgoing.append(answer)
        self._urgent = self._urgent or urgent

    def _flush(self) -> None:
        """Write the answers, unless they are young and the worker has enough to do."""
        if not self._outgoing or (self._unhurried() and time.monotonic() < self._flush_at):
            return
        left = memoryview(frames.pack(self._outgoing))
        self._outgoing = []
        self._urgent = False
        while left:
            left = left[os.write(self._answers, left) :]

    def _unhurried(self) -> bool:
        return not self._urgent or (bool(self._busy) and all(self._queued.get(lane) for lane in self._busy))

    # Starting

    def _start(self, lane: int, key: str, job: "Any") -> None:
        argv, env, cwd, stdin, stdout, stderr, procs, hosted = job
        stage = "output"
        self._busy.add(lane)
        outputs = source = None
        try:
            if hosted is not None and self._hosts.give(lane, key, hosted, (stdout, stderr), self._starter.owner):
                return
            outputs = self._copier.open((stdout, stderr), self._starter.owner)
            source = self._null if stdin is None else os.open(stdin, os.O_RDONLY)
            streams = (source, outputs.writers[0], outputs.writers[1])
            if hosted is not None:
                stage = "host"
                self._hosts.start(lane, key, argv, env, hosted, streams, outputs)
                return
            started = time.time()
            pid = self._starter.start(key, argv, env, streams, cwd, procs)
        except (OSError, ValueError) as error:
            number = (error.errno or 0) if isinstance(error, OSError) else errno.EINVAL
            if isinstance(error, Refused) and hosted is None:
                stage = error.stage
            self._answer(("failed", key, stage, number, str(error)), urgent=True)
            if outputs is not None:
                outputs.close()
            self._next(lane)
        else:
            job = self._running[pid] = Job(key, lane, pid, started, floor=self._own_size(started))
            job.outputs = outputs
            self._answer(("started", key, pid, started), urgent=False)
        finally:
            if outputs is not None:
                outputs.started()
            if source not in (None, self._null):
                os.close(source)

    def _next(self, lane: int) -> None:
        self._busy.discard(lane)
        queued = self._queued.get(lane)
        if queued:
            key, job = queued.pop(0)
            self._start(lane, key, job)
        else:
            self._queued.pop(lane, None)

    # Hosts

    def _begun(self, job: Job) -> None:
        self._running[job.pid] = job
        self._answer(("started", job.key, job.pid, job.started), urgent=False)

    def _ended(self, job: Job) -> None:
        del self._running[job.pid]
        self._answer(job.report(), urgent=True)
        self._next(job.lane)

    def _failed(self, job: Job, reason: str) -> None:
        self._answer(("failed", job.key, "host", 0, reason), urgent=True)
        self._next(job.lane)

    # Ending

    def _reap(self) -> None:
        while True:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                self._orphans.forget_all()
                break
            if dead is None:
                break
            is_host = dead.si_pid in self._hosts.processes
            if is_host and self._hosts.bury(dead.si_pid) is None:
                continue
            if is_host or dead.si_pid in self._running:
                self._end(dead.si_pid)
            else:
                self._orphans.bury(dead.si_pid, self._unreported(), self._hosts.keys())
        if self._closing.jobs:
            self._close()
        if self._sweeping:
            self._sweep()

    def _unreported(self) -> list[Job]:
        return [*self._running.values(), *self._closing.jobs, *self._sweeping]

    def _end(self, pid: int) -> None:
        """Reap the first process of a job; the rest of its group is killed, or has its grace."""
        if not self._running[pid].closing:
            signal_group(pid, SIGKILL)
        job = self._running.pop(pid)
        job.alone = job.alone and job.hosted is None and not had_children(pid)
        _, status, usage = os.wait4(pid, 0)
        job.status = status
        job.peak = max(job.peak, usage.ru_maxrss * 1024)
        job.exact = job.hosted is None and job.peak > job.floor + PEAK_SLACK_BYTES
        job.cpu_seconds = max(0.0, job.cpu_seconds + usage.ru_utime + usage.ru_stime)
        if job.closing:
            self._closing.add(job)
        else:
            self._clear_away(job)

    def _close(self) -> None:
        """Report the jobs that have ended within their grace."""
        jobs = self._unreported()
        for job in self._closing.look(self._orphans.adopt(jobs, self._hosts.keys(), self._running)):
            self._clear_away(job)

    def _clear_away(self, job: Job) -> None:
        """End a job: report it once none of its processes is left."""
        job.ended = time.time()
        self._sweeping.append(job)

    def _own_size(self, now: float) -> int:
        """Return our largest recent size, which Linux counts for spawned processes."""
        if now > self._own_peak_until:
            self._own_peak, self._own_peak_until = peak_bytes("self"), now + 1.0
            reset_peak("self")
        return self._own_peak

    def _sweep(self) -> None:
        """Report the jobs without processes; kill the processes of the others."""
        now = time.time()
        left = self._kill_orphans()
        still: list[Job] = []
        clean: list[Job] = []
        for job in self._sweeping:
            alive = signal_group(job.pid, SIGKILL) or job.key in left
            over = not alive or now >= job.ended + SWEEP_SECONDS
            (clean if over and (job.outputs is None or job.outputs.close()) else still).append(job)
        self._sweeping = still
        self._look_at = time.monotonic() + LOOK_SECONDS
        for job in clean:
            self._answer(job.report(), urgent=True)
            self._next(job.lane)

    def _kill_orphans(self) -> set[str | None]:
        going_on = [*self._running.values(), *self._closing.jobs]
        return self._orphans.kill_over(going_on, self._sweeping, self._hosts.keys(), self._running)

    def _look(self) -> None:
        now = time.monotonic()
        if (due := self._hosts.next_look) is not None and now >= due:
            self._hosts.look(now)
        if (due := self._closing.next_look) is not None and now >= due:
            self._reap()
        if (due := self._copier.next_look) is not None and now >= due:
            self._copier.look()
        if self._look_at is None or now < self._look_at:
            return
        self._kill_orphans()
        self._look_at = now + LOOK_SECONDS if self._orphans else None

    def _kill_everything(self) -> None:
        for pid in self._running:
            signal_group(pid, SIGKILL)
        pause = select.poll()
        while True:
            for pid in children():
                signal_group(pid, SIGKILL)
                kill(pid)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    continue
            except ChildProcessError:
                break
            pause.poll(5)
        for job in self._unreported():
            if job.outputs is not None:
                job.outputs.close()
        self._hosts.keep_outputs()


def _child_alarm() -> int:
    """Return a descriptor that becomes readable when a child has ended."""
    wake, woken = os.pipe()
    for end in (wake, woken):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return wake


def main() -> None:
    """Become small, the leader of a session and a subreaper, then serve."""
    if os.fork():
        os._exit(0)  # the memory that this process needed to start must not count for the tasks
    os.setsid()
    become_subreaper()
    Supervisor(0, 1).run()
