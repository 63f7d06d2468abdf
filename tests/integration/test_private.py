"""Where reads are private, no answer tells a provider whether something of another's exists."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from bson import ObjectId
from werkzeug.test import TestResponse

from banyan.api.app import create_app
from banyan.config import Auth, Models, ServerSettings
from banyan.queue.context import Context
from tests.integration.conftest import Api
from tests.support.queue import SimulatedWorker


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings(models=Models(path=()), auth=Auth(private=True))


@pytest.fixture
def theirs(context: Context, other: Api) -> dict[str, str]:
    """What bob has, by kind: an ended task, one that waits, an attempt, a sample, an edge, a sweep."""
    parent = other.post("/tasks", {"command": "true", "state": "available", "name": "bob's"}).get_json()["_id"]
    child = other.post("/tasks", {"command": "true", "dependencies": [parent]}).get_json()["_id"]
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end(result={"x": 1})
    attempt = other.get(f"/tasks/{parent}/execution_history").get_json()["_items"][0]["_id"]
    sample = {"task": parent, "execution": attempt, "time": "2026-01-01", "resident_memory_bytes": 1}
    return {
        "task": parent,
        "inactive": other.post("/tasks", {"command": "true"}).get_json()["_id"],
        "child": child,
        "attempt": attempt,
        "sample": other.post("/memory_usage", sample).get_json()["_id"],
        "edge": other.get("/continuations").get_json()["_items"][0]["_id"],
        "sweep": other.post("/sweeps", {"command": "a {x}", "grid": {"x": [1]}}).get_json()["_id"],
    }


@pytest.fixture
def mine(provider: Api) -> str:
    """An inactive task of alice's."""
    return str(provider.post("/tasks", {"command": "true"}).get_json()["_id"])


Request = tuple[str, str, Any]


def of_one_that_is_steered(id: str, mine: str) -> Iterator[Request]:
    for act in ("cancel", "retry"):
        yield "POST", f"/tasks/{id}/{act}", None
        yield "POST", f"/tasks/{id}/{act}", {}
        for dry_run in (False, True):
            yield "POST", f"/tasks/{act}", {"ids": [id], "dry_run": dry_run}
            yield "POST", f"/tasks/{act}", {"where": {"_id": id}, "dry_run": dry_run}
        yield "POST", f"/tasks/{act}", {"ids": [mine, id], "dry_run": True}
    yield "POST", f"/tasks/{id}/retry", {"downstream": "rerun", "without": [mine], "priority": 3}
    yield "POST", f"/tasks/{mine}/retry", {"downstream": "rerun", "without": [id]}


def of_a_task(id: str, mine: str) -> Iterator[Request]:
    """Requests that name a task, `id`, in every way that a provider can."""
    for path in ("", "/execution_history", "/stdout", "/stderr", "/files/", "/files/a", "/explain", "?embedded={}"):
        yield "GET", f"/tasks/{id}{path}", None
        yield "HEAD", f"/tasks/{id}{path}", None
    for query in ("?attempt=1", "?attempt=x", "?attempt=99"):
        yield "GET", f"/tasks/{id}/stdout{query}", None
    for body in (
        {"name": "x"},
        {"state": "cancelled"},
        {"state": "available"},
        {"priority": "x"},
        {},
        {"continuations": [mine]},
    ):
        yield "PATCH", f"/tasks/{id}", body
        yield "PATCH", "/tasks", [{"_id": id, **body}]
    yield "PATCH", "/tasks?dry_run=true", [{"_id": id, "name": "x"}]
    yield "PATCH", f"/tasks?where={quote(json.dumps({'_id': id}))}", {"name": "x"}
    yield "PATCH", f"/tasks/{id}", {"state": "running", "update_execution_data": {"worker": mine}}
    yield "POST", f"/tasks/{id}/update_execution_data", {"token": "x" * 40}
    yield "DELETE", f"/tasks/{id}", None
    yield from of_one_that_is_steered(id, mine)
    for act in ("add_continuations", "remove_continuations"):
        for method in ("POST", "PATCH"):
            yield method, f"/tasks/{id}/{act}", [mine]
            yield method, f"/tasks/{mine}/{act}", [id]
        yield "POST", f"/tasks/{act}", [{"targets": [id], "values": [mine]}]
        yield "POST", f"/tasks/{act}", [{"targets": [mine], "values": [id]}]
        yield "POST", f"/tasks/{act}", [{"targets": [id], "values": [id]}]
    yield "PATCH", f"/tasks/{mine}", {"continuations": [id]}
    for reference in ({"dependencies": [id]}, {"continuations": [id]}, {"dependencies": [{"task": id, "on": "any"}]}):
        yield "POST", "/tasks", {"command": "true", **reference}
        yield "POST", "/tasks", [{"command": "true"}, {"command": "true", **reference}]
        yield "POST", "/sweeps", {"command": "a {x}", "grid": {"x": [1]}, **reference}
        yield "POST", "/sweeps", {"command": "a {x}", "grid": {"x": [1]}, "barrier": {"command": "b", **reference}}
    yield "POST", "/tasks", {"model": "m", "input_refs": {"x": {"task": id}}}
    sample = {"task": id, "time": "2026-01-01", "resident_memory_bytes": 1}
    yield "POST", "/memory_usage", sample
    yield "POST", "/memory_usage", [sample, {**sample, "task": mine}]
    for field, resource in (
        ("_id", "tasks"),
        ("task", "execution_history"),
        ("task", "memory_usage"),
        ("parent", "continuations"),
    ):
        for condition in (id, {"$in": [id]}, {"$ne": id}):
            yield "GET", f"/{resource}?where={quote(json.dumps({field: condition}))}", None
    yield "GET", f"/statistics?where={quote(json.dumps({'_id': id}))}", None


def of_an_attempt(id: str, mine: str) -> Iterator[Request]:
    for path in ("", '?embedded={"task":1}'):
        yield "GET", f"/execution_history/{id}{path}", None
    yield "GET", f"/tasks?where={quote(json.dumps({'execution': id}))}", None
    sample = {"task": mine, "execution": id, "time": "2026-01-01", "resident_memory_bytes": 1}
    yield "POST", "/memory_usage", sample
    for stream in ("stdout", "files/a"):
        yield "PUT", f"/execution_history/{id}/{stream}", None


def of_a_sweep(id: str, mine: str) -> Iterator[Request]:
    for path in ("", "/results", "/results?format=csv", "/statistics", '?projection={"progress":1}'):
        yield "GET", f"/sweeps/{id}{path}", None
    for act in ("cancel", "retry"):
        yield "POST", f"/sweeps/{id}/{act}", None
    yield "DELETE", f"/sweeps/{id}", None
    yield "GET", f"/tasks?where={quote(json.dumps({'sweep': id}))}", None


def of_others(kind: str, id: str) -> Iterator[Request]:
    yield "GET", f"/{kind}/{id}", None
    yield "GET", f"/{kind}?where={quote(json.dumps({'_id': id}))}", None


def seen(answer: TestResponse, id: str) -> Any:
    """All that an answer tells, but for the id that was asked for and what is new each time."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("Date", "ETag", "Last-Modified")}
    body = answer.get_data(as_text=True).replace(id, "ID")
    return answer.status_code, {name: value.replace(id, "ID") for name, value in headers.items()}, body


def same(api: Api, requests: Iterator[Request], others: Iterator[Request], id: str, nothing: str) -> None:
    for (method, path, body), (_, other_path, other_body) in zip(requests, others, strict=True):
        for headers in ({}, {"If-Match": "x"}):
            found = seen(api.call(method, path, body, headers=headers), id)
            told = seen(api.call(method, other_path, other_body, headers=headers), nothing)
            assert (method, path, body, found) == (method, path, body, told)


@pytest.mark.parametrize("kind", ["task", "inactive", "child"])
def test_a_task_of_anothers_is_answered_like_one_that_does_not_exist(
    provider: Api, theirs: dict[str, str], mine: str, kind: str
) -> None:
    nothing = str(ObjectId())
    same(provider, of_a_task(theirs[kind], mine), of_a_task(nothing, mine), theirs[kind], nothing)


def test_so_is_everything_else_of_anothers(provider: Api, theirs: dict[str, str], mine: str) -> None:
    nothing = str(ObjectId())
    for kind, requests in (("attempt", of_an_attempt), ("sweep", of_a_sweep)):
        same(provider, requests(theirs[kind], mine), requests(nothing, mine), theirs[kind], nothing)
    for kind, resource in (("sample", "memory_usage"), ("edge", "continuations"), ("attempt", "execution_history")):
        same(provider, of_others(resource, theirs[kind]), of_others(resource, nothing), theirs[kind], nothing)


def test_an_id_that_is_taken_is_refused_alike_whoever_has_it(provider: Api, theirs: dict[str, str], mine: str) -> None:
    def bodies(id: str) -> Iterator[tuple[str, Any]]:
        yield "/tasks", {"_id": id, "command": "true"}
        yield "/tasks", {"_id": id, "command": "true", "queue": "nope"}
        yield "/tasks", [{"command": "true"}, {"_id": id, "command": "true"}]
        yield "/tasks", [{"_id": id, "command": "true"}, {"command": "true", "dependencies": [id]}]
        yield "/sweeps", {"command": "a {x}", "grid": {"x": [1]}, "barrier": {"_id": id, "command": "b"}}

    for (path, body), (_, own) in zip(bodies(theirs["task"]), bodies(mine), strict=True):
        refused = provider.post(path, body)
        assert refused.status_code == 422
        assert seen(refused, theirs["task"]) == seen(provider.post(path, own), mine)
        assert "there is a task" not in refused.get_data(as_text=True)
        assert "already" not in refused.get_data(as_text=True)
    keyed = {"Idempotency-Key": "k"}
    first = provider.post("/tasks", {"_id": theirs["task"], "command": "true"}, headers=keyed)
    again = provider.post("/tasks", {"command": "true"}, headers=keyed)
    assert (first.status_code, again.status_code) == (422, 201)


def test_admins_are_told_and_providers_where_reads_are_not_private(
    context: Context, admin: Api, provider: Api, theirs: dict[str, str]
) -> None:
    body = {"_id": theirs["task"], "command": "true"}
    told = f"there is a task {theirs['task']} already"
    assert admin.post("/tasks", body).get_json()["_issues"]["_id"] == told
    open_to_all = create_app(Context(storage=context.storage, hub=context.hub, settings=ServerSettings())).test_client()
    assert Api(client=open_to_all, token=provider.token).post("/tasks", body).get_json()["_issues"]["_id"] == told
