"""`banyan demo`: a small real workload on a queue of its own, checked from end to end."""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from banyan.errors import SetupError

START_SECONDS = 60.0
STOP_SECONDS = 30.0


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(demo)


def demo() -> None:
    """See it all work on a small real workload; exit 0 only if all of it came out right.

    Starts everything on a free port in a temporary directory, counts the words of Python's own library in
    parallel tasks, adds them up in a continuation, lets one task fail and retry, cancels another, shows results,
    history, memory and statistics, and stops everything.
    """
    from banyan.cli.demo_show import Story
    from banyan.client import Client

    with tempfile.TemporaryDirectory(prefix="banyan-demo-") as name, _ended_by_sigterm():
        directory = Path(name)
        with running(directory) as up, Client(up["url"], up["provider_token"]) as client:
            story = Story(client, directory / "words")
            story.tell(up["url"])
        story.expect("everything has stopped", not (left := [pid for pid in _pids(up) if _alive(pid)]), f"left: {left}")
        story.close()
    if story.problems:
        raise typer.Exit(1)


@contextmanager
def running(directory: Path) -> Iterator[dict[str, Any]]:
    """A `banyan up` of our own in `directory`, stopped at the end; yields the line that it prints."""
    from banyan import child

    log = directory / "up.log"
    command = [sys.executable, "-m", "banyan", "up", "--json", "--port", "0", "--data", str(directory / "data")]
    # Its pointer stays here: other terminals keep to their own server. Samples come often enough for a curve.
    settings = {"XDG_STATE_HOME": str(directory / "state"), "BANYAN_USAGE__INTERVAL": "0.25"}
    process = child.spawn(command, log=log, env=_own_environment() | settings)
    try:
        yield _first_line(process, log)
    finally:
        status = child.stop(process, seconds=STOP_SECONDS)
    if status != 0:
        raise SetupError(f"`banyan up` stopped with exit code {status}:\n{_tail(log)}")


def _own_environment() -> dict[str, str]:
    """Our environment without settings of Banyan, which are meant for another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BANYAN_")}


def _first_line(process: Any, log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        for line in log.read_text(errors="replace").splitlines(keepends=True):
            if line.startswith('{"url"') and line.endswith("\n"):
                ready: dict[str, Any] = json.loads(line)
                return ready
        if ended:
            raise SetupError(f"`banyan up` did not start:\n{_tail(log)}")
        time.sleep(0.05)
    raise SetupError(f"`banyan up` was not ready after {START_SECONDS:g} s:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-10:])


def _pids(up: dict[str, Any]) -> list[int]:
    pids = up["pids"]
    return [pid for pid in (pids.get("mongod"), *pids["server"], pids["worker"]) if pid is not None]


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM unwinds us, so that what we started is stopped."""

    def unwind(number: int, frame: FrameType | None) -> None:
        raise typer.Exit(128 + number)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
