"""Dask distributed: a scheduler, two workers with a process and a thread each, one future for each call."""

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

NAME = "dask"

_WORKERS = 2
_LONGEST_SECONDS = 600


def noop(number: int) -> int:
    """What is called."""
    return number


@contextmanager
def calls() -> Iterator[Run]:
    """Calls per second: `submit` of each with a key of its own, until the results of all are gathered."""
    if find_spec("distributed") is None:
        raise Missing("Dask distributed is not installed: pip install -c requirements.lock -e . -e bench")
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="banyan-bench-") as name:
        home = Path(name)
        scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nworkers", str(_WORKERS)]
        worker += ["--nthreads", "1", "--local-directory", name, "--no-dashboard"]
        with (
            running([*scheduler, "--no-dashboard"], log=home / "scheduler.log", ready=lambda: answers(port)),
            running(worker, log=home / "worker.log"),
            _client(address) as client,
        ):
            client.wait_for_workers(_WORKERS, timeout=_LONGEST_SECONDS)
            numbers = iter(range(10**9))

            def run(count: int, watch: Watch) -> float:
                with watch:
                    futures = [client.submit(noop, number, key=f"noop-{next(numbers)}") for number in range(count)]
                    results = client.gather(futures)
                if results != list(range(count)):
                    raise Incomplete(f"Dask: {count} results were expected, in order; {len(results)} came")
                return count / watch.seconds

            yield run


def _client(address: str) -> Any:
    import distributed

    return distributed.Client(address)  # type: ignore[no-untyped-call]
