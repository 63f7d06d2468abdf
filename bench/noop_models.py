"""How many calls of a Python function that does nothing go through the whole queue, in processes that are warm."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import ours
from bench.peers import celery_redis, dask_distributed
from bench.question import OURS, Answer, Question, Size, Target
from bench.turns import Contestant, Run, Watch, in_turns, once

MODELS = Path(__file__).parent / "tiny_models"

_COUNTS = {Size.QUICK: 2_000, Size.FULL: 10_000}
_ROUNDS = {Size.QUICK: 3, Size.FULL: 5}
_WARM_UP = 200
_PROFILED = 4_000


def measure(size: Size) -> Answer:
    """Calls per second of ours, Celery and Dask."""
    parts: list[dict[str, float]] = []
    opened = {
        OURS: lambda: _ours(parts),
        celery_redis.NAME: celery_redis.calls,
        dask_distributed.NAME: dask_distributed.calls,
    }
    turns = in_turns(
        [
            Contestant(name=name, open=each, count=_COUNTS[size], rounds=_ROUNDS[size], warm_up=_WARM_UP)
            for name, each in opened.items()
        ]
    )
    return Answer(unit="tasks/s", series=turns.series, details={**turns.details, "cpu_seconds": ours.spent(parts[1:])})


@contextmanager
def models(*options: str) -> Iterator[ours.Ours]:
    """Our stack with the benchmark's models."""
    with ours.up(*options, env={"BANYAN_MODELS__PATH": json.dumps([str(MODELS)])}) as banyan:
        yield banyan


@contextmanager
def _ours(parts: list[dict[str, float]]) -> Iterator[Run]:
    with models("--cores", "2") as banyan:

        def run(count: int, watch: Watch) -> float:
            tag = uuid.uuid4().hex
            tasks = [
                {"model": "nothing", "inputs": {"number": i}, "tags": [tag], "state": "available"} for i in range(count)
            ]
            with banyan.counting(parts), watch:
                ids = ours.submit(banyan.client, tasks)
                ours.wait_until_ended(banyan.client, {"tags": tag}, count)
            found = ours.ended_well(banyan.client, {"tags": tag}, ids, ("result",))
            ours.require(
                all(document["result"] == {} for document in found.values()), "a result is not what it should be"
            )
            return count / watch.seconds

        yield run


QUESTION = Question(
    name="noop-models",
    text="N model tasks that do nothing, on warm hosts, from submitting to all ended, results kept",
    conditions=(
        f"{ours.CONDITIONS}. N is 10,000 (quick: 2,000), posted as one list; two warm model hosts. Celery: Redis "
        "as broker and for results (all read), one worker with two processes, otherwise defaults; Redis is "
        "durable by snapshots only. Dask: a scheduler, two worker processes of one thread, one `submit` for each "
        "call, all results gathered; nothing durable"
    ),
    targets=(
        Target(text="at least 2x Celery with Redis", relative_to=celery_redis.NAME, at_least=2),
        Target(text="at least 2x Dask distributed", relative_to=dask_distributed.NAME, at_least=2),
    ),
    measure=measure,
    why=(
        "both cores are busy nearly all the time, so that the CPU time of a call decides: what Dask does to build a "
        "graph of one node, and a durable record of each step, which neither peer keeps"
    ),
    again=once(lambda: _ours([]), _PROFILED, _WARM_UP),
)
