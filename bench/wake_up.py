"""How long it takes from posting a task until an idle worker has it, with a thousand idle workers at one server."""

import asyncio
import json
from contextlib import AbstractContextManager, nullcontext
from statistics import median, quantiles

from bench.question import OURS, Answer, Question, Size, Target
from bench.simulated_workers import Document, Line, crowd, idle
from bench.stage import DURABILITY, Scene, stage
from bench.turns import Watch

WORKERS = 1000
PAUSE_SECONDS = 0.05
LONGEST_SECONDS = 30.0


def measure(size: Size) -> Answer:
    """Tasks posted one after the other while every worker waits in a claim."""
    posts, repetitions = (100, 3) if size is Size.QUICK else (500, 5)
    with stage() as here, here.scene("wake") as scene:
        rounds = asyncio.run(_rounds(scene, posts, repetitions, nullcontext()))
    return Answer(
        unit="ms (median)",
        series={OURS: [median(each) for each in rounds]},
        details={"posts": posts, "p95_ms": [quantiles(each, n=20)[-1] for each in rounds]},
    )


def _again(watch: Watch) -> None:
    with stage() as here, here.scene("wake") as scene:
        asyncio.run(_rounds(scene, 100, 1, watch))


async def _rounds(
    scene: Scene, posts: int, repetitions: int, during: AbstractContextManager[object]
) -> list[list[float]]:
    url = scene.servers[0].url
    workers = await crowd([url], scene.tokens["worker"], WORKERS)
    provider = Line(url, scene.tokens["user"])
    arrivals: dict[str, asyncio.Future[float]] = {}
    waiting = idle(workers, lambda task: _arrival(arrivals, task["_id"]).set_result(_now()))
    try:
        await asyncio.sleep(3.0)  # until all of them wait
        with during:
            return [[await _post(provider, arrivals) for _ in range(posts)] for _ in range(repetitions)]
    finally:
        for each in waiting:
            each.cancel()
        provider.close()
        for worker in workers:
            worker.close()


async def _post(provider: Line, arrivals: "dict[str, asyncio.Future[float]]") -> float:
    await asyncio.sleep(PAUSE_SECONDS)
    begun = _now()
    posted: Document = json.loads(await provider.post("/tasks", {"command": "true", "state": "available"}))
    arrived = await asyncio.wait_for(_arrival(arrivals, posted["_id"]), LONGEST_SECONDS)
    return 1000 * (arrived - begun)


def _arrival(arrivals: "dict[str, asyncio.Future[float]]", task: str) -> "asyncio.Future[float]":
    """Either side may come first: the worker may have the task before its provider has heard its id."""
    if task not in arrivals:
        arrivals[task] = asyncio.get_running_loop().create_future()
    return arrivals[task]


def _now() -> float:
    return asyncio.get_running_loop().time()


QUESTION = Question(
    name="wake-up",
    text="post to running on an idle worker, with 1,000 idle workers on one server",
    conditions=(
        f"{DURABILITY}; 1 server of 1 process with {WORKERS:,} simulated idle workers, each holding a claim of 20 s; "
        "1 client that posts one task at a time; until the worker has the task, which is running then"
    ),
    targets=(Target(text="median under 20 ms", at_most=20.0),),
    measure=measure,
    again=_again,
)
