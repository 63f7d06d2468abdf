"""Celery with Redis as its broker and for its results: one worker with two processes."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from banyan.storage.embedded import free_port
from bench.errors import Incomplete, Missing
from bench.peers.plain_mongod import answers
from bench.processes import running
from bench.turns import Run, Watch

NAME = "celery"

_PROCESSES = "2"
_LONGEST_SECONDS = 600
_READY = "ready."


def noop(number: int) -> int:
    """What is called."""
    return number


def make_app() -> Any:
    """The Celery application; where its broker is, is said when it is run."""
    from celery import Celery

    app = Celery("bench")
    app.task(noop, name="noop")
    return app


@contextmanager
def calls() -> Iterator[Run]:
    """Calls per second: a group of all calls, until the results of all are read."""
    if find_spec("celery") is None or find_spec("redis") is None:
        raise Missing("Celery is not installed: pip install -c requirements.lock -e . -e bench")
    with _redis() as url, tempfile.TemporaryDirectory(prefix="banyan-bench-") as name:
        from celery import group

        app = make_app()
        app.conf.update(broker_url=url, result_backend=url)
        log = Path(name) / "celery.log"
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "bench.peers.celery_worker",
            "-b",
            url,
            "--result-backend",
            url,
        ]
        command += ["worker", "--concurrency", _PROCESSES, "--loglevel", "INFO"]

        def run(count: int, watch: Watch) -> float:
            with watch:
                results = group(app.tasks["noop"].s(number) for number in range(count)).apply_async()
                answers = results.get(timeout=_LONGEST_SECONDS)
            if answers != list(range(count)):
                raise Incomplete(f"Celery: {count} results were expected, in order; {len(answers)} came")
            results.forget()
            return count / watch.seconds

        with running(command, log=log, ready=lambda: _READY in log.read_text()):
            yield run
        app.close()


@contextmanager
def _redis() -> Iterator[str]:
    """A Redis of our own as Debian configures none: on a loopback port, in a directory of its own. Its URL."""
    program = shutil.which("redis-server")
    if program is None:
        raise Missing("redis-server is not installed: apt-get install -y redis-server")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="banyan-bench-") as name:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", name]
        with running(command, log=Path(name) / "redis.log", ready=lambda: answers(port)):
            yield f"redis://127.0.0.1:{port}/0"
