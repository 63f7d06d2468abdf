"""The worker's ends of the pipes to its supervisors; `supervisor` defines the messages."""

import ctypes
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from banyan import frames
from banyan.errors import SetupError
from worker.offspring import PR_SET_CHILD_SUBREAPER, children, kill, signal_group

SUPERVISORS = 2
START_SECONDS = 20.0
"""The time that a supervisor has for its `hello` on a busy machine."""

CLOSE_SECONDS = 10.0
"""The time that killed processes have to end."""

_ENVIRONMENT = {
    "LC_ALL": "C",
    # Large messages do not stay with a process whose size counts for what it spawns.
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}
"""The supervisor's variables: none of ours, above all no token."""

_SMALL = ("-E", "-P", "-S", "-X", "utf8")

_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from worker.supervisor import main; main()"


class Job(NamedTuple):
    """The supervisor's description of a task: texts and absolute paths; `env` as `NAME=value`.

    `procs` is the `cgroup.procs` file of a control group, which a task of another user cannot enter by itself.

    `hosted` is None for a program. For the task of a model it is the pool of hosts that it may run in, the setup of a
    new host, and the task as the host receives it (`worker.model_host`).
    """

    argv: list[str]
    env: list[str]
    cwd: str
    stdin: str | None
    stdout: str
    stderr: str
    procs: str | None = None
    hosted: tuple[str, dict[str, Any], dict[str, Any]] | None = None


class SupervisorDied(Exception):
    """A supervisor is dead, and so are its tasks; those of the others must end with it."""


class Spawner:
    """The supervisors, and pipes to them that never block the worker.

    There are two, since the kernel delays the spawning process until the new one has a core to run on: during that time
    the other supervisor gives the next task to another core. A lane always has the same one, and all hosts are the
    first one's. SetupError if they cannot be started.
    """

    def __init__(self, count: int = SUPERVISORS) -> None:
        # If a supervisor is killed, its tasks' processes become our children, and we can kill them.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._others = set(children())
        self._pipes = [Pipes() for _ in range(count)]
        self._heard = select.epoll()
        for pipes in self._pipes:
            self._heard.register(pipes.answers_fileno, select.EPOLLIN)
        self.pids = [pipes.hello() for pipes in self._pipes]

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are answers."""
        return self._heard.fileno()

    @property
    def backlog(self) -> bool:
        """Return whether commands wait for room in a pipe: call `push` when there is."""
        return any(pipes.backlog for pipes in self._pipes)

    def run(self, lane: int, key: str, job: Job) -> None:
        """Run a job after those that its lane already has."""
        which = lane % len(self._pipes) if job.hosted is None else 0
        self._pipes[which].say(("run", lane, key, tuple(job)))

    def drop(self, key: str) -> None:
        """Drop a job that has not started."""
        self._say_to_all(("drop", key))

    def signal(self, key: str, number: int) -> None:
        """Send a signal to the process group of a job."""
        self._say_to_all(("signal", key, int(number)))

    def limit(self, umask: int, core_bytes: int, user: tuple[int, int, list[int]] | None) -> None:
        """Set the limits of all following jobs; `user` is their owner, if not ours."""
        self._say_to_all(("limits", umask, core_bytes, user))

    def keep_hosts(self, max_idle: int, max_tasks: int, idle_seconds: float, start_seconds: float) -> None:
        """Set how host processes are kept (see `worker.hosts`)."""
        self._say_to_all(("hosts", max_idle, max_tasks, idle_seconds, start_seconds))

    def _say_to_all(self, command: tuple[Any, ...]) -> None:
        for pipes in self._pipes:
            pipes.say(command)

    def push(self) -> None:
        """Send the waiting commands; bytes that a pipe does not accept now wait. SupervisorDied if one is closed."""
        for pipes in self._pipes:
            pipes.push()

    def answers(self) -> list[tuple[Any, ...]]:
        """Return the new answers of the supervisors; SupervisorDied if one has closed its pipe."""
        found: list[tuple[Any, ...]] = []
        died: SupervisorDied | None = None
        for pipes in self._pipes:
            try:
                found += pipes.answers()
            except SupervisorDied as error:
                died = error
        if died is not None and not found:
            raise died
        return found

    def close(self) -> None:
        """Let the supervisors kill their tasks, and wait until they are gone."""
        for pipes in self._pipes:
            pipes.close_commands()
        deadline = time.monotonic() + CLOSE_SECONDS
        while not all(map(_gone, self.pids)) and time.monotonic() < deadline:
            select.select([], [], [], 0.005)
        self._close_answers()

    def clean_up(self, groups: Iterable[int]) -> None:
        """After SupervisorDied: kill the process groups of all tasks, and every process that is or became our child."""
        for group in groups:
            signal_group(group, 9)
        for pipes in self._pipes:
            pipes.close_commands()
        self._close_answers()
        deadline = time.monotonic() + CLOSE_SECONDS
        while (left := set(children()) - self._others) and time.monotonic() < deadline:
            for pid in left:
                kill(pid)
                _gone(pid)
            select.select([], [], [], 0.005)

    def _close_answers(self) -> None:
        self._heard.close()
        for pipes in self._pipes:
            pipes.close_answers()


class Pipes:
    """One supervisor, started with it, and the pipes to and from it. SetupError if it cannot be started."""

    def __init__(self) -> None:
        self._unsent = bytearray()
        self._received = frames.Unpacker()
        self._pending: list[tuple[Any, ...]] = []
        self._process = subprocess.Popen(
            [sys.executable, *_SMALL, "-c", _PROGRAM, str(Path(__file__).resolve().parent.parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd="/",
            bufsize=0,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise SetupError("the supervisor has no pipes")
        self._commands, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._commands.fileno(), False)
        os.set_blocking(self._answers.fileno(), False)

    @property
    def answers_fileno(self) -> int:
        """Return the descriptor that is readable when there are answers."""
        return self._answers.fileno()

    @property
    def backlog(self) -> bool:
        """Return whether commands wait for room in the pipe."""
        return bool(self._unsent)

    def hello(self) -> int:
        """Wait until it is ready; return its process id."""
        self._process.wait()  # it has left a child of its own
        deadline = time.monotonic() + START_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            select.select([self._answers], [], [], left)
            try:
                said = self.answers()
            except SupervisorDied as error:
                raise SetupError("the supervisor ended at once; its message is above") from error
            if said:
                return int(said[0][1])
        raise SetupError(f"the supervisor did not start within {START_SECONDS:g} s")

    def say(self, command: tuple[Any, ...]) -> None:
        """Add a command for the next `push`."""
        self._pending.append(command)

    def push(self) -> None:
        """Send the waiting commands; bytes that the pipe does not accept now wait. SupervisorDied if it is closed."""
        if self._pending:
            self._unsent += frames.pack(self._pending)
            self._pending = []
        try:
            while self._unsent:
                del self._unsent[: os.write(self._commands.fileno(), self._unsent)]
        except BlockingIOError:
            return
        except BrokenPipeError as error:
            raise SupervisorDied from error

    def answers(self) -> list[tuple[Any, ...]]:
        """Return its new answers; SupervisorDied if it has closed its pipe."""
        found: list[tuple[Any, ...]] = []
        while True:
            try:
                data = os.read(self._answers.fileno(), frames.READ_BYTES)
            except BlockingIOError:
                return found
            if not data and not found:
                raise SupervisorDied
            found += self._received.feed(data)
            if len(data) < frames.READ_BYTES:
                return found

    def close_commands(self) -> None:
        """Close the pipe of commands: the supervisor kills its tasks, and ends."""
        self._commands.close()

    def close_answers(self) -> None:
        """Close the pipe of answers."""
        self._answers.close()


def _gone(pid: int) -> bool:
    """Return whether a child of ours has ended; if so, it is reaped."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
