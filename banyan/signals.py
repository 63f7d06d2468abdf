"""Signals of programs that stay: their meaning, whatever was ignored or blocked when the program was started."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU, signal.SIGPWR)
"""The signals that ask a program to end. SIGHUP: its terminal is gone; SIGXCPU: its CPU time is nearly used up."""
_DEFERRING = (signal.SIGHUP, signal.SIGQUIT)
"""The signals that stay ignored if they are ignored when a program starts, as by `nohup`."""
_UNTOUCHED = {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD),
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS),
    *(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGURG, signal.SIGWINCH),
}
"""Signals that stop and continue, that report a fault in the program, and that Python or Linux ignores."""
_CHANGEABLE = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


def begin() -> None:
    """Reset inherited settings that would keep signals, or the ends of children, from the program."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def reset() -> None:
    """Reset every signal to its default and block none, in a child between fork and exec."""
    for number in _CHANGEABLE:
        with suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


@contextmanager
def listening(end: Callable[[int], None], other: Callable[[str], None]) -> Iterator[None]:
    """Call `end` in the block for each signal that asks to end, and `other` for each other one that would kill.

    `other` gets a line for the log. Both are called between two instructions of the main thread.
    """

    def ending(number: int, frame: FrameType | None) -> None:
        end(number)

    def ignored(number: int, frame: FrameType | None) -> None:
        other(f"{name_of(number)} means nothing here, and is ignored")

    before = {}
    for number in _CHANGEABLE:
        if number in _UNTOUCHED or (number in _DEFERRING and signal.getsignal(number) is signal.SIG_IGN):
            continue
        before[number] = signal.signal(number, ending if number in ENDING else ignored)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def name_of(number: int) -> str:
    """Return `SIGUSR1` for 10; `SIGRTMIN+6` for one without a name of its own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def say(line: str) -> None:
    """Write a line to stderr from a signal's handler, which may have interrupted another one there."""
    with suppress(OSError):
        os.write(2, f"{line}\n".encode())
