"""The surroundings of a host process while it runs a task: streams, directory, variables, child processes."""

import os
import signal
import sys
import time
from _signal import signal as set_handler  # type: ignore[import-not-found]  # `signal.signal` is ten times as slow
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from worker.offspring import SIGCONT, SIGTERM, descendants, group_of, kill, own_children, signal_process

END_SECONDS = 2.0
"""The time that killed processes have to end."""
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Place:
    """Surroundings of a task. Processes that exist when it is made stay; those that a task leaves are killed."""

    def __init__(self, outputs: tuple[int, int]) -> None:
        self._outputs = outputs
        self.kept = descendants(os.getpid())
        self._variables: list[str] = []

    def enter(self, what: Mapping[str, Any]) -> dict[str, Any] | None:
        """Enter the task's surroundings; return the outcome of the task where that fails."""
        os.environ.update(what["env"])
        self._variables = list(what["env"])
        try:
            _redirect(what["stdin"] or os.devnull, os.O_RDONLY, 0)
        except OSError as error:
            return {"broken": f"input: {error}"}
        for number, output in enumerate(self._outputs, 1):
            os.dup2(output, number)
        # A model may have closed or replaced them; closing these closes no descriptor.
        sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        try:
            os.chdir(what["cwd"])
        except OSError as error:
            return {"no_directory": os.strerror(error.errno or 0)}
        return None

    def leave(self, grace_seconds: float) -> bool:
        """Leave the surroundings; return whether nothing of the task is left.

        Processes that it has left are killed; those of a task that got SIGTERM have `grace_seconds` before that.
        """
        for stream in (sys.stdout, sys.stderr):
            with suppress(
                OSError, ValueError, AttributeError
            ):  # the disk is full, which is noticed later, or it is closed
                stream.flush()
        _redirect(os.devnull, os.O_RDWR, 0)
        for number in (1, 2):
            os.dup2(0, number)
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        ignore_signals()
        os.chdir("/")
        for name in self._variables:
            os.environ.pop(name, None)
        if grace_seconds:
            self._ask_children(time.monotonic() + grace_seconds)
        return self._end_children()

    def _left(self) -> set[int]:
        """Return the processes of the task."""
        return descendants(os.getpid()) - self.kept - _helpers() if _has_children() else set()

    def _ask_children(self, deadline: float) -> None:
        """Send SIGTERM to the processes that a task has left, like a command's (`worker.closing`); wait for them."""
        group = os.getpgrp()
        asked = {pid for pid in self._left() if group_of(pid) == group}
        for pid in asked:
            _ask(pid)
        while (left := self._left()) and time.monotonic() < deadline:
            for pid in left & own_children():
                if pid not in asked and group_of(pid) != group:
                    _ask(pid)
                asked.add(pid)
            _reap(left)
            time.sleep(0.01)

    def _end_children(self) -> bool:
        """Kill the processes that a task has left; return whether they are gone."""
        deadline = time.monotonic() + END_SECONDS
        while left := self._left():
            for pid in left:
                kill(pid)
            _reap(left)
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True


def _ask(pid: int) -> None:
    signal_process(pid, SIGTERM)
    signal_process(pid, SIGCONT)


def _reap(pids: set[int]) -> None:
    for pid in pids:
        with suppress(ChildProcessError):  # a grandchild: it becomes our child once its parent is gone
            os.waitpid(pid, os.WNOHANG)


def ignore_signals() -> None:
    """Install handlers that do nothing, since only SIGKILL ends a host: programs would inherit an ignored signal."""
    for number in _IGNORED:
        set_handler(number, _nothing)


def end_copies(pid: int) -> None:
    """End a process that a model has forked and that runs on, so that it is no second host: `pid` is the host's."""
    if os.getpid() != pid:
        os._exit(1)


def let_forks_be_ordinary() -> None:
    """Let processes that a model forks receive signals, also one that arrives at their very beginning."""
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED),
        after_in_child=_heed_signals,
    )


def _heed_signals() -> None:
    for number in _IGNORED:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)


def _nothing(*_: object) -> None:
    """Let an interrupted system call continue."""


def _redirect(path: str, flags: int, number: int) -> None:
    descriptor = os.open(path, flags, 0o644)
    if descriptor == number:  # a task has closed it
        os.set_inheritable(descriptor, True)
        return
    os.dup2(descriptor, number)
    os.close(descriptor)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _helpers() -> set[int]:
    """Return the processes that Python's `multiprocessing` starts once for a program, and has no public names for."""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    server = sys.modules.get("multiprocessing.forkserver")
    pids = (
        getattr(getattr(tracker, "_resource_tracker", None), "_pid", None),
        getattr(getattr(server, "_forkserver", None), "_forkserver_pid", None),
    )
    return {pid for pid in pids if pid is not None}
