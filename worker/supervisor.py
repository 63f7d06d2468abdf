"""The small process that spawns the tasks and leaves none of their processes behind.

It imports next to nothing and stays small, for two reasons: Linux counts the spawner's size towards the peak memory
of what it spawns, and spawning from a small process is quick. As a child subreaper it inherits every orphan of a
task. When the worker dies, its pipe ends, and the supervisor kills all that it has.

It reads commands from its standard input and writes answers to its standard output, both as frames: four bytes of
length (little endian), then a list of tuples as `marshal` writes it. Commands:

- `("run", lane, key, job)`: run the job once the lane's earlier jobs have ended. A job is `(argv, env, cwd, stdin,
  stdout, stderr)`: a list of texts, a list of `NAME=value` texts, paths (stdin may be None).
- `("drop", key)`: forget a job that has not started.
- `("signal", key, number)`: send a signal to the job's process group.

Answers (times in seconds since the epoch):

- `("hello", pid)`: ready.
- `("started", key, pid, time)`: the job's first process runs.
- `("exited", key, pid, started, ended, status, peak, exact, cpu)`: the job ended and left nothing behind. `status` is
  the wait status, `peak` in bytes, `exact` whether that is the job's own peak and not the supervisor's, `cpu` seconds.
- `("failed", key, stage, errno, text)`: it could not be started; stage is `output`, `directory` or `command`.
- `("dropped", key)`: the job was forgotten.
"""

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself brings the large `enum` along
import errno
import marshal
import os
import select
import time

from worker.offspring import (
    IGNORED_SIGNALS,
    become_subreaper,
    children,
    kill,
    own_peak,
    owner,
    session_of,
    signal_group,
    spawn,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIGKILL = 9
SIGCONT = 18
FLUSH_SECONDS = 0.01
"""How long answers may wait for company while there is more to do."""
SWEEP_SECONDS = 2.0
"""How long the end of a job waits for processes that take their time to die."""
LOOK_SECONDS = 0.5
"""How long after the end of a job its orphans are looked for once more."""
PEAK_SLACK_BYTES = 1 << 20
"""How much this process may have grown since it last looked at its own size."""


class Job:
    """A job from the moment it was spawned."""

    __slots__ = ("cpu_seconds", "ended", "exact", "key", "lane", "peak", "pid", "started", "status")

    def __init__(self, key: str, lane: int, pid: int, started: float) -> None:
        self.key = key
        self.lane = lane
        self.pid = pid
        self.started = started
        self.ended = 0.0
        self.status = 0
        self.peak = 0
        self.exact = False
        self.cpu_seconds = 0.0


class Supervisor:
    """The jobs, by lane and by process."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._buffer = bytearray()
        self._queued: dict[int, list[tuple[str, Any]]] = {}
        self._busy: set[int] = set()
        self._running: dict[int, Job] = {}
        self._sweeping: list[Job] = []
        self._orphans: dict[int, tuple[str | None, float]] = {}  # whose, and since when
        self._outgoing: list[tuple[Any, ...]] = []
        self._urgent = False
        self._flush_at = 0.0
        self._look_at: float | None = None
        self._own_peak = 0
        self._own_peak_until = 0.0
        self._null = os.open("/dev/null", os.O_RDONLY)

    def run(self) -> None:
        """Serve until the worker is gone, then kill everything that is left."""
        poll = select.poll()
        poll.register(self._commands, select.POLLIN)
        wake = _child_alarm()
        poll.register(wake, select.POLLIN)
        self._answer(("hello", os.getpid()), urgent=True)
        try:
            while True:
                self._flush()
                ready = [descriptor for descriptor, _ in poll.poll(self._patience_ms())]
                if wake in ready:
                    os.read(wake, 4096)
                if self._commands in ready and not self._read():
                    break
                self._reap()
                self._look()
        except BrokenPipeError:
            pass  # the worker is gone; so are the tasks, now
        self._kill_everything()

    # Commands and answers

    def _patience_ms(self) -> float | None:
        if self._sweeping:
            return 5
        due = [when for when in (self._look_at, self._flush_at if self._outgoing else None) if when is not None]
        return max(0.0, (min(due) - time.monotonic()) * 1000) if due else None

    def _read(self) -> bool:
        data = os.read(self._commands, 1 << 16)
        if not data:
            return False
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= 4:
            end = at + 4 + int.from_bytes(self._buffer[at : at + 4], "little")
            if len(self._buffer) < end:
                break
            for command in marshal.loads(self._buffer[at + 4 : end]):  # noqa: S302 - our own worker wrote it
                self._obey(command)
            at = end
        del self._buffer[:at]
        return True

    def _obey(self, command: "Any") -> None:
        if command[0] == "run":
            _, lane, key, job = command
            if lane in self._busy:
                self._queued.setdefault(lane, []).append((key, job))
            else:
                self._start(lane, key, job)
        elif command[0] == "drop":
            for queued in self._queued.values():
                for place, (key, _) in enumerate(queued):
                    if key == command[1]:
                        del queued[place]
                        return self._answer(("dropped", key), urgent=True)
        else:
            for running in self._running.values():
                if running.key == command[1]:
                    signal_group(running.pid, command[2])
                    signal_group(running.pid, SIGCONT)  # a stopped process would never hear of it
        return None

    def _answer(self, answer: "tuple[Any, ...]", *, urgent: bool) -> None:
        if not self._outgoing:
            self._flush_at = time.monotonic() + FLUSH_SECONDS
        self._outgoing.append(answer)
        self._urgent = self._urgent or urgent

    def _flush(self) -> None:
        """Write the answers, unless they are young and nobody can do more with them yet."""
        if not self._outgoing or (self._unhurried() and time.monotonic() < self._flush_at):
            return
        body = marshal.dumps(self._outgoing)
        self._outgoing = []
        self._urgent = False
        left = memoryview(len(body).to_bytes(4, "little") + body)
        while left:
            left = left[os.write(self._answers, left) :]

    def _unhurried(self) -> bool:
        return not self._urgent or (bool(self._busy) and all(self._queued.get(lane) for lane in self._busy))

    # Starting

    def _start(self, lane: int, key: str, job: "Any") -> None:
        argv, env, cwd, stdin, stdout, stderr = job
        opened: list[int] = []
        stage = "output"
        self._busy.add(lane)
        try:
            for path, flags in ((stdout, _APPEND), (stderr, _APPEND), (stdin, os.O_RDONLY)):
                if path is not None:
                    opened.append(os.open(path, flags, 0o644))
            stage = "directory"
            os.chdir(cwd)
            stage = "command"
            started = time.time()
            pid = spawn(argv, env, (opened[2] if stdin is not None else self._null, opened[0], opened[1]))
        except (OSError, ValueError) as error:
            number = (error.errno or 0) if isinstance(error, OSError) else errno.EINVAL
            self._answer(("failed", key, stage, number, str(error)), urgent=True)
            self._next(lane)
        else:
            self._running[pid] = Job(key, lane, pid, started)
            self._answer(("started", key, pid, started), urgent=False)
        finally:
            for descriptor in opened:
                os.close(descriptor)
            os.chdir("/")

    def _next(self, lane: int) -> None:
        self._busy.discard(lane)
        queued = self._queued.get(lane)
        if queued:
            key, job = queued.pop(0)
            self._start(lane, key, job)
        else:
            self._queued.pop(lane, None)

    # Ending

    def _reap(self) -> None:
        while self._running or self._sweeping or self._orphans:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                self._orphans.clear()
                break
            if dead is None:
                break
            if dead.si_pid in self._running:
                self._end(dead.si_pid)
            else:
                self._bury(dead.si_pid)
        if self._sweeping:
            self._sweep()

    def _end(self, pid: int) -> None:
        """Take the first process of a job from the table, having killed what is left of its group."""
        signal_group(pid, SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        job = self._running.pop(pid)
        job.status = status
        job.ended = time.time()
        job.peak = usage.ru_maxrss * 1024
        job.exact = job.peak > self._own_size(job.ended) + PEAK_SLACK_BYTES
        job.cpu_seconds = usage.ru_utime + usage.ru_stime
        self._sweeping.append(job)

    def _bury(self, pid: int) -> None:
        """Take an orphan from the table; its CPU time counts for its job while that has not been reported."""
        session = session_of(pid)
        _, _, usage = os.wait4(pid, 0)
        key, _ = self._orphans.pop(pid, (None, 0.0))
        for job in (*self._running.values(), *self._sweeping):
            if key == job.key or session == job.pid:
                job.cpu_seconds += usage.ru_utime + usage.ru_stime
                job.peak = max(job.peak, usage.ru_maxrss * 1024)

    def _own_size(self, now: float) -> int:
        if now > self._own_peak_until:
            self._own_peak, self._own_peak_until = own_peak(), now + 1.0
        return self._own_peak

    def _sweep(self) -> None:
        """Report the jobs that left nothing behind; kill what the others left."""
        now = time.time()
        left = self._kill_orphans(now)
        still: list[Job] = []
        clean: list[Job] = []
        for job in self._sweeping:
            alive = signal_group(job.pid, SIGKILL) or job.key in left
            (still if alive and now < job.ended + SWEEP_SECONDS else clean).append(job)
        self._sweeping = still
        self._look_at = time.monotonic() + LOOK_SECONDS
        for job in clean:
            end = (job.started, job.ended, job.status, job.peak, job.exact, job.cpu_seconds)
            self._answer(("exited", job.key, job.pid, *end), urgent=True)
            self._next(job.lane)

    def _kill_orphans(self, now: float) -> set[str | None]:
        """Adopt new orphans, and kill those whose job is over; the keys of the jobs that those belonged to.

        An orphan that cannot be assigned is over when all jobs that ran at its adoption are.
        """
        sessions = {job.pid: job.key for job in (*self._running.values(), *self._sweeping)}
        running = {job.key for job in self._running.values()}
        oldest = min((job.started for job in self._running.values()), default=now)
        left: set[str | None] = set()
        for pid in children():
            if pid in self._running:
                continue
            if pid not in self._orphans:
                self._orphans[pid] = (owner(pid, sessions), now)
            key, since = self._orphans[pid]
            if key not in running and (key is not None or oldest >= since):
                left.add(key)
                kill(pid)
        return left

    def _look(self) -> None:
        if self._look_at is None or time.monotonic() < self._look_at:
            return
        self._kill_orphans(time.time())
        self._look_at = time.monotonic() + LOOK_SECONDS if self._orphans else None

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
                return
            pause.poll(5)


_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def _child_alarm() -> int:
    """A descriptor that becomes readable when a child has ended."""
    wake, woken = os.pipe()
    for end in (wake, woken):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    return wake


def main() -> None:
    """Become small, the leader of a session and a subreaper, then serve."""
    if os.fork():
        os._exit(0)  # what this process needed to start is not the tasks' to carry
    os.setsid()
    become_subreaper()
    Supervisor(0, 1).run()
