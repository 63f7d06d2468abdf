"""One real mongod for a whole test run, shared by all xdist workers and stopped when the last of them ends.

A keeper process (this module run as a program) owns the server. Each user holds a shared lock on a file; the keeper
waits for the exclusive lock, which it gets when no user is left, be it that they finished or were killed.
"""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from banyan.storage import embedded

READY_SECONDS = 90.0


@contextmanager
def shared_mongod(directory: Path) -> Iterator[str]:
    """The URI of the run's mongod, which is started by the first to ask; it lives at least as long as the block."""
    directory.mkdir(exist_ok=True)
    with _locked(directory / "start.lock", fcntl.LOCK_EX):
        users = open(directory / "users.lock", "w")  # noqa: SIM115 - closed below, when the block ends
        fcntl.flock(users, fcntl.LOCK_SH)
        if not (directory / "uri").exists():
            _start_keeper(directory)
    try:
        yield (directory / "uri").read_text()
    finally:
        users.close()


def _start_keeper(directory: Path) -> None:
    log = directory / "keeper.log"
    with log.open("wb") as output:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.support.mongod", str(directory)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + READY_SECONDS
    while not (directory / "uri").exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the tests' mongod did not start:\n{log.read_text()}")
        time.sleep(0.02)
    keeper.returncode = 0  # it is left on purpose: it ends when its last user has gone


def _keep(directory: Path) -> None:
    uri = directory / "uri"
    with embedded.start(directory / "mongo", log=directory / "mongod.log", cache_gigabytes=0.5) as mongo:
        unfinished = directory / "uri.new"
        unfinished.write_text(mongo.uri)
        unfinished.rename(uri)
        with _locked(directory / "users.lock", fcntl.LOCK_EX):
            uri.unlink()


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
