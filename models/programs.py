"""Waiting for a program that a model has started, while it can be cancelled. No model itself."""

from __future__ import annotations

import subprocess
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dask.distributed import Variable

POLL_SECONDS = 0.02


def wait(process: subprocess.Popen[Any], cancel: Variable, *, grace_seconds: float = 1.0) -> int:
    """The program's exit code, minus the signal's number if a signal has ended it.

    As soon as `cancel` is true the program is ended and CancelledError raised: SIGTERM asks it to stop, SIGKILL follows
    after `grace_seconds`. It has ended, and left no zombie, whatever this raises.
    """
    try:
        while not cancel.get():
            with suppress(subprocess.TimeoutExpired):
                return process.wait(POLL_SECONDS)
        raise CancelledError("the task was cancelled, and its program has been ended")
    finally:
        _end(process, grace_seconds)


def _end(process: subprocess.Popen[Any], grace_seconds: float) -> None:
    """See that the program runs no longer; nothing happens if it has ended."""
    process.terminate()
    try:
        process.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
