"""Child processes that never outlive the process that started them, and the environment of tasks."""

import ctypes
import itertools
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from banyan import signals

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 2.0
_TAIL_BYTES = 64 << 10

_looked_after: list[list[subprocess.Popen[bytes]]] = []
"""The children that each block of `none_left` has started."""


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    pass_fds: Iterable[int] = (),
    death_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, with its output appended to `log` (mode 0600).

    When the calling thread's process dies, for any cause, Linux sends the child `death_signal`; so call this from a
    thread that lives as long as the child shall (the main one). A terminal's Ctrl-C does not reach the child: stopping
    children in the right order is their parent's work. The child inherits only the open files in `pass_fds`, and no
    ignored or blocked signal.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        with undisturbed():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=None if env is None else dict(env),
                pass_fds=tuple(pass_fds),
                start_new_session=True,
                preexec_fn=_die_with(os.getpid(), death_signal),
            )
            for started in _looked_after:
                started.append(process)
        return process
    finally:
        os.close(descriptor)


@contextmanager
def none_left() -> Iterator[None]:
    """Stop the children that the block has started and that still run at its end, the last first.

    A starter stops its own child; this is for a start that a signal interrupted before the starter knew the child.
    """
    started: list[subprocess.Popen[bytes]] = []
    _looked_after.append(started)
    try:
        yield
    finally:
        _looked_after.remove(started)
        for process in reversed(started):
            stop(process, seconds=_STOP_SECONDS)


def looked_after() -> set[int]:
    """Return the ids of the children that were started in a block of `none_left` and are not reaped."""
    return {each.pid for started in _looked_after for each in started if each.returncode is None}


def reap(process: subprocess.Popen[bytes], *, family: bool = False) -> int | None:
    """Return the exit code of a child that has ended, negative for a signal; None while it runs.

    With `family` its own children are killed before its process group can be another one's.
    """
    if process.returncode is None and os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        return None
    if process.returncode is None and family:
        os.killpg(process.pid, signal.SIGKILL)  # it leads a process group, and is not reaped yet
    return process.wait()


def last_lines(log: Path, count: int) -> list[str]:
    """Return the last lines of a log (of its last 64 KiB); none where it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []


def stop(
    process: subprocess.Popen[bytes], *, seconds: float, ask_again_after: Sequence[float] = (), family: bool = False
) -> int:
    """Ask the child to end (SIGTERM), kill it after `seconds`; return its exit code, negative for a signal.

    A child that takes the first signal as "finish your work" gets another one so many seconds after the first. With
    `family` its own children are killed with it; without, it has to do that.
    """
    times = [0.0, *ask_again_after, seconds]
    for wait in (after - before for before, after in itertools.pairwise(times)):
        if process.poll() is None:
            process.terminate()
        try:
            return process.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            continue
    if family:
        os.killpg(process.pid, signal.SIGKILL)  # it leads a process group, and is not reaped yet
    else:
        process.kill()
    return process.wait()


def default_environment(user: tuple[str, str] | None = None) -> dict[str, str]:
    """Return the variables of every task, which do not depend on the environment of the process that starts it.

    PATH holds the usual directories and, last, that of our own Python. `user` is the name and the home of the user as
    whom the task runs, by default our own.
    """
    name, home = user or _own_user()
    usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        "PATH": f"{usual}:{os.path.dirname(sys.executable)}",
        "HOME": home,
        "USER": name,
        "LOGNAME": name,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "TMPDIR": tempfile.gettempdir(),
    }


def _own_user() -> tuple[str, str]:
    try:
        user = pwd.getpwuid(os.getuid())
    except KeyError:  # a container may run as a user without a name
        return str(os.getuid()), "/"
    return user.pw_name, user.pw_dir


@contextmanager
def undisturbed() -> Iterator[None]:
    """Delay signals that ask this process to end until the end of the block. They interrupt the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    with ExitStack() as handlers:
        for each in signals.ENDING:
            if signal.getsignal(each) not in (signal.SIG_IGN, None):
                handlers.callback(signal.signal, each, signal.signal(each, hear))
        yield
    for number in asked:
        signal.raise_signal(number)


def _die_with(parent: int, death_signal: signal.Signals) -> Callable[[], None]:
    """Return the function that the child runs between fork and exec; the C library is loaded here, before the fork."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def prepare() -> None:
        signals.reset()
        prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os.kill(os.getpid(), signal.SIGKILL)

    return prepare
