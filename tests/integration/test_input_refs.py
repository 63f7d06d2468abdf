"""Inputs that are results of parents: the edges that they make, the values that a claim gets, what may be missing."""

import json
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from flask import Flask

from banyan.client import Client, Document
from banyan.config import Auth, Limits, Models, Posting, ServerSettings
from banyan.domain.roles import Role
from banyan.errors import Invalid, NotFound
from banyan.queue.context import Context
from tests.support.hand_worker import HandWorker
from tests.support.models import SUM, write_models
from tests.support.wsgi import WSGITransport

URL = "http://banyan.test"
MODEL = {"model": "m", "state": "available"}


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    return ServerSettings(models=Models(path=(write_models(tmp_path / "models", add=SUM),)))


def client_as(app: Flask, context: Context, name: str, role: Role) -> Client:
    return Client(URL, context.storage.users.add(name, role, context.now()), WSGITransport(app))


@pytest.fixture
def alice(app: Flask, context: Context) -> Client:
    """A provider's client."""
    return client_as(app, context, "alice", Role.PROVIDER)


@pytest.fixture
def worker(app: Flask, context: Context) -> HandWorker:
    """A worker that has the model `m`, and the model `add` of the server."""
    return HandWorker(client_as(app, context, "node", Role.WORKER), ["m", "add"])


def ref(task: str, key: str | None = None) -> dict[str, str]:
    return {"task": task} if key is None else {"task": task, "result": key}


def ended(alice: Client, worker: HandWorker, result: Any = None, **fields: Any) -> str:
    """A task that has ended with this result."""
    id = str(alice.submit(MODEL)["_id"])
    (grant,) = worker.claim()
    worker.end(grant, **({} if result is None else {"result": result}), **fields)
    return id


def granted(alice: Client, worker: HandWorker, **task: Any) -> Document:
    """What a worker is granted of a new task."""
    id = alice.submit(MODEL | task)["_id"]
    return {grant["_id"]: grant for grant in worker.claim()}[id]


def test_a_reference_makes_its_task_a_dependency_once(alice: Client) -> None:
    one, two, three = (str(alice.submit(MODEL)["_id"]) for _ in range(3))
    refs = {"x": ref(one, "a"), "y": ref(one, "b"), "z": ref(two)}
    child = alice.submit(MODEL | {"input_refs": refs, "dependencies": [two, {"task": three, "on": "any"}]})
    assert child["state"] == "inactive"
    shown = alice.task(child["_id"])
    assert (shown["input_refs"], shown["pending_dependency_count"]) == (refs, 3)
    edges = alice.page("continuations", {"child": child["_id"]}).items
    assert sorted((edge["parent"], edge["on"]) for edge in edges) == sorted(
        [(one, "success"), (two, "success"), (three, "any")]
    )


def test_items_of_a_list_refer_to_each_other_also_where_the_parent_names_the_child(alice: Client) -> None:
    parent, child = str(ObjectId()), str(ObjectId())
    taking = MODEL | {"_id": child, "input_refs": {"x": ref(parent)}}
    alice.submit([taking, MODEL | {"_id": parent, "continuations": [child]}])
    assert alice.task(child)["pending_dependency_count"] == 1
    own = str(ObjectId())
    with pytest.raises(Invalid, match="wait for each other"):
        alice.submit(MODEL | {"_id": own, "input_refs": {"x": ref(own)}})


@pytest.mark.parametrize("on", ["failure", "any"])
def test_a_dependency_on_another_end_than_success_does_not_go_with_a_reference(alice: Client, on: str) -> None:
    parent = str(alice.submit(MODEL)["_id"])
    bad = MODEL | {"input_refs": {"x": ref(parent)}, "dependencies": [{"task": parent, "on": on}]}
    with pytest.raises(Invalid) as refused:
        alice.submit([MODEL, bad])
    assert refused.value.items == [
        {},
        {"input_refs": f"'x' takes a result of task {parent}, on which it depends by '{on}'; it must be 'success'"},
    ]


@pytest.mark.parametrize(
    ("task", "field", "told"),
    [
        ({"command": "true", "input_refs": {"x": ref("5" * 24)}}, "input_refs", "'model'"),
        ({"model": "m", "inputs": {"x": 1}, "input_refs": {"x": ref("5" * 24)}}, "input_refs", "'x' is given in"),
        ({"model": "m", "input_refs": {"x": ref("5" * 24)}}, "dependencies", f"there is no task {'5' * 24}"),
        ({"model": "m", "input_refs": {"x": {"result": "a"}}}, "input_refs", "'x' must be an object"),
        ({"model": "m", "input_refs": {"x": {"task": "a"}}}, "input_refs", "'a' is not an id"),
        ({"model": "m", "input_refs": {"x": {"task": "5" * 24, "result": 1}}}, "input_refs", "must be a text"),
        ({"model": "m", "input_refs": {"x": {"task": "5" * 24, "key": "a"}}}, "input_refs", "unknown field 'key'"),
        ({"model": "m", "input_refs": ["x"]}, "input_refs", "must be an object"),
    ],
)
def test_references_that_make_no_sense_are_refused(alice: Client, task: Document, field: str, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        alice.submit(task)
    assert list(refused.value.issues) == [field]
    assert told in str(refused.value)


def test_references_are_set_at_creation(alice: Client) -> None:
    id = alice.submit({"model": "m"})["_id"]
    with pytest.raises(Invalid, match="input_refs: they are set at creation, as dependencies are; post the task anew"):
        alice.update(id, {"input_refs": {}})


def test_a_claim_gets_the_values_and_the_task_keeps_the_references(alice: Client, worker: HandWorker) -> None:
    result = {"c.x": [1, float("inf")], "": {"$ref": "a", "$id": "b"}, "sum": 2**40}
    parent, other = ended(alice, worker, result), ended(alice, worker, 5)
    refs = {"whole": ref(parent), "c.y": ref(parent, "c.x"), "🌳": ref(parent, ""), "five": ref(other)}
    grant = granted(alice, worker, inputs={"own": 1}, input_refs=refs)
    assert grant["inputs"] == {"own": 1, "whole": result, "c.y": result["c.x"], "🌳": result[""], "five": 5}
    assert "input_error" not in grant
    shown = alice.task(grant["_id"])
    assert (shown["inputs"], shown["input_refs"]) == ({"own": 1}, refs)


def test_a_claim_by_hand_gets_the_values_too(alice: Client, worker: HandWorker) -> None:
    parent = ended(alice, worker, {"r": 7})
    good, bad = (alice.submit(MODEL | {"input_refs": {"x": ref(parent, key)}})["_id"] for key in ("r", "s"))
    claim = {"state": "running", "update_execution_data": {"worker": worker.id}}
    assert worker.client.update(good, claim)["inputs"] == {"x": 7}
    assert "has no 's'" in worker.client.update(bad, claim)["input_error"]


def test_defaults_stand_back_behind_references(app: Flask, context: Context, alice: Client, worker: HandWorker) -> None:
    client_as(app, context, "root", Role.ADMIN).set_model_defaults("m", {"x": 1, "y": 2})
    grant = granted(alice, worker, input_refs={"x": ref(ended(alice, worker, {"r": 7}), "r")})
    assert grant["inputs"] == {"x": 7, "y": 2}
    assert alice.task(grant["_id"])["inputs"] == {"y": 2}


def test_the_same_question_gets_the_same_values_again(alice: Client, worker: HandWorker) -> None:
    parent = ended(alice, worker, {"r": 7})
    alice.submit(MODEL | {"input_refs": {"x": ref(parent, "r")}})
    body = {"request": "once", "resources": {"cores": 4, "memory": 1 << 30}, "max_tasks": 1, "wait": 0}
    first, again = (worker.client.claim(worker.id, body)["tasks"] for _ in range(2))
    assert first == again
    assert first[0]["inputs"] == {"x": 7}


@pytest.mark.parametrize(
    ("result", "key", "told"),
    [
        ({"a": 1, "b": 2}, "c", "the result of task ID has no 'c'; it has 'a', 'b'"),
        ([1], "c", "the result of task ID has no 'c'; it has no names"),
        ({}, "c", "the result of task ID has no 'c'; it has no names"),
        (None, "c", "task ID is terminated and has no result"),
        (None, None, "task ID is terminated and has no result"),
    ],
)
def test_a_result_that_is_not_there_is_told_to_the_worker(
    alice: Client, worker: HandWorker, result: Any, key: str | None, told: str
) -> None:
    parent = ended(alice, worker, result)
    grant = granted(alice, worker, input_refs={"x": ref(parent, key)})
    assert grant["input_error"] == f"input 'x': {told}".replace("ID", parent)
    assert grant.get("inputs") is None


def test_a_parent_that_was_deleted_took_its_result_along(alice: Client, worker: HandWorker) -> None:
    parent = ended(alice, worker, {"r": 7})
    child = alice.submit(MODEL | {"input_refs": {"x": ref(parent, "r")}, "hold": True})["_id"]
    alice.delete(parent)
    alice.update(child, {"hold": False})
    (grant,) = worker.claim()
    assert grant["input_error"] == f"input 'x': task {parent} was deleted, and its result with it"


def test_a_large_result_is_read_from_the_file_that_was_sent(alice: Client, worker: HandWorker) -> None:
    id = alice.submit(MODEL)["_id"]
    (grant,) = worker.claim()
    data = json.dumps({"big": list(range(1000)), "nan": float("nan")}).encode()
    worker.client.put_file(grant["execution"], "result.json", 0, data, grant["token"])
    worker.end(grant, result_file="result.json")
    taken = granted(alice, worker, input_refs={"x": ref(id, "big")})
    assert taken["inputs"] == {"x": list(range(1000))}


def test_a_large_result_is_read_from_a_shared_disk(app: Flask, context: Context, alice: Client, tmp_path: Path) -> None:
    (tmp_path / ".banyan-probe").write_text("p" * 20)
    nodes = client_as(app, context, "node", Role.WORKER)
    sharing = {"name": "n", "resources": {"cores": 1}, "capabilities": ["model:m"]}
    worker = HandWorker(nodes)
    worker.id = nodes.register_worker(sharing | {"files": {"root": str(tmp_path), "probe": "p" * 20}})["_id"]
    id = alice.submit(MODEL)["_id"]
    (grant,) = worker.claim()
    directory = tmp_path / id / "1" / "work"
    directory.mkdir(parents=True)
    (directory / "result.json").write_text('{"big": [1, 2]}')
    worker.end(grant, result_file="result.json")
    assert granted(alice, worker, input_refs={"x": ref(id)})["inputs"] == {"x": {"big": [1, 2]}}
    (directory / "result.json").write_text('{"big": [1, 2')
    error = granted(alice, worker, input_refs={"x": ref(id)})["input_error"]
    assert error.startswith(f"input 'x': the result of task {id} in its file 'result.json' is not JSON: ")
    (directory / "result.json").unlink()
    error = granted(alice, worker, input_refs={"x": ref(id)})["input_error"]
    assert error == f"input 'x': the result of task {id} is in its file 'result.json', which the server does not have"


def test_a_model_is_not_asked_about_inputs_that_are_not_known_yet(alice: Client) -> None:
    parent = str(alice.submit(MODEL)["_id"])
    with pytest.raises(Invalid, match="y is missing"):
        alice.submit({"model": "add", "inputs": {"x": 1}})
    id = alice.submit({"model": "add", "inputs": {"x": 1}, "input_refs": {"y": ref(parent)}})["_id"]
    alice.update(id, {"inputs": {"other": 1}})


def test_references_are_found_by_their_task(alice: Client) -> None:
    parent = str(alice.submit(MODEL)["_id"])
    id = alice.submit(MODEL | {"input_refs": {"x": ref(parent, "sum")}})["_id"]
    assert [task["_id"] for task in alice.tasks({"input_refs.x.task": parent}).items] == [id]
    assert [task["_id"] for task in alice.tasks({"input_refs.x.result": "sum"}).items] == [id]


def test_deaths_of_model_hosts_are_told_to_the_next_that_runs_the_task(alice: Client, worker: HandWorker) -> None:
    id = alice.submit(MODEL)["_id"]
    told = []
    for _ in range(3):
        (grant,) = worker.claim()
        told.append(grant.get("host_deaths"))
        worker.end(grant, "failure (worker: model host died)")
    assert told == [None, 1, 2]
    assert "host_deaths" not in alice.task(id)
    (grant,) = worker.claim()
    worker.end(grant)
    alice.retry(id)
    assert "host_deaths" not in worker.claim()[0]


class TestLimits:
    """A result that is too large is not handed on."""

    @pytest.fixture
    def settings(self) -> ServerSettings:
        return ServerSettings(limits=Limits(max_body_bytes=1000), posting=Posting(check="off"))

    def test_a_result_file_has_a_limit(self, alice: Client, worker: HandWorker) -> None:
        id = alice.submit(MODEL)["_id"]
        (grant,) = worker.claim()
        for offset in (0, 800):
            worker.client.put_file(grant["execution"], "r.json", offset, b"1" * 800, grant["token"])
        worker.end(grant, result_file="r.json")
        error = granted(alice, worker, input_refs={"x": ref(id)})["input_error"]
        assert error.endswith("is in its file 'r.json', and 1600 bytes are more than limits.max_body_bytes")


class TestPrivate:
    """Where reads are private, nobody takes results of others."""

    @pytest.fixture
    def settings(self) -> ServerSettings:
        return ServerSettings(auth=Auth(private=True), models=Models(path=()))

    def test_a_result_of_a_task_that_one_cannot_read_is_not_taken(
        self, app: Flask, context: Context, alice: Client
    ) -> None:
        parent = str(alice.submit(MODEL)["_id"])
        bob = client_as(app, context, "bob", Role.PROVIDER)
        with pytest.raises(NotFound):
            bob.task(parent)
        with pytest.raises(Invalid, match=f"there is no task {parent}"):
            bob.submit(MODEL | {"input_refs": {"x": ref(parent)}})
        assert alice.submit(MODEL | {"input_refs": {"x": ref(parent)}})["state"] == "inactive"
