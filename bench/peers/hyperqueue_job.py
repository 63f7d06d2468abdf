"""HyperQueue by its Python package: a server with one worker in a process of its own, and jobs of many tasks."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.errors import Incomplete, Missing
from bench.peers.hyperqueue_cluster import READY
from bench.places import fresh_place
from bench.processes import running
from bench.turns import Run, Watch

NAME = "hyperqueue"


@contextmanager
def commands() -> Iterator[Run]:
    """Commands per second: one job with a task for each `echo I`, from its submission to its end."""
    if find_spec("hyperqueue") is None:
        raise Missing("HyperQueue is not installed: pip install -c requirements.lock -e . -e bench")
    home = fresh_place()
    server = home / "server"
    server.mkdir()
    command = [sys.executable, "-m", "bench.peers.hyperqueue_cluster", str(server), str(len(os.sched_getaffinity(0)))]
    with running(command, log=home / "hyperqueue.log", ready=(server / READY).exists):
        from hyperqueue import Client

        client = Client(server)
        yield lambda count, watch: _run(client, fresh_place(), count, watch)


def _run(client: Any, place: Path, count: int, watch: Watch) -> float:
    from hyperqueue import Job

    with watch:
        job = Job(default_workdir=place)
        for number in range(count):
            job.program(["/bin/sh", "-c", f"echo {number}"])
        with redirect_stderr(io.StringIO()):  # it draws its progress
            client.wait_for_jobs([client.submit(job)])
    written = {int(each.stem): each.read_text() for each in place.glob("*.stdout")}
    if written != {number: f"{number}\n" for number in range(count)}:
        raise Incomplete(f"HyperQueue: the stdout of {count} tasks was expected, of {len(written)} it is there")
    return count / watch.seconds
