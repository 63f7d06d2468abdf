"""How long a claim of one task takes under an open load, and whether that depends on how many tasks there are."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median, quantiles

from bson import ObjectId

from bench.filling import check_copies, fill_available, fill_ended
from bench.question import OURS, Answer, Question, Size, Target
from bench.simulated_workers import SimulatedWorker, crowd
from bench.stage import DURABILITY, Scene, noted_cores, stage
from bench.turns import Watch

WORKERS = 200
CLAIMS_PER_SECOND = 200
CLASSES = 100
TASKS_IN_A_REPORT = 10
WARM_UP_SECONDS = 2.0
PATIENCE_SECONDS = 3.0
HOPELESS_MS = 1000.0
PROFILED_SECONDS = 8.0
FEW = "few available tasks"


def measure(size: Size) -> Answer:
    """Claims in turn from a database with few available tasks and from one with many, the same number ended in both."""
    few, many, ended, turns, seconds = (10_000, 100_000, 100_000, 3, 6.0)
    if size is Size.FULL:
        few, many, ended, turns, seconds = (10_000, 1_000_000, 1_000_000, 3, 20.0)
    latencies: dict[str, list[list[float]]] = {OURS: [], FEW: []}
    used: list[dict[str, float]] = []
    with stage() as here, ExitStack() as stack:
        scenes = {
            FEW: stack.enter_context(here.scene("few")),
            OURS: stack.enter_context(here.scene("many")),
        }
        for name, count in ((FEW, few), (OURS, many)):
            _fill(scenes[name], count, ended)
        for turn in range(turns):
            for name, scene in scenes.items():
                if turn:
                    _replenish(scene, seconds)
                with noted_cores(scene, used):
                    latencies[name].append(asyncio.run(_turn(scene, seconds)))
            if max(p95(each[-1]) for each in latencies.values()) > HOPELESS_MS:
                break  # the server works on what nobody waits for any more
    return Answer(
        unit="ms (p95)",
        series={name: [p95(turn) for turn in each] for name, each in latencies.items()},
        details={
            "available": {FEW: few, OURS: many},
            "ended": ended,
            "classes": CLASSES,
            "cores_used": used,
            "claims": {name: [len(turn) for turn in each] for name, each in latencies.items()},
            "median_ms": {name: [median(turn) for turn in each] for name, each in latencies.items()},
        },
    )


def _again(watch: Watch) -> None:
    with stage() as here, here.scene("many") as scene:
        _fill(scene, 10_000, 10_000)
        with watch:
            asyncio.run(_turn(scene, PROFILED_SECONDS))


def p95(values: Sequence[float]) -> float:
    """The value that 95 of 100 do not exceed."""
    return quantiles(values, n=20)[-1]


def _fill(scene: Scene, available: int, ended: int) -> None:
    with scene.client("user") as client:
        task = {"command": "true", "state": "available"}
        done = ObjectId(client.submit(task)["_id"])
        asyncio.run(run_one(scene))
        classes = [task | {"requested_resources": {"cores": 1, "memory": (i + 1) << 20}} for i in range(CLASSES)]
        posted = [ObjectId(item["_id"]) for item in client.submit(classes)]
        fill_ended(scene.storage, done, ended)
        fill_available(scene.storage, posted, available)
    check_copies(scene.storage, posted)


def _replenish(scene: Scene, seconds: float) -> None:
    """As many new tasks as a turn has claimed."""
    kept = [head["_id"] for head in scene.storage.tasks.class_heads()]
    fill_available(scene.storage, kept, int((WARM_UP_SECONDS + seconds) * CLAIMS_PER_SECOND))


async def run_one(scene: Scene) -> None:
    (worker,) = await crowd([scene.servers[0].url], scene.tokens["worker"], 1)
    await worker.claim()
    await worker.report()
    worker.close()


async def _turn(scene: Scene, seconds: float) -> list[float]:
    workers = await crowd([server.url for server in scene.servers], scene.tokens["worker"], WORKERS)
    try:
        latencies = await open_load(workers, CLAIMS_PER_SECOND, WARM_UP_SECONDS + seconds)
    finally:
        for worker in workers:
            worker.close()
    return latencies[int(WARM_UP_SECONDS * CLAIMS_PER_SECOND) :]


async def open_load(workers: Sequence[SimulatedWorker], per_second: float, seconds: float) -> list[float]:
    """Claims that come at a steady rate, however long the answers take; the milliseconds of each since it was due.

    A worker that has ten tasks reports that all have ended before it claims again; the first time it has fewer, so that
    reports come at a steady rate, too. What has no answer soon after the last claim counts as if it had come then.
    """
    enough = {worker: 1 + number % TASKS_IN_A_REPORT for number, worker in enumerate(workers)}
    free: asyncio.Queue[SimulatedWorker] = asyncio.Queue()
    for worker in workers:
        free.put_nowait(worker)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    dues = [begun + number / per_second for number in range(int(per_second * seconds))]
    until = dues[-1] + PATIENCE_SECONDS
    latencies = [until - due for due in dues]

    async def one(number: int) -> None:
        await asyncio.sleep(dues[number] - loop.time())
        worker = await free.get()
        if not await worker.claim():
            raise RuntimeError("a claim came back empty although tasks were there")
        latencies[number] = loop.time() - dues[number]
        if len(worker.held) >= enough[worker]:
            await worker.report()
            enough[worker] = TASKS_IN_A_REPORT
        free.put_nowait(worker)

    claims = [asyncio.create_task(one(number)) for number in range(len(dues))]
    _, late = await asyncio.wait(claims, timeout=until - loop.time(), return_when=asyncio.FIRST_EXCEPTION)
    for each in late:
        each.cancel()
    for outcome in await asyncio.gather(*claims, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    return [1000 * latency for latency in latencies]


QUESTION = Question(
    name="claim-latency",
    text="claim of one task under an open load, many tasks available in 100 classes and as many ended beside them",
    conditions=(
        f"{DURABILITY}; 1 server of 1 process; {WORKERS} simulated workers, {CLAIMS_PER_SECOND} claims/s of one task "
        f"each, whose ends are reported {TASKS_IN_A_REPORT} at a time; heartbeat 20 s; 1,000,000 tasks "
        "available and as many ended (quick: 100,000)"
    ),
    targets=(
        Target(text="p95 under 50 ms", at_most=50.0),
        Target(text="within 20% of 10,000 available tasks", relative_to=FEW, at_most=1.2),
    ),
    measure=measure,
    why=(
        "a claim is seven commands to MongoDB, two of them confirmed on its disk; five of them are shared with the "
        "claims that come at the same time. Server, MongoDB and what measures them share the cores (cores_used)"
    ),
    again=_again,
)
