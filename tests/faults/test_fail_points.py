"""A server that dies after any of its writes: the next one completes what it had begun, or undoes it.

The points are those that each scenario passes, as `tests.support.fail_points` names them; which scenarios there have to
be is read from the code.
"""

import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from json import loads
from pathlib import Path
from typing import Any

import pytest
from bson import json_util

from banyan.domain.roles import Role
from banyan.errors import Unavailable
from banyan.queue.audit import Audit
from banyan.queue.context import Context
from banyan.queue.rescue import rescue
from banyan.storage.mongo import Storage
from tests.faults.scenarios import SCENARIOS
from tests.faults.scenarios.scenario import Scenario
from tests.faults.writes_in_code import sites, writes
from tests.support import processes
from tests.support.adding_up import faults
from tests.support.clock import Ahead, moved
from tests.support.crashing import LEASES, Server, context_of
from tests.support.hand_worker import HandWorker
from tests.support.queue import SimulatedWorker, ids_of
from tests.support.waiting import eventually

Document = dict[str, Any]

ROOT = Path(__file__).parents[2]
ROLES = {"admin": ("root", Role.ADMIN), "provider": ("alice", Role.PROVIDER), "worker": ("worker", Role.WORKER)}
KILLED = -9
EVERYWHERE = os.environ.get("FAULTS") == "all"
"""Whether to die at each point of each scenario, or once between any two writes that follow each other somewhere."""
OTHERWISE = {
    "SignalStore.send": "a wake-up for other servers; nothing depends on it",
    "queue.grant._still_ours>ExecutionStore.withdraw": "only in a race; what it leaves the audit finds",
    "queue.sweep.delete_sweep>SweepStore.end_work": "only in a race; what it leaves `finish_interrupted` finds",
    "_one_by_one": "only after a primary was lost; does again what `change_each` does",
    **dict.fromkeys(
        ("upgrade", "_date_notes", "_to_4", "_to_5", "_to_6", "_to_7"),
        "before a server serves; test_upgrade kills one there",
    ),
    **dict.fromkeys(("restore", "_clear", "_fill"), "while no server runs; half done, none starts: see test_backup"),
}
"""Writes that no scenario makes, and why."""
STEP_SECONDS = LEASES.lost_after / 3 - 1
"""How often somebody looks after the leases here: less often would be an outage."""


@dataclass(slots=True, kw_only=True)
class Machine:
    """A database, the servers on it (one after the other), and the tokens of their users by role."""

    uri: str
    database: str
    process: "subprocess.Popen[str]"
    context: Context
    clock: Ahead
    tokens: dict[str, str]
    survived: set[tuple[str, str]] = field(default_factory=set)
    """The pairs of writes between which a server has died, and all came out right."""
    told: dict[str, Document] = field(default_factory=dict)
    """What each scenario passed when nobody died."""

    def empty(self) -> None:
        """Begin anew."""
        self.clock.seconds = 0
        for name in self.context.storage.db.list_collection_names():
            if name not in ("meta", "queues", "users", "signals"):
                self.context.storage.db[name].delete_many({})
        self.context.storage.db["queues"].update_many({}, {"$set": {"max_running": None}})
        self.context.storage.db["meta"].delete_one({"_id": "leases"})
        self.context.storage.db["users"].delete_many({"name": {"$nin": [name for name, _ in ROLES.values()]}})

    def act(self, scenario: Scenario, state: Document, point: str | None) -> Document:
        """Let a server do what the scenario says, and die at a point."""
        order: Document = {"uri": self.uri, "database": self.database, "scenario": scenario.name, "state": state}
        order |= {"tokens": self.tokens, "seconds": scenario.seconds, "point": point}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json_util.dumps(order), file=self.process.stdin, flush=True)
        answer: Document = loads(self.process.stdout.readline())
        return answer

    def recover(self) -> None:
        """Another server runs, for longer than any lease and any grace."""
        rescue(self.context)
        audit = Audit(self.context)
        for seconds in (*[STEP_SECONDS] * 6, 7300, 0):
            if self._quiet():
                return
            self.clock.seconds += seconds
            rescue(self.context)
            audit.look()

    def _quiet(self) -> bool:
        """Whether there is nothing left to do but for workers that are there."""
        return not self.context.storage.tasks.holders() and not faults(self.context)

    def finish(self) -> None:
        """A worker runs all that there is."""
        worker = SimulatedWorker(self.context, capabilities=("shell", "model:m"))
        worker.run_all()
        if self.context.storage.tasks.count({"wake_at": {"$exists": True}}):
            self.clock.seconds += 10
            rescue(self.context)
            worker.run_all()


@pytest.fixture(scope="module")
def machine(mongo_uri: str) -> Iterator[Machine]:
    database = f"test_{uuid.uuid4().hex}"
    storage = Storage.connect(mongo_uri, database)
    clock = moved(storage)
    tokens = {role: storage.users.add(name, kind, clock.now()) for role, (name, kind) in ROLES.items()}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.crashing"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Machine(
            uri=mongo_uri,
            database=database,
            process=process,
            context=context_of(storage),
            clock=clock,
            tokens=tokens,
        )
        assert process.stdin is not None
        process.stdin.close()
    storage.client.drop_database(database)
    storage.close()


def survive(machine: Machine, scenario: Scenario, point: str | None) -> Document:
    """Go through the scenario with a death at this point (None: without one); what was passed."""
    machine.empty()
    state = scenario.prepare(machine.context)
    machine.clock.seconds = scenario.seconds
    told = machine.act(scenario, state, point)
    assert told["error"] == []
    assert told["status"] == (KILLED if point else 0), f"{point} was not passed again: {told['point']}"
    machine.recover()
    if scenario.repeats:
        machine.clock.seconds += 61  # until then the first request with a key may still be running
        scenario.act(Server(machine.context, machine.tokens), state)
        machine.recover()
    machine.finish()
    assert faults(machine.context) == [], f"after a death at {point}"
    left = ids_of(machine.context, {"state": {"$in": ["available", "running"]}, "hold": False})
    assert left == [], f"after a death at {point}"
    scenario.check(machine.context, state)
    return told


def name(point: str) -> str:
    """A point without its number."""
    return point.rpartition(":")[0] or point


def numbered(points: list[str]) -> list[str]:
    """The points with how often each was passed."""
    counts: Counter[str] = Counter()
    told = []
    for point in points:
        counts[point] += 1
        told.append(f"{point}:{counts[point]}")
    return told


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_server_may_die_after_any_write(machine: Machine, scenario: Scenario) -> None:
    told = machine.told[scenario.name] = survive(machine, scenario, None)
    points = [each for each in numbered(told["point"]) if not each.startswith("start>") or scenario.name == "start"]
    assert points, "it writes nothing"
    for point, following in zip(points, [*points[1:], "the answer"], strict=True):
        between = (name(point), name(following))
        if EVERYWHERE or between not in machine.survived:
            survive(machine, scenario, point)
            machine.survived.add(between)


def test_every_write_in_the_code_is_in_a_scenario(machine: Machine) -> None:
    """If this fails, add a scenario that makes the write: the other test then kills the server there."""
    lines: set[tuple[str, int]] = set()
    passed: set[str] = set()
    for scenario in SCENARIOS:
        told = machine.told.get(scenario.name)
        if told is None:
            machine.empty()
            told = machine.act(scenario, scenario.prepare(machine.context), None)
        passed |= set(told["site"])
        lines |= {(file, int(number)) for file, _, number in (line.partition(":") for line in told["line"])}
    assert {write.method for write in writes() if not write.done(lines)} - OTHERWISE.keys() == set()
    assert {site for site, names in sites().items() if not names & passed} - OTHERWISE.keys() == set()


def test_a_real_server_dies_at_the_point_after_a_write_and_the_next_one_goes_on(
    mongo_uri: str, database_name: str, tmp_path: Path
) -> None:
    point = "queue.report._end>ExecutionStore.end"
    settings = {"BANYAN_LEASES__LOST_AFTER": "6", "BANYAN_MODELS__PATH": "[]"}
    server = processes.server(tmp_path, "server", mongo_uri, database_name, **settings)
    program = [sys.executable, "-m", "tests.support.dying_server"]
    server.command = [*program, point, str(server.port), str(server.credentials)]
    server.start()
    try:
        server.wait_until_healthy()
        with server.client("user") as provider, server.client("worker") as client:
            parent = provider.submit({"command": "true", "state": "available"})["_id"]
            child = provider.submit({"command": "true", "state": "available", "dependencies": [parent]})["_id"]
            worker = HandWorker(client)
            (grant,) = worker.claim()
            with pytest.raises(Unavailable):
                worker.end(grant)
            server.wait_until_healthy()
            eventually(lambda: provider.task(child)["state"] == "available", seconds=60, show=server.tail)
            assert provider.task(parent)["exit_status"] == "success"
            assert [attempt["exit_status"] for attempt in provider.attempts(parent)] == ["success"]
    finally:
        server.stop()
