"""How quickly the filters that the documentation recommends for watching the queue are answered by many tasks."""

import asyncio
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

from bson import ObjectId

from banyan.client import Client
from banyan.errors import BadRequest
from banyan.wire import format_date
from bench.filling import fill_available, fill_ended
from bench.monitoring_queries import RECOMMENDED, MonitoringQuery
from bench.profiler import profiled
from bench.question import OURS, Answer, Question, Size, Target
from bench.simulated_workers import crowd
from bench.stage import DURABILITY, Scene, stage
from bench.turns import Watch

Document = dict[str, Any]

SCANNED = "queries that use no index"
STOPPED = "seconds until a query that scans is stopped, over its limit"
_LEASE = {"BANYAN_LEASES__HEARTBEAT": "1000", "BANYAN_LEASES__LOST_AFTER": "4000"}
_LIMIT_SECONDS = 0.05
_RUNNING = 30
_COLLECTIONS = {"execution_history": "executions"}


def measure(size: Size) -> Answer:
    """Each of them again and again, as MongoDB's profiler saw it."""
    tasks, rounds = (100_000, 10) if size is Size.QUICK else (1_000_000, 20)
    with stage() as here, here.scene("where", settings=_LEASE) as scene:
        known = _fill(scene, tasks)
        with scene.client() as client:
            for query in RECOMMENDED:
                _ask(client, query, known)  # MongoDB tries its plans, and keeps the best
            times = {query: [_ask(client, query, known) for _ in range(rounds)] for query in RECOMMENDED}
            plans = {query: _plans(scene, client, query, known) for query in RECOMMENDED}
        with here.scene("where", settings=_LEASE | {"BANYAN_LIMITS__QUERY_SECONDS": str(_LIMIT_SECONDS)}) as strict:
            stopped = _stopped(strict)
    slowest = max(RECOMMENDED, key=lambda query: median(times[query]))
    scans = [query for query in RECOMMENDED if any("COLLSCAN" in plan["plan"] for plan in plans[query])]
    return Answer(
        unit="",
        series={OURS: times[slowest], SCANNED: [float(len(scans))], STOPPED: [stopped - _LIMIT_SECONDS]},
        details={
            "tasks": tasks,
            "queries": {
                f"/{query.resource} {query.text}": {
                    "median_ms": median(times[query]),
                    "plans": plans[query],
                }
                for query in RECOMMENDED
            },
        },
    )


def _again(watch: Watch) -> None:
    with stage() as here, here.scene("where", settings=_LEASE) as scene, scene.client() as client:
        known = _fill(scene, 20_000)
        with watch:
            for _ in range(20):
                for query in RECOMMENDED:
                    _ask(client, query, known)


def _fill(scene: Scene, tasks: int) -> dict[str, str]:
    """Half of the tasks available, half ended, a few of them badly; the ids and the date that queries name."""
    task: Document = {"command": "true", "state": "available"}
    night, named = task | {"queue": "night"}, task | {"name": "mesh", "tags": ["wing"]}
    with scene.client() as client:
        client.add_queue({"name": "night"})
    with scene.client("user") as client:
        ended = {}
        for name, document, exit_status in (
            ("well", task, "success"),
            ("badly", night, "out of memory"),
            ("named", named, "success"),
        ):
            ended[name] = ObjectId(client.submit(document)["_id"])
            asyncio.run(_work(scene, 1, exit_status))
        client.submit([*[task] * _RUNNING, *[night] * _RUNNING, *[named] * _RUNNING])
        asyncio.run(_work(scene, 3 * _RUNNING))
        sweep = client.submit_sweep({"command": "echo {x}", "grid": {"x": list(range(100))}, "state": "available"})
        waiting = [ObjectId(each["_id"]) for each in client.submit([task, night])]
    few = tasks // 100
    for posted, count in ((ended["well"], tasks // 2 - 2 * few), (ended["badly"], few), (ended["named"], few)):
        fill_ended(scene.storage, posted, count)
    for posted, count in ((waiting[0], tasks // 2 - few), (waiting[1], few)):
        fill_available(scene.storage, [posted], count)
    date = format_date(scene.storage.clock.now())
    asyncio.run(_work(scene, _RUNNING, "success"))
    return {"TASK": str(ended["well"]), "SWEEP": str(sweep["_id"]), "DATE": date}


async def _work(scene: Scene, tasks: int, exit_status: str | None = None) -> None:
    """Claim so many tasks, and end them, or let them run."""
    resources = {"cores": tasks, "memory": 1 << 30}
    (worker,) = await crowd([scene.servers[0].url], scene.tokens["worker"], 1, resources)
    granted = await worker.claim(tasks)
    if len(granted) != tasks:
        raise RuntimeError(f"of {tasks} tasks {len(granted)} were granted")
    if exit_status is not None:
        await worker.report(exit_status)
    worker.close()


def _ask(client: Client, query: MonitoringQuery, known: Mapping[str, str]) -> float:
    """How many milliseconds a page of it takes, its total included."""
    begun = time.perf_counter()
    client.page(query.resource, query.known(known), query.sort)
    return 1000 * (time.perf_counter() - begun)


def _plans(scene: Scene, client: Client, query: MonitoringQuery, known: Mapping[str, str]) -> list[Document]:
    """How MongoDB answers it: the page and the count, each with its plan and what that looked at."""
    commands: list[Document] = []
    with profiled(scene.storage.db, commands):
        client.page(query.resource, query.known(known), query.sort)
    collection = f"{scene.storage.db.name}.{_COLLECTIONS.get(query.resource, query.resource)}"
    seen = [each for each in commands if each["ns"] == collection and each["op"] in ("query", "command")]
    return [
        {
            "plan": each.get("planSummary", "none"),
            "keys": each.get("keysExamined", 0),
            "documents": each.get("docsExamined", 0),
            "returned": each.get("nreturned", 0),
            "ms": each["millis"],
        }
        for each in seen
    ]


def _stopped(scene: Scene) -> float:
    """How long the server lets a query work that looks at every task."""
    with scene.client() as client:
        begun = time.perf_counter()
        try:
            client.tasks({"metadata.project": "there is none"})
        except BadRequest:
            return time.perf_counter() - begun
    raise RuntimeError("a query without an index was not stopped in time")


QUESTION = Question(
    name="where",
    text="the filters that the documentation recommends for watching a queue: a page of 25 and its total",
    conditions=(
        f"{DURABILITY}, cache of 0.5 GB; 1 server of 1 process, 1 client; 1,000,000 tasks (quick: 100,000), half "
        "of them available and half ended with one attempt each; every query asked again and again, the slowest counts"
    ),
    targets=(
        Target(text="median of the slowest under 50 ms", at_most=50.0),
        Target(text="each uses an index: 0 that do not", series=SCANNED, at_most=0.0),
        Target(text="a query that scans is stopped: at most 1 s late", series=STOPPED, at_most=1.0),
    ),
    measure=measure,
    again=_again,
)
