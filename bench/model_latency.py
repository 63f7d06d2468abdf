"""What a model costs besides its own work: starting, calling and cancelling it."""

import socket
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from typing import Any

from banyan import frames
from banyan.client import Client
from banyan.models import cancel_memory
from banyan.models.finding import find
from banyan.models.host import command
from bench.noop_models import MODELS, models
from bench.processes import eventually
from bench.progress import say
from bench.question import Answer, Question, Size, Target
from bench.turns import Watch

Document = dict[str, Any]

COLD, WARM, IN_HOST = "cold host, post to end", "warm host, post to end", "in its host, told to answered"
TO_FLAG, TO_DEAD, DEAF = "cancel to flag", "cancel to cancelled", "cancel to cancelled, a deaf model"
READ_FLAG = "cancel.get()"

_ROUNDS = {Size.QUICK: 10, Size.FULL: 50}
_COLD_ROUNDS = {Size.QUICK: 3, Size.FULL: 10}
_CALLS = {Size.QUICK: 1_000, Size.FULL: 5_000}
_MILLI = 1e3
_LONGEST_SECONDS = 120.0


def measure(size: Size) -> Answer:
    """Milliseconds of each step, on an idle queue."""
    with models("--cores", "2") as banyan:
        client, rounds = banyan.client, range(_ROUNDS[size])
        series = {COLD: [_cold(client) for _ in range(_COLD_ROUNDS[size])]}
        say(f"  {COLD}: {series[COLD]}")
        series |= {WARM: [_post_to_end(client) for _ in rounds]}
        series |= {TO_FLAG: [_to_flag(client) for _ in rounds]}
        series |= {TO_DEAD: [_to_dead(client, "give up") for _ in rounds]}
        series |= {DEAF: [_to_dead(client, "ignore") for _ in rounds]}
        series |= {READ_FLAG: [_run(client, "read flag")["result"]["seconds"] for _ in range(_COLD_ROUNDS[size])]}
    series |= {IN_HOST: [_in_host(_CALLS[size]) for _ in range(_COLD_ROUNDS[size])]}
    return Answer(
        unit="ms",
        series={name: [_MILLI * each for each in seconds] for name, seconds in series.items()},
        details={"calls_in_host": _CALLS[size]},
    )


def _again(watch: Watch) -> None:
    with models("--cores", "2") as banyan:
        _cold(banyan.client)
        with watch:
            for _ in range(50):
                _post_to_end(banyan.client)
                _to_flag(banyan.client)


def _task(do: str, **fields: Any) -> Document:
    """An available task of the bench's model."""
    return {"model": "nothing", "inputs": {"do": do}, "state": "available", **fields}


def _run(client: Client, do: str) -> Document:
    """A task from its posting to its end."""
    id = str(client.submit(_task(do))["_id"])
    _until(client, id, "terminated")
    return client.task(id)


def _until(client: Client, id: str, state: str, poll_seconds: float = 0.001) -> None:
    eventually(
        lambda: client.task(id, ["state"])["state"] == state,
        seconds=_LONGEST_SECONDS,
        what=f"task {id} is {state}",
        poll_seconds=poll_seconds,
    )


def _post_to_end(client: Client, **fields: Any) -> float:
    """Seconds by the client's clock; it asks again and again, which costs a little."""
    begun = time.perf_counter()
    _until(client, str(client.submit(_task("nothing", **fields))["_id"]), "terminated")
    return time.perf_counter() - begun


def _cold(client: Client) -> float:
    """The same in a host that must be started for it, because no other has this variable."""
    return _post_to_end(client, env={"ONCE": uuid.uuid4().hex})


def _to_flag(client: Client) -> float:
    """Seconds from the request to the model's own view of the flag; one machine, one clock."""
    id = _running(client, "notice")
    begun = time.time()
    client.cancel(id)
    _until(client, id, "terminated")
    return float(client.task(id)["result"]["noticed"]) - begun


def _to_dead(client: Client, do: str) -> float:
    """Seconds from the request until the task is seen as cancelled, its processes gone."""
    id = _running(client, do, max_shutdown_time=0)
    begun = time.perf_counter()
    client.cancel(id)
    _until(client, id, "cancelled")
    return time.perf_counter() - begun


def _running(client: Client, do: str, **fields: Any) -> str:
    id = str(client.submit(_task(do, **fields))["_id"])
    eventually(lambda: client.task(id).get("time_started"), seconds=_LONGEST_SECONDS, what=f"task {id} has started")
    return id


def _in_host(calls: int) -> float:
    """Seconds from telling a host of a task to its answer, without supervisor, worker and server."""
    ours, theirs = socket.socketpair()
    memory = cancel_memory.create()
    with ours, theirs, tempfile.TemporaryDirectory(prefix="banyan-bench-") as work:
        host = subprocess.Popen(command(theirs.fileno(), memory), pass_fds=[theirs.fileno(), memory])
        try:
            ask = _asker(ours)
            source = find([str(MODELS)])["nothing"]
            setup = {"name": source.name, "module": source.module, "attribute": None, "directory": source.directory}
            ask("setup", setup | {"dask": {}, "scheduler": "threads", "cluster": "", "cores": 1})
            what: Document = {"inputs": {}, "fault": None, "jobid": "bench", "workdir": work, "cwd": work, "env": {}}
            what |= {"stdin": None, "stdout": f"{work}/stdout", "stderr": f"{work}/stderr", "grace_seconds": 30.0}
            return statistics.median(_timed(ask, number, what) for number in range(1, calls + 1))
        finally:
            host.kill()
            host.wait()


def _timed(ask: Callable[..., object], number: int, what: Document) -> float:
    begun = time.perf_counter()
    ask("run", number, what)
    return time.perf_counter() - begun


def _asker(connection: socket.socket) -> Callable[..., object]:
    """Sends a message and waits for what comes next."""
    unpacker = frames.Unpacker(frames.foreign)

    def ask(*message: Any) -> object:
        connection.sendall(frames.pack([message]))
        while not (found := unpacker.feed(connection.recv(frames.READ_BYTES))):
            continue
        return found[0]

    return ask


QUESTION = Question(
    name="model-latency",
    text="what one model task costs when nothing else is to do, and how soon a cancellation is seen",
    conditions=(
        "`banyan up` with its defaults and two cores for tasks; one client that asks for the state every "
        "millisecond; the cancelled tasks have `max_shutdown_time` 0; one call in its host is measured without a "
        "server"
    ),
    targets=(
        Target(text="`cancel.get()` under a microsecond", series=READ_FLAG, at_most=0.001),
        Target(text="cancelled to the flag seen in under a second", series=TO_FLAG, at_most=1000),
        Target(text="a warm model, post to end", series=WARM),
        Target(text="a cold model, post to end", series=COLD),
        Target(text="a warm call in its host", series=IN_HOST),
        Target(text="cancelled to its end, a model that looks", series=TO_DEAD),
        Target(text="cancelled to its end, one that does not", series=DEAF),
    ),
    measure=measure,
    again=_again,
)
