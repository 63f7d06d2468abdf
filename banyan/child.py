"""Child processes that never outlive the process that started them, and what tasks find in their environment."""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    pass_fds: Iterable[int] = (),
    death_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, with its output appended to `log` (mode 0600).

    When the calling thread's process dies, however it dies, Linux sends the child `death_signal`; so call this from a
    thread that lives as long as the child shall (the main one). A terminal's Ctrl-C does not reach the child: stopping
    children in the right order is their parent's work. Open files are inherited only if they are in `pass_fds`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env=None if env is None else dict(env),
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            preexec_fn=_die_with(os.getpid(), death_signal),
        )
    finally:
        os.close(descriptor)


def stop(
    process: subprocess.Popen[bytes], *, seconds: float, ask_again_after: float | None = None, family: bool = False
) -> int:
    """Ask the child to end (SIGTERM), kill it after `seconds`; its exit code, negative for a signal.

    A child that takes the first request as "finish what you do" is asked a second time `ask_again_after` seconds later.
    With `family` its own children are killed with it; without, that is left to them.
    """
    waits = [seconds] if ask_again_after is None else [ask_again_after, seconds - ask_again_after]
    for wait in waits:
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
    """What every task finds in its environment, whatever that of the process is which starts it.

    PATH holds the usual directories and, last, that of our own Python. `user` is the name and the home of the one as
    whom it runs, by default our own.
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
    except KeyError:  # a container may run as a user that nobody has named
        return str(os.getuid()), "/"
    return user.pw_name, user.pw_dir


def _die_with(parent: int, death_signal: signal.Signals) -> Callable[[], None]:
    """What the child runs between fork and exec; the C library is loaded here, before the fork."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os.kill(os.getpid(), signal.SIGKILL)

    return prepare
