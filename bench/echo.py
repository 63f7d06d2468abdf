"""How many small commands a second go through the whole queue, with their output kept."""

import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from banyan.client import Client
from bench import ours
from bench.peers import fireworks_rapidfire, hyperqueue_job, xargs
from bench.question import OURS, Answer, Question, Size, Target
from bench.turns import Contestant, Run, Watch, in_turns, once

_COUNTS = {Size.QUICK: 2_000, Size.FULL: 10_000}
_ROUNDS = {Size.QUICK: 3, Size.FULL: 5}
_FIREWORKS = 500
_PROFILED = 4_000

_READERS = 4
_USAGE = ("time_started", "time_terminated", "peak_memory_bytes", "cpu_seconds")


def measure(size: Size) -> Answer:
    """Commands per second of ours, HyperQueue, `xargs` and FireWorks."""
    count, rounds = _COUNTS[size], _ROUNDS[size]
    parts: list[dict[str, float]] = []
    turns = in_turns(
        [
            Contestant(name=OURS, open=lambda: _ours(parts), count=count, rounds=rounds),
            Contestant(name=hyperqueue_job.NAME, open=hyperqueue_job.commands, count=count, rounds=rounds),
            Contestant(name=xargs.NAME, open=xargs.commands, count=count, rounds=rounds),
            Contestant(
                name=fireworks_rapidfire.NAME,
                open=fireworks_rapidfire.commands,
                count=_FIREWORKS,
                rounds=1,
                warm_up=5,
            ),
        ]
    )
    cpu = ours.spent(parts[1:])  # the first is the warm-up's
    return Answer(unit="tasks/s", series=turns.series, details={**turns.details, "cpu_seconds": cpu})


@contextmanager
def _ours(parts: list[dict[str, float]]) -> Iterator[Run]:
    with ours.up() as banyan:

        def run(count: int, watch: Watch) -> float:
            tag = uuid.uuid4().hex
            tasks = [{"command": f"echo {i}", "tags": [tag], "state": "available"} for i in range(count)]
            with banyan.counting(parts), watch:
                ids = ours.submit(banyan.client, tasks)
                ours.wait_until_ended(banyan.client, {"tags": tag}, count)
            _check(banyan.client, tag, ids)
            return count / watch.seconds

        yield run


def _check(client: Client, tag: str, ids: Sequence[str]) -> None:
    """All succeeded at their first attempt, with usage recorded, and the stdout of each is kept."""
    for id, document in ours.ended_well(client, {"tags": tag}, ids, _USAGE).items():
        ours.require(all(document.get(name) is not None for name in _USAGE), f"task {id} has no usage: {document}")
    with ThreadPoolExecutor(_READERS) as pool:
        for number, text in enumerate(pool.map(client.log, ids)):
            ours.require(text == f"{number}\n".encode(), f"task {ids[number]} wrote {text!r} in place of {number}")


QUESTION = Question(
    name="echo",
    text="small commands: N of `echo $i`, from submitting to all ended, stdout of all kept and checked, usage recorded",
    conditions=(
        f"{ours.CONDITIONS}. N is 10,000 (quick: 2,000), posted as one list. HyperQueue: its own defaults, one "
        "server, one worker (one process), one job with N tasks, by its Python package. xargs: `xargs -P CORES -n"
        " 1`, stdout to a file each. FireWorks: 500, one `rlaunch rapidfire` per core, a mongod of "
        "its own without authentication, stdout stored in its database"
    ),
    targets=(
        Target(text="at least 2x HyperQueue", relative_to=hyperqueue_job.NAME, at_least=2),
        Target(text="at least 0.5x xargs", relative_to=xargs.NAME, floor=True, at_least=0.5),
        Target(text="at least 30x FireWorks", relative_to=fireworks_rapidfire.NAME, at_least=30),
    ),
    measure=measure,
    why=(
        "both cores are busy all the time, so that the CPU time of a command decides; 30 times FireWorks is more than "
        "`xargs` does, which keeps no record at all"
    ),
    again=once(lambda: _ours([]), _PROFILED),
)
