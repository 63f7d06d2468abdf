"""What a model costs, on a real queue of two slots: `python -m tests.bench.models`. Prints figures, judges none.

Everything runs on this machine: MongoDB (journaled, majority), server, worker with two cores and warm hosts, client.
"""

import json
import socket
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from banyan import frames
from banyan.client import Client
from banyan.models import cancel_memory
from banyan.models.finding import find
from banyan.models.host import command
from tests.support.up import Up, started
from tests.support.waiting import eventually

TASKS = 2_000
ROUNDS = 15
MODELS = Path(__file__).parent / "tiny_models"

Document = dict[str, Any]


def main() -> None:
    """Run all of it and print a table."""
    with tempfile.TemporaryDirectory(prefix="banyan-bench-") as name:
        settings = {"BANYAN_MODELS__PATH": json.dumps([str(MODELS)])}
        with started(Path(name), "--cores", "2", env=settings) as up, Client(up.url, _token(up)) as client:
            for what, figure in figures(client):
                print(f"{what:<58} {figure}", flush=True)


def _token(up: Up) -> str:
    return str(up.ready["provider_token"])


def figures(client: Client) -> Iterator[tuple[str, str]]:
    """Each question and its answer."""
    yield "first task of a cold host, post to end", _middle(lambda: cold(client), 5)
    yield "one warm task, post to end, nothing else to do", _middle(lambda: post_to_end(client), ROUNDS)
    yield f"{TASKS} no-op tasks, two slots, post to all ended", throughput(client)
    yield "one warm task in its host, told to answered", f"{in_host() * 1e3:.2f} ms (mean of {TASKS})"
    yield "cancel.get()", f"{run(client, 'read flag')['result']['seconds'] * 1e9:.0f} ns"
    yield "POST cancel to flag true", _middle(lambda: to_flag(client), ROUNDS)
    yield "POST cancel to `cancelled`, a model that looks", _middle(lambda: to_dead(client, "give up"), ROUNDS)
    yield "the same, one that does not look, max_shutdown_time 0", _middle(lambda: to_dead(client, "ignore"), ROUNDS)


def task(do: str, **fields: Any) -> Document:
    """An available task of the bench's model."""
    return {"model": "nothing", "inputs": {"do": do}, "state": "available", **fields}


def run(client: Client, do: str, **fields: Any) -> Document:
    """A task from its posting to its end."""
    id = client.submit(task(do, **fields))["_id"]
    eventually(lambda: client.task(id, ["state"])["state"] == "terminated", seconds=120)
    return client.task(id)


def post_to_end(client: Client, **fields: Any) -> float:
    """Seconds by the client's clock; it asks again and again, which costs a little."""
    begun = time.perf_counter()
    id = client.submit(task("nothing", **fields))["_id"]
    while client.task(id, ["state"])["state"] != "terminated":
        continue
    return time.perf_counter() - begun


def cold(client: Client) -> float:
    """The same in a host that must be started for it, because no other has this variable."""
    return post_to_end(client, env={"ONCE": uuid.uuid4().hex})


def throughput(client: Client) -> str:
    """Tasks per second, posted in one list, of three rounds."""
    rates = []
    for _ in range(3):
        tag = uuid.uuid4().hex
        begun = time.perf_counter()
        client.submit([task("nothing", tags=[tag])] * TASKS)
        where = {"tags": tag, "state": "terminated", "exit_status": "success"}
        eventually(lambda where=where: client.tasks(where, max_results=1).total == TASKS, seconds=300)  # type: ignore[misc]
        rates.append(TASKS / (time.perf_counter() - begun))
    return f"{statistics.median(rates):.0f} /s (of {', '.join(f'{rate:.0f}' for rate in rates)})"


def in_host() -> float:
    """Seconds from telling a host of a task to its answer, without supervisor, worker and server."""
    ours, theirs = socket.socketpair()
    memory = cancel_memory.create()
    host = subprocess.Popen(command(theirs.fileno(), memory), pass_fds=[theirs.fileno(), memory])
    unpacker = frames.Unpacker(frames.foreign)

    def ask(*message: Any) -> tuple[Any, ...]:
        ours.sendall(frames.pack([message]))
        while not (found := unpacker.feed(ours.recv(frames.READ_BYTES))):
            continue
        return found[0]

    source = find([str(MODELS)])["nothing"]
    setup = {"name": source.name, "module": source.module, "attribute": None, "directory": source.directory}
    ask("setup", setup | {"dask": {}, "scheduler": "threads", "cluster": "", "cores": 1})
    with tempfile.TemporaryDirectory(prefix="banyan-bench-") as work:
        what: Document = {
            "inputs": {},
            "fault": None,
            "jobid": "bench",
            "workdir": work,
            "cwd": work,
            "env": {},
            "stdin": None,
        }
        what |= {"stdout": f"{work}/stdout", "stderr": f"{work}/stderr", "grace_seconds": 30.0}
        begun = time.perf_counter()
        for number in range(1, TASKS + 1):
            ask("run", number, what)
        seconds = (time.perf_counter() - begun) / TASKS
    ours.close()
    host.kill()
    host.wait()
    return seconds


def to_flag(client: Client) -> float:
    """Seconds from the request to the model's own view of the flag; one machine, one clock."""
    id = _running(client, "notice")
    begun = time.time()
    client.cancel(id)
    eventually(lambda: client.task(id, ["state"])["state"] == "terminated")
    return float(client.task(id)["result"]["noticed"]) - begun


def to_dead(client: Client, do: str) -> float:
    """Seconds from the request until the task is seen as cancelled, its processes gone."""
    id = _running(client, do, max_shutdown_time=0)
    begun = time.perf_counter()
    client.cancel(id)
    while client.task(id, ["state"])["state"] != "cancelled":
        continue
    return time.perf_counter() - begun


def _running(client: Client, do: str, **fields: Any) -> str:
    id = str(client.submit(task(do, **fields))["_id"])
    eventually(lambda: _started(client.task(id)))
    return id


def _started(document: Document) -> str | datetime | None:
    return document.get("time_started")


def _middle(measure: Callable[[], float], rounds: int) -> str:
    seconds = sorted(measure() for _ in range(rounds))
    least, middle, most = (each * 1e3 for each in (seconds[0], statistics.median(seconds), seconds[-1]))
    return f"{middle:.1f} ms (from {least:.1f} to {most:.1f}, {rounds} times)"


if __name__ == "__main__":
    main()
