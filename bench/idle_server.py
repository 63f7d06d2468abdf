"""What a thousand idle workers cost their server."""

import asyncio
import time
from contextlib import AbstractContextManager, nullcontext

from bench.processes import cpu_seconds
from bench.question import OURS, Answer, Question, Size, Target
from bench.simulated_workers import HEARTBEAT_SECONDS, crowd, idle
from bench.stage import DURABILITY, Scene, pss_bytes, stage
from bench.turns import Watch

WORKERS = 1000
SETTLE_SECONDS = 5.0
MEMORY = "memory of the server's processes (MB)"
DATABASE = "MongoDB (percent of one core)"


def measure(size: Size) -> Answer:
    """CPU and memory while all of them wait, each asking once in a heartbeat."""
    repetitions = 2 if size is Size.QUICK else 6
    with stage() as here, here.scene("idle") as scene:
        series = asyncio.run(_watched(scene, repetitions, nullcontext()))
    return Answer(unit="", series=series, details={"seconds": HEARTBEAT_SECONDS})


def _again(watch: Watch) -> None:
    with stage() as here, here.scene("idle") as scene:
        asyncio.run(_watched(scene, 1, watch))


async def _watched(scene: Scene, repetitions: int, during: AbstractContextManager[object]) -> dict[str, list[float]]:
    server = scene.servers[0]
    workers = await crowd([server.url], scene.tokens["worker"], WORKERS)
    waiting = idle(workers, print)
    series: dict[str, list[float]] = {OURS: [], MEMORY: [], DATABASE: []}
    try:
        await asyncio.sleep(SETTLE_SECONDS)
        with during:
            for _ in range(repetitions):
                watched = {OURS: server.process.pid, DATABASE: scene.stage.mongo.process.pid}
                before = {name: cpu_seconds(pid) for name, pid in watched.items()}
                begun = time.monotonic()
                await asyncio.sleep(HEARTBEAT_SECONDS)
                passed = time.monotonic() - begun
                for name, pid in watched.items():
                    series[name].append(100 * (cpu_seconds(pid) - before[name]) / passed)
                series[MEMORY].append(pss_bytes(server.processes()) / 1e6)
        return series
    finally:
        for each in waiting:
            each.cancel()
        for worker in workers:
            worker.close()


QUESTION = Question(
    name="idle-server",
    text="1,000 idle workers on one server, claims of 20 s: what the server's processes take",
    conditions=(
        f"{DURABILITY}; 1 server of 1 process (and gunicorn's main one); {WORKERS:,} simulated workers, each holding "
        "one claim after the other, 50 of them ending each second; no tasks; PSS, so that shared pages count once"
    ),
    targets=(
        Target(text="under 10 percent of one core", at_most=10.0),
        Target(text="under 300 MB", series=MEMORY, at_most=300.0),
    ),
    measure=measure,
    again=_again,
    why=(
        "each of the 50 claims a second is a request of its own, in a thread of its own, and renews a lease in MongoDB"
    ),
)
