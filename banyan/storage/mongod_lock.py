"""Locks of a data directory: our own, and the one that every mongod holds."""

import fcntl
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from banyan.errors import SetupError


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryLock:
    """The right to run a mongod on a directory; it ends with the process at the latest."""

    descriptor: int

    @classmethod
    def acquire(cls, directory: Path) -> Self:
        """Lock the directory (created with mode 0700 when absent); SetupError names the process that holds it."""
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SetupError(
                f"the data directory {directory} cannot be used: {error.strerror}; name another one with --data"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = _written_pid(descriptor)
            os.close(descriptor)
            raise SetupError(_in_use(directory, owner)) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return cls(descriptor=descriptor)

    @staticmethod
    def held(directory: Path) -> bool:
        """Return whether a process holds the directory."""
        return _holder(directory / "lock") is not None

    def release(self) -> None:
        os.close(self.descriptor)


def wait_until_unlocked(lock_file: Path, *, seconds: float) -> None:
    """Wait until a mongod whose parent died has shut down; SetupError names one that is still running afterwards."""
    deadline = time.monotonic() + seconds
    while (owner := _holder(lock_file)) is not None:
        if time.monotonic() > deadline:
            raise SetupError(_in_use(lock_file.parent, owner))
        time.sleep(0.05)


def _holder(lock_file: Path) -> int | None:
    """The pid (0 where unknown) of the mongod that holds the lock; None if there is none."""
    try:
        descriptor = os.open(lock_file, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _written_pid(descriptor)
    finally:
        os.close(descriptor)
    return None


def _written_pid(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdigit() else 0


def _in_use(directory: Path, pid: int) -> str:
    user = f"process {pid}" if pid else "another process"
    with suppress(psutil.Error):
        user += f" ({' '.join(psutil.Process(pid).cmdline())[:200]})" if pid else ""
    return f"the data directory {directory} is in use by {user}; stop it, or name another directory with --data"
