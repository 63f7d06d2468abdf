"""How fast a sweep's tasks are made."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bson import ObjectId
from pymongo import MongoClient, WriteConcern

from bench import ours
from bench.posting import UNSERVED, unserved
from bench.question import OURS, Answer, Question, Size, Target
from bench.turns import Contestant, Run, Watch, in_turns, once

FLOOR = "insert_many"

_COUNTS = {Size.QUICK: 20_000, Size.FULL: 100_000}
_ROUNDS = {Size.QUICK: 3, Size.FULL: 5}
_DATABASE, _FLOOR_DATABASE = "banyan", "bench_floor"
_LONGEST_SECONDS = 300.0
_PROFILED = 100_000


def measure(size: Size) -> Answer:
    """Tasks made per second by a sweep, and by inserting the same documents with the bare driver."""
    count, rounds = _COUNTS[size], _ROUNDS[size]
    with tempfile.TemporaryDirectory(prefix="banyan-bench-") as name, unserved(Path(name)) as banyan:
        made: list[str] = []
        turns = in_turns(
            [
                Contestant(name=OURS, open=lambda: _sweeps(banyan, made), count=count, rounds=rounds, warm_up=1_000),
                Contestant(name=FLOOR, open=lambda: _inserts(banyan.mongo_uri, made), count=count, rounds=rounds),
            ]
        )
    return Answer(unit="tasks/s", series=turns.series, details=turns.details)


def _again(watch: Watch) -> None:
    with tempfile.TemporaryDirectory(prefix="banyan-bench-") as name, unserved(Path(name)) as banyan:
        once(lambda: _sweeps(banyan, []), _PROFILED, warm_up=1_000)(watch)


@contextmanager
def _sweeps(banyan: ours.Ours, made: list[str]) -> Iterator[Run]:
    def run(count: int, watch: Watch) -> float:
        body = {"command": "echo {x}", "grid": {"x": list(range(count))}, "queue": UNSERVED}
        with watch:
            id = str(banyan.client.submit_sweep(body)["_id"])
            deadline = time.perf_counter() + _LONGEST_SECONDS
            while (total := banyan.client.tasks({"sweep": id}, projection=["state"], max_results=1).total) < count:
                ours.require(time.perf_counter() < deadline, f"{total} of the {count} tasks of a sweep were made")
                time.sleep(0.02)
        progress = banyan.client.sweep(id)["progress"]
        ours.require(progress["states"] == {"available": count}, f"a sweep of {count} points is {progress}")
        made.append(id)
        return count / watch.seconds

    yield run


@contextmanager
def _inserts(uri: str, made: list[str]) -> Iterator[Run]:
    """The documents of the last sweep, as they are stored, into a collection without indexes."""
    with MongoClient[dict[str, object]](uri, tz_aware=True) as driver:
        floor = driver[_FLOOR_DATABASE].get_collection("tasks", write_concern=WriteConcern(w="majority", j=True))

        def run(count: int, watch: Watch) -> float:
            floor.drop()
            stored = driver[_DATABASE]["tasks"].find({"sweep": ObjectId(made[-1])}, limit=count)
            documents = [{**document, "_id": ObjectId()} for document in stored]
            with watch:
                floor.insert_many(documents)
            ours.require(floor.count_documents({}) == count, f"insert_many of {count} documents did not store them all")
            return count / watch.seconds

        yield run


QUESTION = Question(
    name="sweep",
    text="a sweep of N points of a command, from posting it to all its tasks being there",
    conditions=(
        f"{ours.CONDITIONS}; the worker serves another queue. N is 100,000 (quick: 20,000). `insert_many`: the "
        "bare driver writes the same documents to the same MongoDB with the same write concern, into a collection"
        " without indexes; one call"
    ),
    targets=(Target(text="at least 0.3x bare insert_many", relative_to=FLOOR, floor=True, at_least=0.3),),
    measure=measure,
    why=(
        "each task is made, given its state and its class, put aside and then written; the same insert_many into a "
        "collection with the indexes of ours reaches half of its rate"
    ),
    again=_again,
)
