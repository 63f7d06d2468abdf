"""`banyan demo`: a small real workload on a queue of its own, checked from end to end."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from banyan.cli import late_typer as typer

if TYPE_CHECKING:
    from banyan.up import Running

_WORKER_SETTINGS = "[usage]\ninterval = 0.25\n"
"""Samples are frequent enough for a curve of a few seconds."""


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
        with _own_queue(directory) as up, Client(up.url, up.provider_token) as client:
            processes = [part.process for part in up.parts]
            story = Story(client, directory / "words")
            story.tell(up.url)
        left = [process.pid for process in processes if process.poll() is None]
        story.expect("everything has stopped", not left, f"processes {left} still run")
        story.close()
    if story.problems:
        raise typer.Exit(1)


@contextmanager
def _own_queue(directory: Path) -> "Iterator[Running]":
    """Start `banyan up` in `directory` and on a free port, unannounced to other terminals."""
    from banyan.cli.output import screen
    from banyan.config import load_server_settings
    from banyan.up import Plan, running

    for variable in [each for each in os.environ if each.startswith("BANYAN_")]:
        del os.environ[variable]  # they are for another server
    settings = directory / "worker.toml"
    settings.write_text(_WORKER_SETTINGS)
    plan = Plan(settings=load_server_settings({"server": {"port": 0}}), data=directory / "data", worker_config=settings)
    with (
        screen(stderr=True).status("Starting") as status,
        running(plan, say=lambda text: status.update(f"{text} …")) as up,
    ):
        status.stop()
        yield up


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind this process, so that all that it started is stopped."""

    def unwind(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)  # no `except Exception` in between may catch it

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
