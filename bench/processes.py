"""The processes of what is measured: started with a log, waited for, stopped, and their CPU time told."""

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil

from banyan import child
from banyan.errors import SetupError
from bench.errors import Incomplete

Seen = TypeVar("Seen")

_POLL_SECONDS = 0.02
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_SHOWN_CHARACTERS = 2000


@contextmanager
def running(
    command: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], object] = lambda: True,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, once `ready` is true; it is stopped with its children at the end of the block.

    SetupError with the end of its log when it ends before it is ready, or does not get ready.
    """
    process = child.spawn(command, log=log, env=env, pass_fds=pass_fds)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-_SHOWN_CHARACTERS:]
                raise SetupError(f"{command[0]} did not get ready (exit code {process.poll()}); it said:\n{said}")
            time.sleep(_POLL_SECONDS)
        yield process
    finally:
        child.stop(process, seconds=_STOP_SECONDS, family=True)


def eventually(look: Callable[[], Seen], *, seconds: float, what: str, poll_seconds: float = _POLL_SECONDS) -> Seen:
    """The first true answer; `Incomplete` with the last one after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise Incomplete(f"{what}: after {seconds:g} s it is still {seen!r}")
        time.sleep(poll_seconds)
    return seen


def cpu_seconds(process: int) -> float:
    """The CPU time of a process, its children that live, and those that have ended and were waited for."""
    try:
        family = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for each in family:
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total
