"""How often claims come back empty while tasks remain, when many workers at two servers want tasks of one class."""

import asyncio
from dataclasses import dataclass, field

from bench.question import OURS, Answer, Question, Size, Target
from bench.simulated_workers import SimulatedWorker, crowd
from bench.stage import DURABILITY, Scene, stage
from bench.turns import Watch

SERVERS = 2
WORKERS = 50
RATE = "claims and reports per second"


@dataclass(slots=True)
class _Tally:
    """What claims got so far; `open` are under way, and each of them may take one of the tasks that are left."""

    tasks: int
    granted: int = 0
    open: int = 0
    full: int = 0
    empty: int = 0
    twice: int = 0
    seen: set[str] = field(default_factory=set)

    @property
    def remain(self) -> bool:
        """Whether tasks are certainly left, whatever the open claims get."""
        return self.tasks - self.granted - self.open > 0


def measure(size: Size) -> Answer:
    """All workers claim one task at a time and report it at once, until nothing is left."""
    tasks, repetitions = (1000, 3) if size is Size.QUICK else (10_000, 3)
    with stage() as here, here.scene("contention", servers=SERVERS) as scene:
        tallies = [asyncio.run(_emptied(scene, tasks)) for _ in range(repetitions)]
    if any(tally.twice or len(tally.seen) != tasks for tally, _ in tallies):
        raise RuntimeError("a task was granted twice, or not at all")
    return Answer(
        unit="percent of claims",
        series={
            OURS: [100 * tally.empty / (tally.empty + tally.full) for tally, _ in tallies],
            RATE: [tasks / seconds for tally, seconds in tallies],
        },
        details={"tasks": tasks, "claims": [tally.full + tally.empty for tally, _ in tallies]},
    )


def _again(watch: Watch) -> None:
    with stage() as here, here.scene("contention", servers=SERVERS) as scene, watch:
        asyncio.run(_emptied(scene, 3_000))


async def _emptied(scene: Scene, tasks: int) -> tuple[_Tally, float]:
    workers = await crowd([server.url for server in scene.servers], scene.tokens["worker"], WORKERS)
    with scene.client("user") as client:
        client.submit([{"command": "true", "state": "available"}] * tasks)
    tally = _Tally(tasks)
    begun = asyncio.get_running_loop().time()
    try:
        await asyncio.gather(*(_work(worker, tally) for worker in workers))
        return tally, asyncio.get_running_loop().time() - begun
    finally:
        for worker in workers:
            worker.close()


async def _work(worker: SimulatedWorker, tally: _Tally) -> None:
    while tally.granted < tally.tasks:
        tally.open += 1
        granted = await worker.claim()
        tally.open -= 1
        for task in granted:
            tally.granted += 1
            tally.twice += task["_id"] in tally.seen
            tally.seen.add(task["_id"])
        if granted:
            tally.full += 1
            await worker.report()
        elif tally.remain:
            tally.empty += 1


QUESTION = Question(
    name="contention",
    text="2 servers, 50 workers, one class: claims that come back empty while tasks remain",
    conditions=(
        f"{DURABILITY}; {SERVERS} servers of 1 process each, {WORKERS} simulated workers that claim one task at a time "
        "without waiting and report it at once; 1,000 tasks (full: 10,000), checked that each is granted once; "
        "heartbeat 20 s"
    ),
    targets=(Target(text="under 5% empty", at_most=5.0),),
    measure=measure,
    again=_again,
)
