"""Asking: filters, order, pages, fields, revisions; and what must stay hidden."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from bson import ObjectId

from banyan.api.schema import RESOURCES
from banyan.queue.context import Context
from tests.integration.conftest import Api
from tests.support.queue import SimulatedWorker

HIDDEN = {
    "tasks": "class_key task_class order claim_request worker avoid attempt_count unsettled has_continuations".split(),
    "execution_history": "request ended_by files_root".split(),
    "workers": "claim_request files_root replaced".split(),
    "users": "digest leaving".split(),
    "queues": ["claims"],
}


def query(**parameters: Any) -> str:
    return "?" + "&".join(
        f"{name}={quote(value if isinstance(value, str) else json.dumps(value))}" for name, value in parameters.items()
    )


def names(api: Api, **parameters: Any) -> list[str]:
    answer = api.get(f"/tasks{query(**parameters)}")
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return [task["name"] for task in answer.get_json()["_items"]]


@pytest.fixture
def five(provider: Api) -> list[str]:
    """Tasks `t0` to `t4`; the ids."""
    tasks = [
        {"name": f"t{i}", "priority": i % 2, "tags": ["even"] if i % 2 == 0 else [], "metadata": {"n": {"m": i}}}
        | {"command": "true", "requested_resources": {"memory": f"{i + 1} GiB"}}
        for i in range(5)
    ]
    return [item["_id"] for item in provider.post("/tasks", tasks).get_json()["_items"]]


CAPABILITIES = ["10.0", "9.0", "8.9", "8.10", "8"]
ASCENDING = ["8.0", "8.9", "8.10", "9.0", "10.0"]


def capabilities(api: Api, path: str, field: str, **parameters: Any) -> list[str]:
    answer = api.get(f"{path}{query(**parameters)}")
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return [each[field]["gpu_compute_capability"] for each in answer.get_json()["_items"]]


def test_compute_capabilities_are_texts_and_compared_by_number(provider: Api, worker: Api, context: Context) -> None:
    for each in CAPABILITIES:
        wanted = {"gpus": 1, "gpu_compute_capability": each}
        posted = provider.post("/tasks", {"command": "true", "state": "available", "requested_resources": wanted})
        assert posted.status_code == 201
        assert worker.post("/workers", {"name": each, "resources": {"cores": 1, **wanted}}).status_code == 201
        sweep = {"command": "true {x}", "grid": {"x": [1]}, "requested_resources": wanted, "priority": -1}
        assert provider.post("/sweeps", sweep).status_code == 201
    strong = SimulatedWorker(context, resources={"cores": 9, "gpus": 9, "gpu_compute_capability": "11.0"})
    for grant in strong.claim().tasks:
        kept = {"granted_resources": {"gpu_compute_capability": grant["requested_resources"]["gpu_compute_capability"]}}
        context.storage.executions.update({grant["execution"]: kept}, context.now())
    narrowed: dict[str, dict[str, Any]] = {"/tasks": {"sweep": None}, "/workers": {"name": {"$in": CAPABILITIES}}}
    for path, field in (
        ("/tasks", "requested_resources"),
        ("/sweeps", "requested_resources"),
        ("/workers", "resources"),
        ("/execution_history", "granted_resources"),
    ):
        name = f"{field}.gpu_compute_capability"
        each_once = narrowed.get(path, {})
        ordered = capabilities(provider, path, field, where=each_once | {name: {"$exists": True}}, sort=name)
        assert (path, list(dict.fromkeys(ordered))) == (path, ASCENDING)
        backwards = capabilities(provider, path, field, where=each_once | {name: {"$exists": True}}, sort=f"-{name}")
        assert list(dict.fromkeys(backwards)) == ASCENDING[::-1]
        for condition, expected in (
            ("8", ["8.0"]),
            (8.0, ["8.0"]),
            ({"$gt": "9.0"}, ["10.0"]),
            ({"$gte": "8.10"}, ["8.10", "9.0", "10.0"]),
            ({"$lt": "10"}, ["8.0", "8.9", "8.10", "9.0"]),
            ({"$in": ["8.10", 10]}, ["8.10", "10.0"]),
            ({"$not": {"$lt": "9"}, "$ne": "10.0"}, ["9.0"]),
        ):
            found = capabilities(provider, path, field, where={"$and": [each_once, {name: condition}]}, sort=name)
            assert (path, condition, list(dict.fromkeys(found))) == (path, condition, expected)


def test_a_worker_gets_what_its_gpus_can_run_whatever_the_texts_look_like(provider: Api, context: Context) -> None:
    for each in CAPABILITIES:
        wanted = {"gpus": 1, "gpu_compute_capability": each}
        provider.post("/tasks", {"name": each, "command": "true", "state": "available", "requested_resources": wanted})
    nine = SimulatedWorker(context, resources={"cores": 99, "gpus": 99, "gpu_compute_capability": "8.10"})
    assert sorted(grant["name"] for grant in nine.claim().tasks) == ["8", "8.10", "8.9"]
    ten = SimulatedWorker(context, resources={"cores": 99, "gpus": 99, "gpu_compute_capability": "10.1"})
    assert sorted(grant["name"] for grant in ten.claim().tasks) == ["10.0", "9.0"]


def test_filters_reach_every_kind_of_field(provider: Api, five: list[str]) -> None:
    created = provider.get(f"/tasks/{five[0]}").get_json()["_created"]
    for condition, expected in [
        ({"name": "t1"}, ["t1"]),
        ({"_id": five[2]}, ["t2"]),
        ({"_id": {"$in": [five[0], five[4]]}}, ["t0", "t4"]),
        ({"_id": {"$gt": five[3]}}, ["t4"]),
        ({"priority": {"$gte": 1}}, ["t1", "t3"]),
        ({"tags": "even"}, ["t0", "t2", "t4"]),
        ({"metadata.n.m": {"$mod": [3, 0]}}, ["t0", "t3"]),
        ({"metadata": {"n": {"m": 4}}}, ["t4"]),
        ({"requested_resources.memory": {"$lt": 2 * 2**30}}, ["t0"]),
        ({"requested_resources.memory": {"$gt": "4 GiB"}}, ["t4"]),
        ({"name": {"$regex": "^T[12]$", "$options": "i"}}, ["t1", "t2"]),
        ({"$or": [{"name": "t1"}, {"$nor": [{"priority": {"$gte": 0}}]}]}, ["t1"]),
        ({"_created": {"$gte": created}}, ["t0", "t1", "t2", "t3", "t4"]),
        ({"_created": {"$lt": created}}, []),
        ({"execution": None, "name": {"$not": {"$in": ["t0", "t1", "t2"]}}}, ["t3", "t4"]),
        ({"state": "inactive", "hold": False, "timeout": {"$exists": False}, "name": "t3"}, ["t3"]),
    ]:
        assert (condition, names(provider, where=condition, sort="name")) == (condition, expected)


def test_order_and_pages(provider: Api, five: list[str]) -> None:
    assert names(provider, sort="-priority,name") == ["t1", "t3", "t0", "t2", "t4"]
    assert names(provider, sort='[("priority", 1), ("name", -1)]') == ["t4", "t2", "t0", "t3", "t1"]
    assert names(provider, sort="-metadata.n.m", max_results="2", page="2") == ["t2", "t1"]
    page = provider.get("/tasks?max_results=2&page=3").get_json()
    assert page["_meta"] == {"page": 3, "max_results": 2, "total": 5}
    assert provider.get("/tasks?max_results=100000").get_json()["_meta"]["max_results"] == 1000
    assert provider.get("/tasks?page=9").get_json()["_meta"]["total"] == 5


def test_fields_are_shown_or_left_out_as_asked(provider: Api, five: list[str]) -> None:
    automatic = {"_id", "_created", "_updated", "_etag"}
    shown = provider.get(f"/tasks/{five[0]}{query(projection={'name': 1, 'metadata.n': 1})}").get_json()
    assert shown.keys() == automatic | {"name", "metadata"}
    rest = provider.get(f"/tasks/{five[0]}{query(projection={'metadata.n': 0, 'tags': 0, 'dependencies': 0})}")
    assert rest.get_json()["metadata"] == {}
    assert not {"tags", "dependencies"} & rest.get_json().keys()


def test_a_task_shows_its_parents_and_children(provider: Api) -> None:
    parent, child = (provider.post("/tasks", {"command": "true"}).get_json()["_id"] for _ in range(2))
    provider.patch(f"/tasks/{parent}", {"continuations": [child]})
    assert provider.get(f"/tasks/{parent}").get_json()["continuations"] == [child]
    shown = {task["_id"]: task for task in provider.get("/tasks").get_json()["_items"]}
    assert shown[child]["dependencies"] == [{"task": parent, "on": "success"}]
    edges = provider.get(f"/continuations{query(where={'parent': parent})}").get_json()["_items"]
    assert [(edge["parent"], edge["child"], edge["on"], edge["settled"]) for edge in edges] == [
        (parent, child, "success", False)
    ]
    provider.post(f"/tasks/{child}/cancel")
    assert provider.get(f"/tasks/{parent}").get_json()["continuations"] == []


def test_a_known_revision_is_not_sent_again(provider: Api, five: list[str]) -> None:
    first = provider.get(f"/tasks/{five[0]}")
    again = provider.get(f"/tasks/{five[0]}", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.get_data()) == (304, b"")
    provider.patch(f"/tasks/{five[0]}", {"name": "new"})
    assert provider.get(f"/tasks/{five[0]}", headers={"If-None-Match": first.headers["ETag"]}).status_code == 200
    assert provider.get(f"/tasks/{five[0]}", headers={"If-Modified-Since": "soon"}).status_code == 200


def test_a_reference_can_be_shown_as_the_document(context: Context, provider: Api, five: list[str]) -> None:
    sample = {"task": five[0], "time": "Tue, 02 Apr 2013 10:29:13 GMT", "resident_memory_bytes": 256}
    provider.post("/memory_usage", sample)
    context.storage.db["tasks"].update_one({"_id": ObjectId(five[0])}, {"$set": {"class_key": "secret"}})
    shown = provider.get(f"/memory_usage{query(embedded={'task': 1})}").get_json()["_items"][0]
    assert (shown["task"]["name"], shown["resident_memory_bytes"]) == ("t0", 256)
    assert "secret" not in json.dumps(shown)


@pytest.mark.parametrize(("resource", "field"), [(r, field) for r, fields in HIDDEN.items() for field in fields])
def test_a_hidden_field_is_not_read_filtered_sorted_or_projected(
    context: Context, admin: Api, resource: str, field: str
) -> None:
    collection = context.storage.db["executions" if resource == "execution_history" else resource]
    collection.insert_one({"name": "x", "digest": "other", field: "secret", "task": ObjectId()})
    assert "secret" not in admin.get(f"/{resource}").get_data(as_text=True)
    for parameters in (
        {"where": {field: "secret"}},
        {"where": {"$or": [{field: {"$regex": "^s"}}]}},
        {"where": {field: {"$exists": True}}},
        {"where": {f"{field}.x": 1}},
        {"sort": field},
        {"sort": f'[("{field}", -1)]'},
        {"projection": {field: 1}},
        {"projection": {field: 0}},
    ):
        answer = admin.get(f"/{resource}{query(**parameters)}")
        assert (parameters, answer.status_code) == (parameters, 400)
        assert field in answer.get_json()["_error"]["message"]


@pytest.mark.parametrize("resource", RESOURCES)
def test_each_stored_field_of_each_resource_can_be_asked_for(admin: Api, resource: str) -> None:
    for field, rules in RESOURCES[resource].items():
        if "virtual" in rules.get("meta", {}):
            continue
        for parameters in ({"where": {field: None}}, {"sort": f"-{field}"}, {"projection": {field: 1}}):
            answer = admin.get(f"/{resource}{query(**parameters)}")
            assert (parameters, answer.status_code) == (parameters, 200)


@pytest.mark.parametrize(
    "asked",
    [
        "where={",
        "where=name=='x'",
        "where=[]",
        'where={"$where":"sleep(9999)"}',
        'where={"$expr":{"$gt":[1,0]}}',
        'where={"name":{"$regex":"("}}',
        'where={"name":{"$regex":"a","$options":"y"}}',
        'where={"_id":"short"}',
        'where={"_created":"yesterday"}',
        'where={"priority":123456789012345678901234567890}',
        'where={"nothing":1}',
        'where={"name":"\\ud800"}',
        "sort=nothing",
        "sort=[(",
        'sort=[("name",5)]',
        "projection={",
        'projection={"name":1,"tags":0}',
        'embedded={"name":1}',
        "embedded=[",
        "max_results=inf",
        "max_results=-5",
        "page=0",
        "page=99999999999999999999999",
        "wher={}",
        "where={}&where={}",
        "pretty",
        "aggregate={}",
    ],
)
def test_a_query_that_cannot_be_understood_is_a_400(provider: Api, asked: str) -> None:
    answer = provider.get(f"/tasks?{quote(asked, safe='=&')}")
    assert answer.status_code == 400
    assert answer.get_json()["_error"]["message"]


def test_a_query_on_one_document_is_checked_too(provider: Api, five: list[str]) -> None:
    assert provider.get(f"/tasks/{five[0]}?where={{}}").status_code == 400
    assert provider.get(f"/tasks/{five[0]}?projection={{").status_code == 400


def test_heads_and_options_are_answered(provider: Api, five: list[str]) -> None:
    head = provider.call("HEAD", f"/tasks/{five[0]}")
    assert (head.status_code, head.get_data()) == (200, b"")
    assert provider.call("OPTIONS", "/tasks").status_code == 200


def test_odd_names_and_numbers_come_back_unchanged(provider: Api) -> None:
    inputs = {"c.x": 1, "$ref": 2, "": 3, "😀": [float("inf"), {"a.b": -0.5}], "deep": {"$where": "x"}}
    posted = provider.post("/tasks", {"model": "m", "inputs": inputs, "metadata": {"a.b": {"": None}}})
    assert posted.status_code == 201, posted.get_data(as_text=True)
    task = provider.get(f"/tasks/{posted.get_json()['_id']}").get_json()
    assert (task["inputs"], task["metadata"]) == (inputs, {"a.b": {"": None}})
