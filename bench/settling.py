"""Whether the end of tasks in large graphs costs as much for each edge as in small ones."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

from bson import ObjectId

from bench.profiler import profiled
from bench.question import OURS, Answer, Question, Size, Target
from bench.simulated_workers import Line, SimulatedWorker, crowd
from bench.stage import DURABILITY, Scene, stage
from bench.turns import Watch

Document = dict[str, Any]
Edges = Sequence[tuple[int, int]]

AT_ONCE = 250
PARENTS = 3
_LIST = 2000
_TIMES = 4
"""How many times larger the large graph is than the small one."""
_SEED = 5
_NOTED = 10
"""MongoDB's profiler does not keep the many commands that look at fewer index keys."""
_STEP = 2_500
"""Edges are settled a thousand at a time: a command looks at so many index keys at most, whatever the graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    """Tasks 0 to `size` - 1, and edges from a lower to a higher number."""

    size: int
    edges: Edges
    ends: int
    """How many tasks have to end until nothing is left to be settled."""

    def documents(self) -> list[Document]:
        """The tasks as they are posted, each after its parents."""
        ids = [str(ObjectId()) for _ in range(self.size)]
        parents: list[list[str]] = [[] for _ in ids]
        for parent, child in self.edges:
            parents[child].append(ids[parent])
        task = {"command": "true", "state": "available"}
        return [task | {"_id": id, "dependencies": above} for id, above in zip(ids, parents, strict=True)]


def _fan(size: int) -> _Graph:
    """A parent with so many children."""
    return _Graph(size=size + 1, edges=[(0, child) for child in range(1, size + 1)], ends=1)


def _barrier(size: int) -> _Graph:
    """A child with so many parents."""
    return _Graph(size=size + 1, edges=[(parent, size) for parent in range(size)], ends=size)


def _random(size: int) -> _Graph:
    """So many tasks, each with up to three parents anywhere among those before it."""
    chance = random.Random(_SEED)
    edges = {(chance.randrange(child), child) for child in range(1, size) for _ in range(PARENTS)}
    return _Graph(size=size, edges=sorted(edges), ends=size)


_SHAPES: dict[str, Callable[[int], _Graph]] = {"a parent": _fan, "a barrier": _barrier, "a random DAG": _random}


def measure(size: Size) -> Answer:
    """Each shape small and large in turns; then once more with MongoDB's profiler on, for the largest step."""
    large, turns = (2_400, 2) if size is Size.QUICK else (10_000, 3)
    sizes = large // _TIMES, large
    series: dict[str, list[float]] = {OURS: []}
    details: dict[str, Any] = {"sizes": sizes, "microseconds_per_edge": {}, "keys_in_the_largest_step": {}}
    with stage() as here, here.scene("settling") as scene:
        for shape, make in _SHAPES.items():
            times = [[_microseconds_per_edge(scene, make(count)) for count in sizes] for _ in range(turns)]
            steps = [_largest_step(scene, make(count)) for count in sizes]
            series[f"{shape}: time per edge"] = [wide / small for small, wide in times]
            series[f"{shape}: largest step"] = [float(steps[-1])]
            details["microseconds_per_edge"][shape] = times
            details["keys_in_the_largest_step"][shape] = steps
    series[OURS] = [max(median(series[f"{shape}: time per edge"]) for shape in _SHAPES)]
    return Answer(unit="", series=series, details=details)


def _again(watch: Watch) -> None:
    with stage() as here, here.scene("settling") as scene:
        asyncio.run(_run(scene, _random(5_000), watch))


def _microseconds_per_edge(scene: Scene, graph: _Graph) -> float:
    return 1e6 * asyncio.run(_run(scene, graph, nullcontext())) / len(graph.edges)


def _largest_step(scene: Scene, graph: _Graph) -> int:
    """The most index keys that one command to MongoDB looked at, from the first report to the last."""
    commands: list[Document] = []
    asyncio.run(_run(scene, graph, profiled(scene.storage.db, commands, {"keysExamined": {"$gte": _NOTED}})))
    return max(int(command["keysExamined"]) for command in commands)


async def _run(scene: Scene, graph: _Graph, during: AbstractContextManager[object]) -> float:
    """Post a graph and run it to its end; the seconds of the reports, from which all else follows."""
    for collection in ("tasks", "executions", "continuations"):
        scene.storage.db[collection].delete_many({})
    url = scene.servers[0].url
    provider = Line(url, scene.tokens["user"])
    documents = graph.documents()
    for start in range(0, len(documents), _LIST):
        await provider.post("/tasks", documents[start : start + _LIST])
    provider.close()
    (worker,) = await crowd([url], scene.tokens["worker"], 1, {"cores": AT_ONCE})
    with during:
        seconds = await _end(worker, graph.ends)
    worker.close()
    pending = scene.storage.tasks.count({"state": "inactive"})
    if pending:
        raise RuntimeError(f"{pending} tasks still wait although their parents have ended")
    return seconds


async def _end(worker: SimulatedWorker, count: int) -> float:
    """Let at least so many tasks end; the seconds in reports."""
    loop = asyncio.get_running_loop()
    seconds, ended = 0.0, 0
    while ended < count:
        granted = await worker.claim(AT_ONCE)
        if not granted:
            raise RuntimeError(f"nothing can be claimed although only {ended} of {count} tasks have ended")
        begun = loop.time()
        await worker.report()
        seconds += loop.time() - begun
        ended += len(granted)
    return seconds


def _target(shape: str) -> tuple[Target, Target]:
    time = Target(
        text=f"{shape}: linear (4x the graph: at most 1.25x for each edge)",
        series=f"{shape}: time per edge",
        at_most=1.25,
    )
    step = Target(
        text=f"{shape}: no command looks at over {_STEP:,} keys", series=f"{shape}: largest step", at_most=_STEP
    )
    return time, step


QUESTION = Question(
    name="settling",
    text="settling a parent with 10,000 children, a barrier with 10,000 parents, a random DAG of 10,000 tasks",
    conditions=(
        f"{DURABILITY}; 1 server of 1 process; 1 simulated worker that claims {AT_ONCE} tasks at a time and reports "
        f"them in one request; the DAG's tasks have up to {PARENTS} parents each; 10,000 and 2,500 (quick: 2,400 "
        "and 600); time of the reports for each edge over that of the smaller graph, "
        "and the most index keys that one command looked at; heartbeat 20 s"
    ),
    targets=tuple(target for shape in _SHAPES for target in _target(shape)),
    measure=measure,
    again=_again,
)
