"""The plan of a chaos run: which tasks, what clients ask, what breaks and when. A seed makes it, and makes it again."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId

Document = dict[str, Any]

WORKERS, SERVERS, MONGODS = 4, 2, 3
LEASE_SECONDS = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is done: tasks, in so many submissions, and for how many seconds things break."""

    tasks: int
    submissions: int
    seconds: float
    faults: int
    cancellations: int
    retries: int


SHORT = Size(tasks=160, submissions=4, seconds=16.0, faults=8, cancellations=8, retries=4)
FULL = Size(tasks=2000, submissions=20, seconds=150.0, faults=60, cancellations=60, retries=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """From `at` on, for `seconds`, something is done to the `target` with this `number`."""

    at: float
    seconds: float
    kind: str
    target: str
    number: int

    def __str__(self) -> str:
        return f"{self.at:6.2f} s  {self.kind} {self.target} {self.number} for {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """At `at` a client cancels or retries the task with this index."""

    at: float
    what: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that is decided beforehand; `submissions` are (time, tasks)."""

    seed: int
    submissions: Sequence[tuple[float, Sequence[Document]]]
    wishes: Sequence[Wish]
    faults: Sequence[Fault]
    seconds: float
    ids: Sequence[ObjectId] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What tasks run: a script for commands, the name of a model, and the file where both leave their effects."""

    script: str
    model: str
    effects: str


_KINDS: Mapping[str, Sequence[str]] = {
    "worker": ("kill", "stop", "freeze", "cut", "hold", "swallow", "delay"),
    "server": ("kill", "stop"),
    "mongod": ("kill", "stop", "step down", "cut", "hold"),
}
_COUNTS = {"worker": WORKERS, "server": SERVERS, "mongod": MONGODS}


def plan(seed: int, size: Size, means: Means) -> Plan:
    """The plan that belongs to a seed."""
    chance = random.Random(seed)
    ids = [ObjectId(chance.randbytes(12)) for _ in range(size.tasks)]
    tasks = [_task(chance, index, ids, means) for index in range(size.tasks)]
    each = -(-size.tasks // size.submissions)
    times = sorted(chance.uniform(0.0, size.seconds * 0.6) for _ in range(size.submissions - 1))
    submissions = [(at, tasks[number * each : (number + 1) * each]) for number, at in enumerate([0.0, *times])]
    wishes = [*_wishes(chance, "cancel", size.cancellations, size), *_wishes(chance, "retry", size.retries, size)]
    return Plan(
        seed=seed,
        submissions=submissions,
        wishes=sorted(wishes, key=lambda wish: wish.at),
        faults=sorted(_faults(chance, size), key=lambda fault: fault.at),
        seconds=size.seconds,
        ids=ids,
    )


def _task(chance: random.Random, index: int, ids: Sequence[ObjectId], means: Means) -> Document:
    task: Document = {"_id": str(ids[index]), "state": "available", "name": f"chaos {index}"}
    seconds = round(chance.uniform(1.0, 4.0) if chance.random() < 0.08 else chance.expovariate(6.0), 2)
    fails = chance.choices([0, 30, 100], [70, 24, 6])[0]
    kind = chance.random()
    if kind < 0.82:
        task["command"] = ["/bin/sh", means.script, means.effects, str(seconds), str(fails)]
    elif kind < 0.92:
        task |= {"model": means.model, "inputs": {"effects": means.effects, "seconds": seconds, "fails": fails}}
    if kind < 0.92:
        task["max_retry_count"] = chance.choice([0, 1, 2, 3])
        task["retry_delay"] = chance.choice([0.0, 0.0, 0.3])
        task["requested_resources"] = {"cores": chance.choice([0.5, 1])}
        task["priority"] = chance.randrange(3)
    near = ids[max(0, index - 25) : index]
    parents = chance.sample(near, min(len(near), chance.choices([0, 1, 2, 3], [35, 35, 20, 10])[0]))
    if parents:
        on = chance.choices(["success", "any", "failure"], [70, 26, 4], k=len(parents))
        task["dependencies"] = [{"task": str(id), "on": wanted} for id, wanted in zip(parents, on, strict=True)]
    return task


def _wishes(chance: random.Random, what: str, count: int, size: Size) -> Iterator[Wish]:
    for _ in range(count):
        at = chance.uniform(1.0, size.seconds)
        yield Wish(at=at, what=what, index=chance.randrange(size.tasks))


def _faults(chance: random.Random, size: Size) -> Iterator[Fault]:
    """Each kind of target gets its share; of mongods one at a time, so that most of the time there is a primary."""
    free_at = 0.0
    for number in range(size.faults):
        target = ("worker", "server", "mongod", "worker")[number % 4]
        kind = chance.choice(_KINDS[target])
        seconds = chance.uniform(0.5, 3.0)
        if kind in ("stop", "freeze", "hold", "cut", "swallow") and target != "mongod" and chance.random() < 0.5:
            seconds = LEASE_SECONDS * chance.uniform(1.1, 1.5)
        at = chance.uniform(1.0, size.seconds)
        if target == "mongod":
            share = size.seconds / (size.faults / 4)
            at = max(free_at, (number // 4) * share + chance.uniform(0.0, share / 2))
            free_at = at + seconds + 2.0
        yield Fault(at=at, seconds=seconds, kind=kind, target=target, number=chance.randrange(_COUNTS[target]))
