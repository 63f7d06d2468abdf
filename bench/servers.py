"""How claims and reports per second grow with the number of servers on one mongod."""

import asyncio
from contextlib import ExitStack

from bench.question import OURS, Answer, Question, Size
from bench.simulated_workers import SimulatedWorker, crowd
from bench.stage import DURABILITY, Scene, noted_cores, stage

SERVERS = (1, 2, 4)
WORKERS = 48
TASKS_AT_ONCE = 8


def measure(size: Size) -> Answer:
    """One server, then two, then four, in turns; the workers are spread over them as by a balancer."""
    seconds, turns = (4.0, 2) if size is Size.QUICK else (20.0, 3)
    rates: dict[str, list[float]] = {_name(count): [] for count in SERVERS}
    used: dict[str, list[dict[str, float]]] = {_name(count): [] for count in SERVERS}
    with stage() as here, ExitStack() as stack:
        scenes = {count: stack.enter_context(here.scene(f"servers{count}", servers=count)) for count in SERVERS}
        for _ in range(turns):
            for count, scene in scenes.items():
                rates[_name(count)].append(asyncio.run(_turn(scene, seconds, used[_name(count)])))
    return Answer(unit="tasks claimed and reported per second", series=rates, details={"cores_used": used})


def _name(count: int) -> str:
    return OURS if count == 1 else f"{count} servers"


async def _turn(scene: Scene, seconds: float, used: list[dict[str, float]]) -> float:
    workers = await crowd(
        [server.url for server in scene.servers], scene.tokens["worker"], WORKERS, {"cores": TASKS_AT_ONCE}
    )
    with scene.client("user") as client:
        for _ in range(2 if seconds < 10 else 8):
            client.submit([{"command": "true", "state": "available"}] * 10_000)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        with noted_cores(scene, used):
            done = await asyncio.gather(*(_work(worker, begun + seconds) for worker in workers))
        return sum(done) / (loop.time() - begun)
    finally:
        for worker in workers:
            worker.close()


async def _work(worker: SimulatedWorker, until: float) -> int:
    loop = asyncio.get_running_loop()
    done = 0
    while loop.time() < until:
        done += len(await worker.claim(TASKS_AT_ONCE))
        await worker.report()
    return done


QUESTION = Question(
    name="servers",
    text="claims and reports with 1, 2 and 4 servers on one mongod",
    conditions=(
        f"{DURABILITY}; servers of 1 process each, {WORKERS} simulated workers spread over them, which claim "
        f"{TASKS_AT_ONCE} tasks at a time and report them at once, both in one request; one class; heartbeat 20 s; "
        "mongod, servers and simulated workers share the machine's cores"
    ),
    targets=(),
    measure=measure,
)
