"""Requests that mean harm: each gets a clear answer soon, and leaves the server and what it keeps as they were."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import ObjectId
from flask import Flask
from werkzeug.test import TestResponse

from banyan.config import Limits, Models, ServerSettings
from banyan.queue.context import Context
from tests.integration.conftest import Api

RESOURCES = {"cores": 1, "memory": 2**30}
IDS = [f"{number:024x}" for number in range(1, 2001)]


def send(api: Api, method: str, path: str, body: Any, headers: Mapping[str, str] | None = None) -> TestResponse:
    """A request with a body that is sent as it is, where it is no JSON value."""
    data = body if isinstance(body, (str, bytes)) else json.dumps(body)
    return api.call(method, path, data=data, headers={"Content-Type": "application/json", **(headers or {})})


def told(answer: TestResponse) -> str:
    return answer.get_data(as_text=True)


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


class TestBodies:
    """What is wrong with a body as such, wherever it is sent."""

    def test_what_no_body_may_be_is_told(self, provider: Api) -> None:
        task = '{"command": "true"}'
        for body, headers, reason in (
            ('{"command": "x", "command": "y"}', {}, "'command' appears twice"),
            (f'{{"metadata": {{"a": {nested(99)}}}}}', {}, "deeper than 100 levels"),
            (nested(100_000), {}, "too deeply"),
            (b"\xc0\xae", {}, "not UTF-8"),
            (b"\xef\xbb\xbf" + task.encode(), {}, "BOM"),
            (task.encode("utf-16"), {}, "not UTF-8"),
            ("9" * 5000, {}, "cannot be read"),
            (task, {"Content-Encoding": "gzip"}, "as it is"),
            (task, {"Content-Type": "text/plain"}, "application/json"),
            (task, {"Content-Type": "multipart/form-data; boundary="}, "application/json"),
            ("", {}, "empty"),
        ):
            answer = send(provider, "POST", "/tasks", body, headers)
            assert (answer.status_code, reason in told(answer)) == (400, True), (body[:40], told(answer))

    def test_values_that_cannot_be_kept_are_named(self, provider: Api) -> None:
        for body, field in (
            ('{"priority": 9223372036854775808}', "priority"),
            ('{"priority": 1e400}', "priority"),
            ('{"timeout": 1e400}', "timeout"),
            ('{"timeout": NaN}', "timeout"),
            ('{"requested_resources": {"cores": NaN}}', "cores"),
            ('{"name": "a\\u0000b"}', "name"),
            ('{"name": "\\ud800"}', "name"),
            ('{"metadata": {"\\udfff": 1}}', "metadata"),
            ('{"metadata": {"a\\u0000": 1}}', "metadata"),
            ('{"metadata": {"a": 18446744073709551616}}', "metadata"),
            (f'{{"metadata": {{"a": {nested(64)}}}}}', "metadata"),
        ):
            answer = send(provider, "POST", "/tasks", body)
            assert (answer.status_code, field in told(answer)) == (422, True), (body[:60], told(answer))

    def test_depth_is_looked_at_where_no_schema_does(self, provider: Api, worker: Api) -> None:
        task = provider.post("/tasks", {"command": "true"}).get_json()["_id"]
        id = worker.post("/workers", {"name": "w", "resources": RESOURCES}).get_json()["_id"]
        for api, method, path, body in (
            (provider, "PATCH", "/tasks", f'[{{"_id": {nested(200)}}}]'),
            (worker, "PATCH", f"/tasks/{task}", f'{{"state": {nested(200)}, "update_execution_data": {{}}}}'),
            (worker, "POST", f"/workers/{id}/report", f'{{"time": {nested(200)}}}'),
        ):
            answer = send(api, method, path, body)
            assert (answer.status_code, "deeper than 100 levels" in told(answer)) == (400, True)


class TestCosts:
    """What would take minutes or all memory: it is refused before it does."""

    def test_one_request_makes_so_many_edges_at_most(self, provider: Api) -> None:
        edits = [{"targets": IDS[:1000], "values": IDS[1000:]}]
        answer = send(provider, "POST", "/tasks/add_continuations", edits)
        assert (answer.status_code, "1000000 edges" in told(answer)) == (413, True)
        answer = send(provider, "POST", "/tasks/remove_continuations", [{}] * 10_001)
        assert (answer.status_code, "10001 items" in told(answer)) == (413, True)

    def test_a_worker_reports_so_much_at_once(self, worker: Api) -> None:
        id = worker.post("/workers", {"name": "w", "resources": RESOURCES}).get_json()["_id"]
        for name in ("reports", "memory_usage"):
            answer = send(worker, "POST", f"/workers/{id}/report", {name: [{}] * 10_001})
            assert (answer.status_code, "10001 items" in told(answer)) == (413, True)

    def test_a_body_of_nothing_but_faults_is_not_told_them_all(self, provider: Api) -> None:
        unknown = {f"field {number}": 1 for number in range(100_000)}
        wrong = {f"name {number}": 1 for number in range(100_000)}
        for body in (unknown, {"requested_resources": unknown}, {"env": wrong}, {"x" * 1_000_000: 1}):
            answer = send(provider, "POST", "/tasks", {"command": "true", **body})
            assert (answer.status_code, len(told(answer)) < 5000) == (422, True)
        answer = send(provider, "POST", "/tasks", [{"_id": "x" * 10_000}] * 100)
        assert (answer.status_code, len(told(answer)) < 200_000) == (422, True)
        answer = send(provider, "PATCH", "/tasks", [{"_id": "x" * 10_000}, {"_id": [1]}])
        assert (answer.status_code, len(told(answer)) < 5000) == (200, True)

    def test_an_id_that_is_given_twice_is_found_at_once(self, provider: Api) -> None:
        ids = [f"{number:024x}" for number in range(1, 50_001)]
        task = provider.post("/tasks", {"command": "true"}).get_json()["_id"]
        answer = send(provider, "POST", f"/tasks/{task}/add_continuations", [*ids, ids[-1]])
        assert (answer.status_code, f"{ids[-1]} appears twice" in told(answer)) == (422, True)

    def test_a_sweep_does_not_blow_up_few_words(self, provider: Api) -> None:
        large = {"grid": {"a": ["y" * 100_000]}}
        answer = send(provider, "POST", "/sweeps", {"command": "{a}" * 100_000, **large})
        assert (answer.status_code, "longer than 1000000 characters" in told(answer)) == (422, True)
        names = {"{" * length: [0] for length in range(1, 100)}
        answer = send(provider, "POST", "/sweeps", {"command": "{" * 100_000, "grid": names})
        assert (answer.status_code, "braces" in told(answer)) == (422, True)
        shared = {"grid": {"a": ["y" * 5_000_000], "b": [0] * 10_000}}
        answer = send(provider, "POST", "/sweeps", {"model": "m", **shared})
        assert (answer.status_code, "max_submission_bytes" in told(answer)) == (413, True)


class TestQueries:
    """Filters, pages and headers."""

    def test_numbers_paths_and_ranges_that_make_no_sense(self, provider: Api) -> None:
        deep = json.dumps({"metadata." + "a." * 150 + "b": 1})
        for query in (
            {"page": "000000000001" + "9" * 30},
            {"page": "9" * 30},
            {"page": "\N{SUPERSCRIPT TWO}"},
            {"max_results": "000000000001" + "9" * 5000},
            {"where": deep},
            {"sort": "metadata." + "a" * 2000},
            {"projection": deep},
            {"where": nested(5000)},
            {"projection": nested(200)},
            {"embedded": '{"execution": 1, "execution": 1}'},
            {"sort": "[" + "(" * 5000},
            {f"p{number}": "" for number in range(5000)},
        ):
            answer = provider.get("/tasks", query_string=query)
            assert answer.status_code == 400, (list(query), told(answer)[:200])

    def test_no_header_makes_the_server_fail(self, app: Flask, provider: Api) -> None:
        task = provider.post("/tasks", {"command": "true"}).get_json()["_id"]
        basic = app.test_client().get("/tasks", headers={"Authorization": "Basic \xe9\xe9"})
        assert basic.status_code == 401
        for name, value, status in (
            ("If-Match", '\xff"' * 100, 412),
            ("Idempotency-Key", "\x00", 400),
            ("Idempotency-Key", "k" * 256, 400),
            ("X-HTTP-Method-Override", "DELETE", 200),
            ("X-Method-Override", "DELETE", 200),
        ):
            method = "PATCH" if status == 412 else "POST"
            path = f"/tasks/{task}" if status == 412 else f"/tasks/{task}/cancel"
            assert send(provider, method, path, {"priority": 1}, {name: value}).status_code == status
        assert provider.get(f"/tasks/{task}").get_json()["state"] == "cancelled"
        for name in ("Accept", "If-None-Match", "Range", "Host", "Accept-Language", "Cookie"):
            assert provider.get(f"/tasks/{task}", headers={name: "\xff;q=zz,,/" * 50}).status_code == 200

    def test_a_redirection_stays_on_this_server(self, provider: Api) -> None:
        answer = provider.get("/models//evil.example", headers={"Host": "evil.example"})
        assert (answer.status_code, answer.headers["Location"]) == (308, "/models/evil.example")
        answer = provider.get("//evil.example//x?a=b")
        assert answer.headers.get("Location", "/").startswith("//") is False

    def test_methods_that_nobody_knows_are_not_counted_one_by_one(self, provider: Api) -> None:
        for number in range(20):
            assert provider.call(f"BREW{number}", "/tasks").status_code == 405
        metrics = told(provider.get("/metrics"))
        assert "BREW" not in metrics
        assert 'method="(other)",route="(none)"' in metrics or 'method="(other)",route="/tasks"' in metrics

    def test_the_name_of_a_model_is_limited_as_it_is_in_a_task(self, admin: Api) -> None:
        for name in ("x" * 201, "a%00b"):
            assert admin.put(f"/models/{name}/defaults", {}).status_code == 422
        assert admin.put(f"/models/{'x' * 200}/defaults", {}).status_code == 200


class TestTime:
    """A regular expression that tries all there is: MongoDB stops, and the server says so."""

    @pytest.fixture
    def settings(self) -> ServerSettings:
        return ServerSettings(models=Models(path=()), limits=Limits(query_seconds=0.1))

    @pytest.fixture
    def many(self, context: Context, provider: Api) -> int:
        """Tasks, samples, attempts, edges and sweeps that take such an expression seconds."""
        text = "a" * 40 + "!"
        shared: dict[str, Any] = {"owner": text, "metadata": {"x": text}, "state": "terminated", "queue": "default"}
        shared |= {"exit_status": text, "host": text, "on": text, "_etag": "x"}
        for name in ("tasks", "executions", "memory_usage", "continuations", "sweeps", "workers"):
            own = ({"_id": ObjectId(), "parent": ObjectId(), "name": f"{text}{n}", **shared} for n in range(2000))
            context.storage.db[name].insert_many(own)
        return 2000

    def test_every_way_to_filter_has_a_bound(self, context: Context, provider: Api, admin: Api, many: int) -> None:
        def slow(field: str) -> dict[str, str]:
            return {"where": json.dumps({field: {"$regex": "(a+)+$"}})}

        answers = {
            "tasks": provider.get("/tasks", query_string=slow("metadata.x")),
            "a page far behind": provider.get("/tasks", query_string={**slow("name"), "page": "9"}),
            "attempts": provider.get("/execution_history", query_string=slow("exit_status")),
            "samples": provider.get("/memory_usage", query_string=slow("owner")),
            "edges": provider.get("/continuations", query_string=slow("on")),
            "sweeps": provider.get("/sweeps", query_string=slow("metadata.x")),
            "workers": provider.get("/workers", query_string=slow("host")),
            "statistics": provider.get("/statistics", query_string=slow("metadata.x")),
            "bulk change": admin.patch("/tasks", {"priority": 1}, query_string=slow("metadata.x")),
            "bulk count": admin.patch("/tasks", {"priority": 1}, query_string={**slow("name"), "dry_run": "true"}),
            "bulk cancellation": admin.patch("/tasks", {"state": "cancelled"}, query_string=slow("metadata.x")),
            "bulk deletion": admin.delete("/tasks", query_string=slow("metadata.x")),
        }
        bounded = {name: (answer.status_code, "took too long" in told(answer)) for name, answer in answers.items()}
        assert bounded == dict.fromkeys(answers, (400, True))
        assert context.storage.db["tasks"].count_documents({}) == many


class TestSizes:
    """How much may be in one answer."""

    @pytest.fixture
    def settings(self) -> ServerSettings:
        limits = Limits(max_answer_bytes=100_000, max_body_bytes=50_000)
        return ServerSettings(models=Models(path=()), limits=limits)

    def test_an_answer_has_so_many_bytes_at_most(self, provider: Api) -> None:
        parent = provider.post("/tasks", {"command": "true", "metadata": {"x": "y" * 40_000}}).get_json()["_id"]
        small = [{"command": "true", "dependencies": [parent]} for _ in range(4)]
        assert provider.post("/tasks", small).status_code == 201
        assert provider.get("/tasks").status_code == 200
        for _ in range(2):
            assert provider.post("/tasks", {"command": "true", "metadata": {"x": "y" * 40_000}}).status_code == 201
        answer = provider.get("/tasks")
        assert (answer.status_code, "limits.max_answer_bytes" in told(answer)) == (413, True)
        assert provider.get("/tasks?max_results=2").status_code == 200
        assert provider.get('/tasks?projection={"name":1}').status_code == 200
        assert provider.get("/continuations").status_code == 200
        embedded = provider.get('/continuations?embedded={"parent":1}')
        assert (embedded.status_code, "limits.max_answer_bytes" in told(embedded)) == (413, True)

    def test_a_body_has_so_many_bytes_at_most(self, provider: Api) -> None:
        task = '{"command": "true"}'
        assert send(provider, "POST", "/tasks", task.ljust(50_000)).status_code == 201
        answer = send(provider, "POST", "/tasks", task.ljust(50_001))
        assert (answer.status_code, "max_body_bytes" in told(answer)) == (413, True)


def test_a_time_before_1970_is_a_time(provider: Api, worker: Api, context: Context) -> None:
    provider.post("/tasks", {"command": "true", "state": "available"})
    id = worker.post("/workers", {"name": "w", "resources": RESOURCES}).get_json()["_id"]
    claim = {"request": "r", "resources": RESOURCES, "max_tasks": 1, "held": [], "wait": 0}
    (grant,) = worker.post(f"/workers/{id}/claim", claim).get_json()["tasks"]
    sample = {"task": grant["_id"], "execution": grant["execution"], "time": "1900-01-01T00:00:00"}
    assert worker.post("/memory_usage", [{**sample, "resident_memory_bytes": 1}]).status_code == 201
    times = [each["time"] for each in context.storage.db["memory_usage"].find()]
    assert times == [datetime(1900, 1, 1, tzinfo=UTC)]


def test_a_report_that_is_refused_changes_nothing(provider: Api, worker: Api, context: Context) -> None:
    provider.post("/tasks", {"command": "true", "state": "available"})
    id = worker.post("/workers", {"name": "w", "resources": RESOURCES}).get_json()["_id"]
    claim = {"request": "r", "resources": RESOURCES, "max_tasks": 1, "held": [], "wait": 0}
    (grant,) = worker.post(f"/workers/{id}/claim", claim).get_json()["tasks"]
    end = {"execution": grant["execution"], "token": grant["token"], "exit_status": "success"}
    sample = {"task": grant["_id"], "execution": grant["execution"], "time": "9999-12-31T23:59:59"}
    before = context.storage.db.command("dbHash")["collections"]
    for body in (
        {"reports": [end], "memory_usage": [{**sample, "resident_memory_bytes": 1}], "time": "1970-01-01T00:00:00"},
        {"reports": [end, {**end, "exit_code": "x"}]},
        {"reports": [{**end, "result": "x" * 200_000}]},
    ):
        answer = worker.post(f"/workers/{id}/report", body)
        assert (answer.status_code, context.storage.db.command("dbHash")["collections"]) == (422, before)


def test_a_ghost_does_not_keep_the_worker_alive_that_has_its_task(provider: Api, worker: Api, context: Context) -> None:
    task = provider.post("/tasks", {"command": "true", "state": "available"}).get_json()["_id"]
    claim = {"resources": RESOURCES, "max_tasks": 1, "held": [], "wait": 0}
    first, second = (worker.post("/workers", {"name": "w", "resources": RESOURCES}).get_json()["_id"] for _ in "ab")
    (ghost,) = worker.post(f"/workers/{first}/claim", {**claim, "request": "1"}).get_json()["tasks"]
    assert worker.delete(f"/workers/{first}").status_code == 200
    assert worker.post(f"/workers/{second}/claim", {**claim, "request": "2"}).get_json()["tasks"]
    before = context.storage.db["workers"].find_one({"_id": ObjectId(second)})
    said = {"token": ghost["token"], "progress": {"fraction": 0.5}}
    assert worker.post(f"/tasks/{task}/update_execution_data", said).status_code == 409
    assert context.storage.db["workers"].find_one({"_id": ObjectId(second)}) == before
