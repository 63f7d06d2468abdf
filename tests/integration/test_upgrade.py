"""Databases of older versions, and of newer ones."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from bson.timestamp import Timestamp
from flask import Flask
from pymongo import MongoClient
from pymongo.database import Database

from banyan.config import ServerSettings
from banyan.domain.matching import TaskClass
from banyan.errors import SetupError
from banyan.models.checker import Checker
from banyan.queue.context import Context
from banyan.queue.hub import Hub
from banyan.queue.rescue import rescue
from banyan.queue.retry import retry
from banyan.storage import backup
from banyan.storage.mongo import Storage
from banyan.storage.tasks import HELD_INDEX
from banyan.storage.upgrade import SCHEMA_VERSION, Step, upgrade, version_of
from tests.integration.conftest import Api
from tests.support.queue import SimulatedWorker, after, context_of, post, states, task

Db = Database[dict[str, Any]]

DATA = Path(__file__).parents[1] / "data"
OLDEST = DATA / "schema-1.banyan"
ANN = "fhtmluoQT13IlJm_AI-WWhOPXsdni23e"
"""The provider who owns most of what is in it; the other users are named in the file's credentials, as below."""
WORKER = "old-worker-token-0123456789"
RUNNING = "2b4f42f645ddb40dec1c9b9296f45eee89f4e332"
"""The token of the one attempt that was under way."""


@pytest.fixture
def context(mongo_uri: str, database_name: str, settings: ServerSettings) -> Iterator[Context]:
    """A server's context on the database of schema 1."""
    empty = Storage.open(mongo_uri, database_name)
    backup.restore(empty, OLDEST)
    empty.close()
    storage = Storage.connect(mongo_uri, database_name)
    hub = Hub(storage)
    yield Context(storage=storage, hub=hub, settings=settings, models=Checker(settings.models))
    hub.close()
    storage.close()


@pytest.fixture
def ann(app: Flask) -> Api:
    return Api(client=app.test_client(), token=ANN)


@pytest.fixture
def old_worker(app: Flask) -> Api:
    return Api(client=app.test_client(), token=WORKER)


def named(api: Api, name: str) -> dict[str, Any]:
    answer = api.get("/tasks", query_string={"where": f'{{"name": "{name}"}}'})
    assert answer.status_code == 200
    [task] = answer.get_json()["_items"]
    return dict(task)


def test_what_happened_in_an_old_version_can_be_read(context: Context, ann: Api) -> None:
    assert version_of(context.storage.db) == SCHEMA_VERSION
    assert [note.keys() >= {"worker", "task", "at"} for note in context.storage.db["forget"].find()] == [True]
    before = {task["name"]: task["state"] for task in context.storage.db["tasks"].find()}
    rescue(context)
    assert {task["name"]: task["state"] for task in context.storage.db["tasks"].find()} == before
    parent = named(ann, "parent")
    assert (parent["state"], parent["result"], parent["tags"]) == ("terminated", {"answer": 42}, ["kept"])
    assert ann.get(f"/tasks/{parent['_id']}/stdout").data == b"parent\n"
    assert ann.get(f"/tasks/{parent['_id']}/files/out/data.txt").data == b"data of the parent\n" * 100
    history = ann.get(f"/tasks/{named(ann, 'failing')['_id']}/execution_history").get_json()["_items"]
    failed = "failure (exit code 1)"
    assert [(each["attempt"], each["exit_status"]) for each in history] == [(1, failed), (2, failed)]
    samples = ann.get("/memory_usage", query_string={"where": f'{{"task": "{parent["_id"]}"}}'}).get_json()["_items"]
    assert sorted(sample["resident_memory_bytes"] for sample in samples) == [1000, 2000, 3000]


def test_an_index_that_tells_more_now_replaces_its_older_form(mongo_uri: str, database_name: str) -> None:
    older = Storage.open(mongo_uri, database_name)
    there = {"worker": {"$exists": True}}
    older.db["tasks"].create_index([("worker", 1), ("execution", 1)], name="held", partialFilterExpression=there)
    older.db["meta"].insert_one({"_id": "schema", "version": 2})
    older.close()
    storage = Storage.connect(mongo_uri, database_name)
    assert storage.db["tasks"].index_information()["held"]["key"] == HELD_INDEX
    assert version_of(storage.db) == SCHEMA_VERSION
    storage.close()


def test_the_delay_of_a_retry_gets_a_field_of_its_own_and_the_users_date_stays(mongo_uri: str, db: Db) -> None:
    soon, now = datetime(2030, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)
    delayed: dict[str, Any] = {"_id": 1, "retry_count": 1, "retry_delay": 5.0, "not_before": soon}
    waits: dict[str, Any] = {"_id": 2, "retry_count": 0, "retry_delay": 5.0, "not_before": soon}
    at_once: dict[str, Any] = {"_id": 3, "retry_count": 2, "retry_delay": 0.0, "not_before": soon}
    new: dict[str, Any] = {"_id": 4, "retry_count": 1, "retry_delay": 5.0, "not_before": soon, "retry_at": now}
    db["tasks"].insert_many([delayed, waits, at_once, new])
    db["meta"].update_one({"_id": "schema"}, {"$set": {"version": 3}})
    Storage.connect(mongo_uri, db.name).close()
    dates = [(task.get("not_before"), task.get("retry_at")) for task in db["tasks"].find().sort("_id")]
    assert dates == [(None, soon), (soon, None), (soon, None), (soon, now)]


def test_a_worker_that_was_avoided_for_ever_may_be_tried_again(mongo_uri: str, db: Db) -> None:
    worker, later = ObjectId(), datetime(2030, 1, 1, tzinfo=UTC)
    waiting: dict[str, Any] = {"_id": 1, "class_key": "k", "avoid": [worker]}
    ended: dict[str, Any] = {"_id": 2, "avoid": [worker]}
    new: dict[str, Any] = {"_id": 3, "class_key": "k", "avoid": [worker], "avoid_until": later}
    other: dict[str, Any] = {"_id": 4, "class_key": "k"}
    db["tasks"].insert_many([waiting, ended, new, other])
    db["meta"].update_one({"_id": "schema"}, {"$set": {"version": 5}})
    Storage.connect(mongo_uri, db.name).close()
    first, *others = [task.get("avoid_until") for task in db["tasks"].find().sort("_id")]
    assert first is not None
    assert abs(datetime.now(UTC) - first).total_seconds() < 3600
    assert others == [None, later, None]


def test_compute_capabilities_that_were_texts_are_numbers_now(mongo_uri: str, database_name: str) -> None:
    older = Storage.open(mongo_uri, database_name)
    places = {
        "tasks": "requested_resources",
        "sweeps": "requested_resources",
        "workers": "resources",
        "executions": "granted_resources",
    }
    for collection, place in places.items():
        texts = ["8.0", "10.0", "10.0", *(["unheard of"] if collection == "executions" else [])]
        documents = [{place: {"cores": 1, "gpu_compute_capability": text}} for text in texts]
        older.db[collection].insert_many([*documents, {place: {"cores": 1}}, {"name": "without"}])
    older.db["meta"].insert_one({"_id": "schema", "version": 4})
    for _ in range(2):
        upgrade(older.db)
        for collection, place in places.items():
            found = [
                each.get(place, {}).get("gpu_compute_capability") for each in older.db[collection].find().sort("_id")
            ]
            odd = ["unheard of"] if collection == "executions" else []
            assert found == [Timestamp(8, 0), Timestamp(10, 0), Timestamp(10, 0), *odd, None, None]
        older.db["meta"].update_one({"_id": "schema"}, {"$set": {"version": 4}})
    older.close()


def test_tasks_of_equal_needs_share_a_class_across_versions() -> None:
    task = {"queue": "default", "owner": "ann", "command": "true"}
    texts = task | {"requested_resources": {"cores": 1, "gpu_compute_capability": "8.0"}}
    numbers = task | {"requested_resources": {"cores": 1, "gpu_compute_capability": Timestamp(8, 0)}}
    assert TaskClass.of(texts) == TaskClass.of(numbers)


def test_cancelled_tasks_know_again_what_they_were_cancelled_for(mongo_uri: str, db: Db) -> None:
    storage = Storage.connect(mongo_uri, db.name)
    context = context_of(storage)
    gone, there = post(context, task(priority=1), task())
    children = post(context, task(dependencies=after(gone, there)), task(dependencies=after(gone)))
    (other,) = post(context, task(dependencies=after(there)))
    worker = SimulatedWorker(context)
    for _ in range(2):
        worker.claim(1)
        worker.end("failure (exit code 1)")
    db["tasks"].delete_one({"_id": gone})  # as older versions did it
    db["continuations"].delete_many({"parent": gone})
    db["meta"].update_one({"_id": "schema"}, {"$set": {"version": 6}})
    for _ in range(2):
        Storage.connect(mongo_uri, db.name).close()
        db["meta"].update_one({"_id": "schema"}, {"$set": {"version": 6}})
    assert [
        (edge["child"], edge["satisfied"]) for edge in db["continuations"].find({"parent": gone}).sort("child")
    ] == [(child, False) for child in children]
    retry(context, there)
    worker.run_all()
    assert states(context, [there, other, *children]) == ["terminated", "terminated", "cancelled", "cancelled"]
    storage.close()


def test_work_of_an_old_version_goes_on(context: Context, ann: Api, old_worker: Api) -> None:
    worker = SimulatedWorker(context)
    assert sorted(grant["name"] for grant in worker.claim().tasks) == ["at night", "available", "theirs"]
    worker.end()

    running = named(ann, "running")
    end = {"execution": running["execution"], "token": RUNNING, "exit_status": "success"}
    [held_it] = context.storage.db["workers"].distinct("_id", {"name": "old worker"})
    answer = old_worker.post(f"/workers/{held_it}/report", {"reports": [end]})
    assert (answer.status_code, answer.get_json()["accepted"]) == (200, [running["execution"]])
    assert (named(ann, "running")["state"], named(ann, "waits")["state"]) == ("terminated", "available")

    failing, cancelled = named(ann, "failing")["_id"], "after the failing one"
    assert ann.post(f"/tasks/{failing}/retry").status_code == 200
    assert (named(ann, "failing")["state"], named(ann, cancelled)["state"]) == ("available", "inactive")
    assert ann.patch(f"/tasks/{named(ann, 'tidy up')['_id']}", {"hold": False}).status_code == 200
    assert worker.run_all() == 4
    assert {named(ann, name)["exit_status"] for name in ("waits", "failing", cancelled, "tidy up")} == {"success"}


# Versions


@pytest.fixture
def db(mongo_uri: str, database_name: str) -> Iterator[Db]:
    """A database that a server has prepared."""
    storage = Storage.connect(mongo_uri, database_name)
    yield storage.db
    storage.close()


def test_a_database_of_a_newer_program_is_refused(mongo_uri: str, db: Db) -> None:
    db["meta"].update_one({"_id": "schema"}, {"$set": {"version": SCHEMA_VERSION + 1}})
    with pytest.raises(SetupError, match=f"schema {SCHEMA_VERSION + 1}, .* up to {SCHEMA_VERSION}: a newer Banyan"):
        Storage.connect(mongo_uri, db.name)
    assert version_of(db) == SCHEMA_VERSION + 1


def test_indexes_that_have_changed_since_are_made_anew(mongo_uri: str, database_name: str) -> None:
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        old = client[database_name]
        old["meta"].insert_one({"_id": "schema", "version": 1})
        old["tasks"].create_index([("sweep", 1), ("index", 1)], name="sweep")
        old["forget"].create_index([("worker", 1)], name="worker")
        Storage.connect(mongo_uri, database_name).close()
        assert len(old["tasks"].index_information()["sweep"]["key"]) == 4
        assert "worker" not in old["forget"].index_information()


def doubling(version: int, fails_at: int | None = None) -> Step:
    """A step that doubles numbers, each once; it stops at one of them if it is told so."""

    def act(db: Db) -> None:
        for number in db["numbers"].find({f"in_{version}": {"$exists": False}}).sort("_id"):
            if number["_id"] == fails_at:
                raise RuntimeError("stopped")
            old_form = {"_id": number["_id"], f"in_{version}": {"$exists": False}}
            db["numbers"].update_one(old_form, {"$mul": {"value": 2}, "$set": {f"in_{version}": True}})

    return Step(version=version, what="numbers are doubled", act=act)


def values(db: Db) -> list[int]:
    return [number["value"] for number in db["numbers"].find().sort("_id")]


@pytest.fixture
def numbers(db: Db) -> Db:
    db["numbers"].insert_many([{"_id": number, "value": 1} for number in range(20)])
    db["meta"].update_one({"_id": "schema"}, {"$set": {"version": 1}})
    return db


def test_steps_run_in_order_and_once(numbers: Db) -> None:
    steps = [doubling(2), doubling(3)]
    upgrade(numbers, steps)
    assert (version_of(numbers), values(numbers)) == (3, [4] * 20)
    upgrade(numbers, steps)
    assert (version_of(numbers), values(numbers)) == (3, [4] * 20)


def test_an_interrupted_step_is_completed_at_the_next_start(numbers: Db) -> None:
    with pytest.raises(RuntimeError):
        upgrade(numbers, [doubling(2), doubling(3, fails_at=7)])
    assert (version_of(numbers), values(numbers)) == (2, [4] * 7 + [2] * 13)
    upgrade(numbers, [doubling(2), doubling(3)])
    assert (version_of(numbers), values(numbers)) == (3, [4] * 20)


def test_servers_that_start_at_once_do_it_once(numbers: Db) -> None:
    barrier = threading.Barrier(4)

    def start() -> None:
        barrier.wait()
        upgrade(numbers, [doubling(2), doubling(3)])

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (version_of(numbers), values(numbers)) == (3, [4] * 20)


_KILLED = """
import os, signal, sys
from banyan.storage import upgrade
from banyan.storage.mongo import Storage
def act(db):
    db["forget"].update_one({"at": {"$exists": False}}, {"$set": {"at": 1}})
    os.kill(os.getpid(), signal.SIGKILL)
storage = Storage.open(sys.stdin.read(), sys.argv[1])
upgrade.upgrade(storage.db, [upgrade.Step(version=2, what="half of it", act=act)])
"""


def test_a_server_that_is_killed_in_a_step_leaves_the_rest_to_the_next(mongo_uri: str, db: Db) -> None:
    db["meta"].update_one({"_id": "schema"}, {"$set": {"version": 1}})
    db["forget"].insert_many([{"worker": number, "task": number} for number in range(3)])
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, db.name], input=mongo_uri, text=True, capture_output=True, check=False
    )
    assert killed.returncode == -9, killed.stderr
    assert version_of(db) == 1
    Storage.connect(mongo_uri, db.name).close()
    assert version_of(db) == SCHEMA_VERSION
    assert db["forget"].count_documents({"at": {"$exists": False}}) == 0
