"""A server that is broken on purpose is caught: with a line changed its code leaves a history that breaks a rule."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient

from banyan.client import Client
from banyan.errors import Conflict
from tests.support import processes
from tests.support.hand_worker import HandWorker
from tests.support.happened import History
from tests.support.history import ENDED, contradictions
from tests.support.waiting import eventually

Document = dict[str, Any]

ROOT = Path(__file__).parents[2]
SETTINGS = {"BANYAN_LEASES__LOST_AFTER": "3", "BANYAN_LEASES__HEARTBEAT": "1", "BANYAN_MODELS__PATH": "[]"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """What stands in the code, what is put in its place, and the rules that this breaks."""

    changes: tuple[tuple[str, str, str], ...] = ()
    breaks: frozenset[str] = frozenset()

    def code(self, directory: Path) -> Path:
        """A copy of the code that has the defect."""
        for package in ("banyan", "worker"):
            shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
        for file, right, wrong in self.changes:
            text = (directory / file).read_text()
            assert text.count(right) == 1, f"{file} has changed: say here how it would be wrong now"
            (directory / file).write_text(text.replace(right, wrong))
        return directory


NO_FENCE = Defect(
    changes=(
        ("banyan/storage/executions.py", 'guard=("time_terminated", None)', 'guard=("_id", id)'),
        (
            "banyan/queue/report.py",
            'in ends.items() if records[id].get("time_terminated") is None}',
            "in ends.items()}",
        ),
    ),
    breaks=frozenset({"ghosts_change_nothing", "exactly_one_attempt_counts", "retries_are_counted"}),
)
LOSSES_ARE_RETRIES = Defect(
    changes=(
        (
            "banyan/domain/transitions.py",
            '{"abandoned_count": task.abandoned_count + 1}',
            '{"abandoned_count": task.abandoned_count + 1, "retry_count": task.retry_count + 1}',
        ),
    ),
    breaks=frozenset({"retries_are_counted"}),
)
ANY_END_WILL_DO = Defect(
    changes=(
        (
            "banyan/domain/continuations.py",
            "return (parent.exit_status == SUCCESS) == (on == ON_SUCCESS)",
            "return True",
        ),
    ),
    breaks=frozenset({"no_child_began_before_its_parents_allowed_it", "edges_tell_how_their_parents_ended"}),
)
DEFECTS = {
    "none": Defect(),
    "no fence": NO_FENCE,
    "losses are retries": LOSSES_ARE_RETRIES,
    "any end will do": ANY_END_WILL_DO,
}


def told_late(client: Client, worker: HandWorker, grant: Document) -> None:
    """The worker ends its attempt, under another id when it is told that it was given up."""
    said: Document = {"result": {"execution": grant["execution"]}}
    try:
        worker.end(grant, **said)
    except Conflict:
        HandWorker(client).end(grant, **said)


def ghost_story(provider: Client, client: Client, show: Callable[[], object]) -> list[str]:
    """A worker is lost and tells of its attempt when another one has the task; a second task fails. The tasks' ids."""
    lost = provider.submit({"command": "true", "state": "available", "max_retry_count": 1})["_id"]
    ghost = HandWorker(client)
    (late,) = ghost.claim()
    eventually(lambda: provider.task(lost)["state"] == "available", seconds=60, show=show)
    failing = provider.submit({"command": "true", "state": "available"})["_id"]
    child = provider.submit({"command": "true", "state": "available", "dependencies": [failing]})["_id"]
    worker = HandWorker(client)
    grants = {grant["_id"]: grant for grant in worker.claim()}
    told_late(client, ghost, late)
    worker.end(grants[lost], result={"execution": grants[lost]["execution"]})
    worker.end(grants[failing], "failure (exit code 3)", exit_code=3)
    for grant in worker.claim():
        worker.end(grant)
    ids = [lost, failing, child]
    eventually(lambda: {provider.task(id)["state"] for id in ids} <= set(ENDED), seconds=60, show=show)
    return ids


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS)
def test_a_server_with_a_defect_leaves_a_history_that_breaks_its_rules_and_one_without_does_not(
    mongo_uri: str, database_name: str, tmp_path: Path, defect: Defect
) -> None:
    server = processes.server(tmp_path, "server", mongo_uri, database_name, **SETTINGS)
    server.command = ["env", "--chdir", str(defect.code(tmp_path / "code")), *server.command]
    server.start()
    try:
        server.wait_until_healthy()
        with server.client("user") as provider, server.client("worker") as client:
            ids = ghost_story(provider, client, server.tail)
            statistics = provider.statistics()
    finally:
        server.stop()
    with MongoClient[Document](mongo_uri, tz_aware=True) as mongo:
        db = mongo[database_name]
        tasks, edges, attempts = (list(db[name].find()) for name in ("tasks", "continuations", "executions"))
    submitted = [ObjectId(id) for id in ids]
    found = contradictions(
        History(tasks=tasks, edges=edges, attempts=attempts, submitted=submitted, statistics=statistics)
    )
    assert {text.partition(":")[0] for text in found} == defect.breaks, found
