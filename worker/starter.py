"""The start of a job's program, within the limits of all jobs, as our user or as another one.

Imported by the supervisor, which must stay small.
"""

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself brings the large `enum` along
import errno
import os
import resource

from worker.descent import mark_next
from worker.offspring import EVERY_SIGNAL, candidates, spawn

User = tuple[int, int, list[int]]
"""Ids: user, group, all groups."""


class Refused(OSError):
    """A program could not be started; `stage` is the cause: `user`, `directory` or `command`."""

    def __init__(self, stage: str, error: OSError | ValueError) -> None:
        number = errno.EINVAL if not isinstance(error, OSError) else error.errno or 0
        super().__init__(number, error.strerror if isinstance(error, OSError) else str(error))
        self.stage = stage


class Starter:
    """The starter of programs, as the jobs' user."""

    def __init__(self) -> None:
        self._user: User | None = None
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._low = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
        self._allow_files(True)

    @property
    def owner(self) -> "tuple[int, int] | None":
        """Return the user and the group of jobs, if these are not ours."""
        return None if self._user is None else self._user[:2]

    def _allow_files(self, many: bool) -> None:
        """Set our limit of open files to the highest, for pipes of all jobs, or to the one of jobs, our first."""
        soft, hard = self._files
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard if many else soft, hard))

    def limit(self, umask: int, core_bytes: int, user: "User | None") -> None:
        """Set the umask, the size of core dumps and the user (None: ours) of all following jobs."""
        self._user = user
        os.umask(umask)
        most = resource.getrlimit(resource.RLIMIT_CORE)[1]
        size = core_bytes if most == resource.RLIM_INFINITY else min(core_bytes, most)
        resource.setrlimit(resource.RLIMIT_CORE, (size, size))

    def start(
        self,
        key: str,
        argv: list[str],
        env: list[str],
        streams: tuple[int, int, int],
        cwd: str = "/",
        procs: str | None = None,
    ) -> int:
        """Start a program of the job `key` in `cwd`; return its process id. Refused if that fails.

        `procs` is the `cgroup.procs` file of the control group to enter, which the user must not do himself.
        """
        if max(streams) >= self._files[0]:  # such a descriptor cannot be passed on under the limit of the job
            for stream, low in zip(streams, self._low, strict=True):
                os.dup2(stream, low, False)
            streams = (self._low[0], self._low[1], self._low[2])
        mark_next(key)
        self._allow_files(False)
        try:
            return self._start(argv, env, streams, cwd, procs)
        finally:
            self._allow_files(True)

    def _start(
        self, argv: list[str], env: list[str], streams: tuple[int, int, int], cwd: str, procs: str | None
    ) -> int:
        if self._user is not None:
            return _spawn_as(self._user, argv, env, streams, cwd, procs)
        try:
            os.chdir(cwd)
        except (OSError, ValueError) as error:
            raise Refused("directory", error) from error
        try:
            return spawn(argv, env, streams)
        except (OSError, ValueError) as error:
            raise Refused("command", error) from error
        finally:
            os.chdir("/")


def _spawn_as(
    user: User,
    argv: list[str],
    env: list[str],
    streams: tuple[int, int, int],
    cwd: str,
    procs: str | None,
) -> int:
    """Spawn as another user, in `cwd` as far as he may go there; Refused.

    Values that he chooses, such as `env`, have no effect before the process is his: so there is no program in between,
    but a fork. It costs about half a millisecond more than `posix_spawn`, which knows nothing of users.
    """
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(tell, user, argv, env, streams, cwd, procs)
    os.close(tell)
    fault = b""
    while data := os.read(told, 4096):
        fault += data
    os.close(told)
    if not fault:
        return pid
    os.waitpid(pid, 0)
    stage, number, text = fault.decode(errors="replace").split("\n", 2)
    raise Refused(stage, OSError(int(number), text))


def _become(
    tell: int,
    user: User,
    argv: list[str],
    env: list[str],
    streams: tuple[int, int, int],
    cwd: str,
    procs: str | None,
) -> None:
    """Become the user and then the program, in the child, or report why not. It never returns."""
    stage = "user"
    try:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        for number in EVERY_SIGNAL:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if procs is not None:
            group = os.open(procs, os.O_WRONLY)
            os.write(group, b"0")
            os.close(group)
        uid, gid, groups = user
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        stage = "directory"
        os.chdir(cwd)
        stage = "command"
        _execute(argv, dict(pair.split("=", 1) for pair in env))
    except (OSError, ValueError) as error:
        refused = Refused(stage, error)
        os.write(tell, f"{refused.stage}\n{refused.errno}\n{refused.strerror}".encode(errors="replace"))
    finally:
        os._exit(127)


def _execute(argv: list[str], variables: dict[str, str]) -> None:
    """Become the program; OSError if that fails."""
    fault: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
    for path in candidates(argv[0], variables.get("PATH", os.defpath)):
        try:
            os.execve(path, argv, variables)  # noqa: S606 - running programs is what this project does
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            fault = error
    raise fault
