"""Users, queues, samples, statistics, metrics, the OpenAPI document; and what happens when things break."""

import json
import logging
import re
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from flask import Flask
from pymongo import MongoClient

from banyan.api.app import create_app
from banyan.api.context import CONFIG_KEY
from banyan.api.openapi import document
from banyan.config import Limits, ServerSettings
from banyan.domain.roles import Role
from banyan.queue.context import Context
from banyan.queue.hub import Hub
from banyan.queue.report import Report, report
from banyan.storage.mongo import Storage
from tests.integration.conftest import Api
from tests.support.queue import SimulatedWorker

TIME = "Tue, 02 Apr 2013 10:29:13 GMT"


def test_a_users_token_is_shown_once_and_ends_when_it_is_rotated(app: Flask, context: Context, admin: Api) -> None:
    made = admin.post("/users", {"name": "carol", "role": "provider"})
    assert made.status_code == 201
    carol = Api(client=app.test_client(), token=made.get_json()["token"])
    assert carol.get("/tasks").status_code == 200
    stored = context.storage.db["users"].find_one({"name": "carol"})
    assert stored is not None
    assert carol.token not in str(stored)
    assert "token" not in admin.get("/users/carol").get_json()
    rotated = admin.post("/users/carol/rotate").get_json()["token"]
    assert carol.get("/tasks").status_code == 401
    assert Api(client=app.test_client(), token=rotated).get("/tasks").status_code == 200
    assert admin.delete("/users/carol").status_code == 204
    assert Api(client=app.test_client(), token=rotated).get("/tasks").status_code == 401
    assert [admin.delete("/users/carol").status_code, admin.post("/users/carol/rotate").status_code] == [404, 404]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "root", "role": "admin"}, "name"),
        ({"name": "", "role": "admin"}, "name"),
        ({"name": "a b", "role": "admin"}, "name"),
        ({"name": "../x", "role": "admin"}, "name"),
        ({"name": "x", "role": "king"}, "role"),
        ({"name": "x"}, "role"),
        ({"name": "x", "role": "admin", "token": "mine"}, "token"),
        ({"name": 5, "role": "admin"}, "name"),
        ({"name": "x", "role": "admin", "expires": "soon"}, "expires"),
        ({"name": "x", "role": "admin", "expires": "2001-01-31"}, "expires"),
        ({"name": "x", "role": "admin", "expires": "20990131"}, "expires"),
        ({"name": "x", "role": "admin", "expires": "2099"}, "expires"),
        ({"name": "x", "role": "admin", "expires": 0}, "expires"),
        ({"name": "x", "role": "admin", "expires": [1]}, "expires"),
        ({"name": "x", "role": "admin", "expires": 1e15}, "expires"),
        ({"name": "x", "role": "admin", "expires": "9000 weeks 1 day of"}, "expires"),
    ],
)
def test_a_wrong_user_is_refused(admin: Api, body: dict[str, object], field: str) -> None:
    answer = admin.post("/users", body)
    assert (answer.status_code, list(answer.get_json()["_issues"])) == (422, [field])


@pytest.mark.parametrize("expires", ["30d", 30 * 86_400, "2990-01-31", "Sun, 31 Jan 2990 10:00:00 GMT"])
def test_a_token_may_have_an_end(app: Flask, admin: Api, expires: object) -> None:
    made = admin.post("/users", {"name": "carol", "role": "provider", "expires": expires}).get_json()
    carol = Api(client=app.test_client(), token=made["token"])
    assert carol.get("/tasks").status_code == 200
    assert admin.get("/users/carol").get_json()["expires"] == made["expires"]
    assert made["expires"].endswith("GMT")


def test_an_expired_token_is_refused_and_told_so(app: Flask, context: Context) -> None:
    now = context.now()
    users = context.storage.users
    for name, role in (("carol", Role.PROVIDER), ("node", Role.WORKER), ("root", Role.ADMIN)):
        users.add(name, role, now)
        late = Api(client=app.test_client(), token=users.rotate(name, now, now - timedelta(seconds=1)))
        refused = late.get("/tasks")
        assert (refused.status_code, "expired on" in refused.get_json()["_error"]["message"]) == (401, True)
        assert late.token not in refused.get_data(as_text=True)


def test_a_new_token_keeps_the_date_unless_another_one_is_asked_for(context: Context, admin: Api) -> None:
    first = admin.post("/users", {"name": "carol", "role": "provider", "expires": "30d"}).get_json()["expires"]
    assert admin.post("/users/carol/rotate").get_json()["expires"] == first
    later = admin.post("/users/carol/rotate", {"expires": "60d"}).get_json()["expires"]
    assert later != first
    context.storage.db["users"].update_one({"name": "carol"}, {"$set": {"expires": context.now()}})
    assert admin.post("/users/carol/rotate").get_json()["_issues"].keys() == {"expires"}
    assert admin.post("/users/carol/rotate", {"expires": None}).get_json()["expires"] is None
    assert admin.post("/users/carol/rotate", {"role": "admin"}).get_json()["_issues"].keys() == {"role"}
    assert admin.get("/users/carol").get_json()["role"] == "provider"


def test_the_last_admin_cannot_be_removed(admin: Api) -> None:
    assert admin.delete("/users/root").status_code == 422
    admin.post("/users", {"name": "second", "role": "admin"})
    assert admin.delete("/users/second").status_code == 204
    assert admin.delete("/users/root").status_code == 422
    assert admin.get("/users").status_code == 200


def test_queues_are_made_paused_and_limited(admin: Api, provider: Api) -> None:
    assert [queue["name"] for queue in provider.get("/queues").get_json()["_items"]] == ["default"]
    made = admin.post("/queues", {"name": "night", "max_running": 5})
    assert made.status_code == 201
    shown = provider.get("/queues/night").get_json()
    assert (shown["paused"], shown["max_running"], shown["weight"]) == (False, 5, 1)
    changed = admin.patch("/queues/night", {"paused": True, "weight": 2.5, "max_running": None})
    assert changed.status_code == 200
    shown = provider.get("/queues/night").get_json()
    assert (shown["paused"], shown["max_running"], shown["weight"]) == (True, None, 2.5)
    assert shown["_etag"] == changed.get_json()["_etag"] != made.get_json()["_etag"]
    assert provider.post("/tasks", {"command": "true", "queue": "night"}).status_code == 201
    assert provider.post("/tasks", {"command": "true", "queue": "nowhere"}).get_json()["_issues"].keys() == {"queue"}


def test_a_queue_that_was_changed_meanwhile_is_not_changed(admin: Api) -> None:
    old = admin.get("/queues/default").get_json()["_etag"]
    assert admin.patch("/queues/default", {"weight": 2}, headers={"If-Match": f'"{old}"'}).status_code == 200
    assert admin.patch("/queues/default", {"weight": 3}, headers={"If-Match": f'"{old}"'}).status_code == 412
    assert admin.get("/queues/default").get_json()["weight"] == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "default"}, "name"),
        ({"name": "a/b"}, "name"),
        ({}, "name"),
        ({"name": "x", "weight": 0}, "weight"),
        ({"name": "x", "weight": float("nan")}, "weight"),
        ({"name": "x", "max_running": -1}, "max_running"),
        ({"name": "x", "paused": "yes"}, "paused"),
        ({"name": "x", "claims": 5}, "claims"),
    ],
)
def test_a_wrong_queue_is_refused(admin: Api, body: dict[str, object], field: str) -> None:
    answer = admin.post("/queues", body)
    assert (answer.status_code, list(answer.get_json()["_issues"])) == (422, [field])


def test_a_wrong_change_of_a_queue_is_refused(admin: Api) -> None:
    assert admin.patch("/queues/default", {"name": "other"}).status_code == 422
    assert admin.patch("/queues/default", {"weight": -1}).status_code == 422
    assert admin.patch("/queues/nowhere", {"weight": 1}).status_code == 404


def test_samples_are_stored_as_the_first_users_sent_them(provider: Api, worker: Api, admin: Api) -> None:
    task = provider.post("/tasks", {"command": "true"}).get_json()["_id"]
    sample = {"task": task, "time": TIME, "resident_memory_bytes": 256}
    for api in (provider, worker, admin):
        assert api.post("/memory_usage", sample).status_code == 201
    listed = provider.post("/memory_usage", [sample, sample | {"cpu_percent": 12.5, "virtual_memory_bytes": "1 kB"}])
    assert [item["_status"] for item in listed.get_json()["_items"]] == ["OK", "OK"]
    stored = provider.get(f'/memory_usage?where={{"task": "{task}"}}').get_json()["_items"]
    assert {(each["task"], each["time"], each["resident_memory_bytes"], each["owner"]) for each in stored} == {
        (task, TIME, 256, "alice")
    }
    assert (len(stored), stored[-1]["virtual_memory_bytes"]) == (5, 1000)


def test_samples_of_others_and_of_nothing_are_refused_and_none_is_kept(provider: Api, other: Api) -> None:
    task = provider.post("/tasks", {"command": "true"}).get_json()["_id"]
    sample = {"task": task, "time": TIME, "resident_memory_bytes": 256}
    assert other.post("/memory_usage", sample).status_code == 403
    nowhere = provider.post("/memory_usage", [sample, sample | {"task": str(ObjectId())}])
    assert (nowhere.status_code, nowhere.get_json()["_items"][0]) == (422, {"_status": "OK"})
    for wrong in ({"task": "x"}, {"time": "soon"}, {"resident_memory_bytes": -1}, {"resident_memory_bytes": None}):
        answer = provider.post("/memory_usage", sample | wrong)
        assert (answer.status_code, answer.get_json()["_issues"].keys()) == (422, wrong.keys())
    assert provider.get("/memory_usage").get_json()["_meta"]["total"] == 0


def test_statistics_count_and_measure(context: Context, provider: Api) -> None:
    provider.post("/tasks", [{"command": "true", "tags": ["a"]}, {"command": "true"}])
    now = context.now()
    ended = [
        {"_id": ObjectId(), "state": "terminated", "queue": "default", "exit_status": "success", "tags": ["a"]}
        | {"time_available": now.replace(microsecond=0), "time_started": now.replace(microsecond=0)}
        | {"time_terminated": now.replace(microsecond=1000 * i), "peak_memory_bytes": i, "_updated": now}
        for i in range(101)
    ]
    context.storage.db["tasks"].insert_many(ended)
    counted = provider.get("/statistics").get_json()
    assert (counted["total"], counted["states"], counted["exit_statuses"]) == (
        103,
        {"inactive": 2, "terminated": 101},
        {"success": 101},
    )
    assert counted["queues"] == {"default": {"inactive": 2, "terminated": 101}}
    assert counted["wait_seconds"] == {"min": 0, "median": 0, "p95": 0, "max": 0}
    assert counted["run_seconds"] == {"min": 0, "median": 0.05, "p95": 0.095, "max": 0.1}
    assert counted["peak_memory_bytes"] == {"min": 0, "median": 50, "p95": 95, "max": 100}
    assert counted["measured"] == 101
    assert counted["rates"] == {"submitted_per_minute": 103, "ended_per_minute": 101}
    before = now - timedelta(hours=1)
    context.storage.db["tasks"].update_one({"_id": ended[0]["_id"]}, {"$set": {"_updated": before}})
    for moment in (before, now + timedelta(hours=1)):
        id = {"_id": str(ObjectId.from_datetime(moment))}
        assert provider.post("/tasks", {"command": "true", **id}).status_code == 201
    counted = provider.get("/statistics").get_json()
    assert (counted["total"], counted["rates"]) == (105, {"submitted_per_minute": 103, "ended_per_minute": 100})
    of_some = provider.get('/statistics?where={"tags": "a"}').get_json()
    assert (of_some["total"], of_some["measured"]) == (102, 101)
    assert of_some["rates"] == {"submitted_per_minute": 102, "ended_per_minute": 100}
    assert provider.get('/statistics?where={"tags": "a", "state": "inactive"}').get_json()["total"] == 1
    assert provider.get('/statistics?where={"nothing": 1}').status_code == 400


def test_what_no_worker_has_begun_is_counted_apart_from_what_runs(context: Context, admin: Api, provider: Api) -> None:
    admin.post("/queues", {"name": "night"})
    tasks = [{"command": "true", "queue": name, "state": "available"} for name in ("default", "default", "night")]
    provider.post("/tasks", tasks)
    worker = SimulatedWorker(context)
    worker.claim()
    begun = next(id for id, grant in worker.held.items() if grant["queue"] == "default")
    report(context, [Report(execution=begun, fields={"time_started": context.now()})])
    counted = provider.get("/statistics").get_json()
    assert (counted["states"], counted["assigned"]) == ({"running": 3}, {"default": 1, "night": 1})
    some = provider.get('/statistics?where={"queue": "night"}').get_json()
    assert (some["states"], some["assigned"]) == ({"running": 1}, {"night": 1})
    text = provider.get("/metrics").get_data(as_text=True)
    assert 'banyan_tasks{queue="default",state="running"} 2.0' in text
    assert 'banyan_tasks_assigned{queue="default"} 1.0' in text


def test_metrics_are_prometheus_text(provider: Api) -> None:
    provider.post("/tasks", {"command": "true"})
    answer = provider.get("/metrics")
    text = answer.get_data(as_text=True)
    assert answer.content_type.startswith("text/plain")
    assert 'banyan_tasks{queue="default",state="inactive"} 1.0' in text
    assert 'banyan_requests_total{method="POST",route="/tasks",status="201"} 1.0' in text


def test_the_openapi_document_has_every_route_that_is_served(app: Flask, provider: Api) -> None:
    served = provider.get("/openapi.json").get_json()
    assert served["openapi"].startswith("3.1")
    documented = {re.sub(r"{[a-z]+}", "*", path): set(item) for path, item in served["paths"].items()}
    for rule in app.url_map.iter_rules():
        if rule.endpoint not in ("home", "static"):
            methods = {method.lower() for method in rule.methods or ()} - {"head", "options"}
            assert methods <= documented[re.sub(r"<[^>]*>", "*", rule.rule)], rule
    assert served == json.loads(json.dumps(document(), default=str))


def test_every_reference_of_the_openapi_document_leads_somewhere() -> None:
    whole = document()

    def check(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                found: Any = whole
                for step in value["$ref"].removeprefix("#/").split("/"):
                    found = found[step]
            for each in value.values():
                check(each)
        elif isinstance(value, list):
            for each in value:
                check(each)

    check(whole)
    assert whole["paths"]["/health"]["get"]["security"] == []
    assert whole["components"]["schemas"]["tasks"]["properties"]["priority"]["type"] == "integer"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "empty"),
        (b"{", "line 1, column 2"),
        (b'{"name": "a"\n "b"}', "line 2, column 2"),
        (b'{"name": 1, "name": 2}', "'name' appears twice"),
        (b"\xff\xfe{}", "UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 10_000, "the body"),
    ],
)
def test_a_malformed_body_is_a_400_that_says_where(provider: Api, body: bytes, told: str) -> None:
    answer = provider.call("POST", "/tasks", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert told in answer.get_json()["_error"]["message"]


@pytest.mark.parametrize("body", [b"null", b'"text"', b"5", b"[]", b"[[]]", b"true"])
def test_a_body_of_another_kind_is_a_422(provider: Api, body: bytes) -> None:
    assert provider.call("POST", "/tasks", data=body, content_type="application/json").status_code == 422


def test_a_form_is_not_taken_for_json(provider: Api) -> None:
    answer = provider.call("POST", "/tasks", data={"command": "true"})
    assert (answer.status_code, "application/json" in answer.get_data(as_text=True)) == (400, True)


class TestLimits:
    """Bodies and lists have a size limit."""

    @pytest.fixture
    def settings(self) -> ServerSettings:
        return ServerSettings(limits=Limits(max_body_bytes=1000, max_list_items=2))

    def test_too_large_is_a_413(self, provider: Api) -> None:
        assert provider.post("/tasks", {"command": "x" * 2000}).status_code == 413
        assert provider.post("/tasks", [{}, {}, {}]).status_code == 413
        assert provider.post("/tasks", [{}, {}]).status_code == 201


def test_while_mongodb_is_away_everything_is_a_503() -> None:
    client: MongoClient[dict[str, Any]] = MongoClient("mongodb://127.0.0.1:1", serverSelectionTimeoutMS=50)
    storage = Storage(client, "nowhere")
    app = create_app(Context(storage=storage, hub=Hub(storage), settings=ServerSettings()))
    for path in ("/health", "/tasks", "/metrics"):
        answer = app.test_client().get(path, headers={"Authorization": "Bearer some-token"})
        assert (path, answer.status_code, "Retry-After" in answer.headers) == (path, 503, True)
        assert answer.get_json()["_status"] == "ERR"
    client.close()


def _break() -> str:
    raise KeyError("secret detail")


def test_an_internal_error_shows_a_number_and_logs_the_rest(
    app: Flask, provider: Api, caplog: pytest.LogCaptureFixture
) -> None:
    app.add_url_rule("/broken", "broken", _break)
    with caplog.at_level(logging.ERROR, "banyan.api"):
        answer = provider.get("/broken")
    message = answer.get_json()["_error"]["message"]
    assert (answer.status_code, "secret" in message) == (500, False)
    assert message.split()[-1] in caplog.text
    assert "secret detail" in caplog.text
    assert provider.token not in caplog.text


def test_two_applications_stand_side_by_side(context: Context, provider: Api) -> None:
    second = create_app(Context(storage=context.storage, hub=context.hub, settings=context.settings))
    assert second.config[CONFIG_KEY] is not provider.client.application.config[CONFIG_KEY]
    assert Api(client=second.test_client(), token=provider.token).get("/tasks").status_code == 200
