"""The audit log: one line for each attempt to change something, whoever made it, and nothing secret in it."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from banyan.api.audit import Trail
from banyan.api.routes import ROUTES
from banyan.config import Models, ServerLog, ServerSettings
from banyan.errors import SetupError
from tests.integration.conftest import Api
from tests.support.access import Things

SECRET = "s3cr3t-text"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "audit.log"


@pytest.fixture
def settings(log: Path) -> ServerSettings:
    return ServerSettings(models=Models(path=()), log=ServerLog(audit=str(log)))


@pytest.fixture
def things(provider: Api, worker: Api, admin: Api) -> Things:
    return Things(provider.call, worker.call, admin.call, SECRET)


def entries(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def last(log: Path) -> dict[str, Any]:
    """The newest line without its time and address, which every line has."""
    entry = entries(log)[-1]
    assert (entry.pop("time")[-6:], entry.pop("address")) == ("+00:00", "127.0.0.1")
    return entry


def test_a_change_is_told_with_who_and_what_but_never_with_its_values(log: Path, provider: Api) -> None:
    made = provider.post("/tasks", [{"command": SECRET, "env": {"X": SECRET}}, {"name": SECRET}]).get_json()["_items"]
    alice = {"user": "alice", "role": "provider"}
    ids = [item["_id"] for item in made]
    change: dict[str, Any] = {"method": "POST", "route": "/tasks", "status": 201, "ids": ids, "count": 2}
    assert last(log) == alice | change | {"fields": ["command", "env", "name"]}

    provider.patch(f"/tasks/{ids[0]}", {"state": "available", "stdin": SECRET})
    change = {"method": "PATCH", "route": "/tasks/<task_id>", "status": 200, "ids": ids[:1], "count": 1}
    change |= {"target": {"task_id": ids[0]}, "fields": ["state", "stdin"], "values": {"state": "available"}}
    assert last(log) == alice | change

    provider.patch('/tasks?where={"name":{"$exists":true}}', {"hold": True})
    change = {"method": "PATCH", "route": "/tasks", "status": 200, "ids": ids[1:], "count": 1}
    assert last(log) == alice | change | {"fields": ["hold"], "values": {"hold": True}}

    assert len(entries(log)) == 3
    assert SECRET not in log.read_text()


def test_many_ids_are_counted_and_some_are_named(log: Path, provider: Api) -> None:
    provider.post("/tasks", [{"name": "x"}] * 50)
    assert (len(last(log)["ids"]), last(log)["count"]) == (20, 50)


def test_users_queues_and_workers_are_told_with_what_was_decided(log: Path, admin: Api, things: Things) -> None:
    made = admin.post("/users", {"name": "carol", "role": "admin", "expires": "30d"}).get_json()
    values = {"name": "carol", "role": "admin", "expires": "30d"}
    assert (last(log)["user"], last(log)["values"]) == ("root", values)
    rotated = admin.post("/users/carol/rotate", {"expires": None}).get_json()
    assert (last(log)["target"], last(log)["values"]) == ({"name": "carol"}, {"expires": None})
    admin.delete("/users/carol")
    assert (last(log)["method"], last(log)["target"], last(log)["status"]) == ("DELETE", {"name": "carol"}, 204)
    admin.patch("/queues/default", {"paused": True})
    assert (last(log)["target"], last(log)["values"]) == ({"name": "default"}, {"paused": True})
    admin.put("/models/m/defaults", {SECRET: 1})
    assert (last(log)["target"], last(log).keys() & {"fields", "values"}) == ({"name": "m"}, set())
    node = things.worker
    assert (last(log)["user"], last(log)["ids"]) == ("node", [node])
    admin.patch(f"/workers/{node}", {"state": "draining"})
    assert (last(log)["target"], last(log)["values"]) == ({"worker_id": node}, {"state": "draining"})
    text = log.read_text()
    assert not [token for token in (made["token"], rotated["token"]) if token in text]


def test_what_was_refused_is_told_also_when_it_was_reading(
    log: Path, app: Flask, provider: Api, other: Api, things: Things
) -> None:
    task = things.waiting
    other.post(f"/tasks/{task}/cancel")
    assert (last(log)["user"], last(log)["status"], last(log)["target"]) == ("bob", 403, {"task_id": task})
    provider.get("/users")
    assert (last(log)["user"], last(log)["route"], last(log)["status"]) == ("alice", "/users", 403)
    stranger = Api(client=app.test_client(), token=SECRET)
    for path in ("/tasks", f"/nothing/{SECRET}", f"/users/{SECRET * 100}?where={SECRET}"):
        stranger.get(path)
        assert (last(log)["user"], last(log)["role"], last(log)["status"]) == (None, None, 401)
    assert max(map(len, log.read_text().splitlines())) < 1000
    other.patch("/tasks", [{"_id": task, "name": SECRET}])
    assert (last(log)["status"], last(log)["refused"], last(log)["ids"]) == (200, 1, [task])
    provider.post("/tasks", {"nonsense": SECRET})
    assert (last(log)["status"], last(log).keys() & {"fields", "ids", "values"}) == (422, set())
    assert SECRET not in log.read_text()


def test_what_attempts_do_is_history_and_not_told_again(log: Path, worker: Api, provider: Api, things: Things) -> None:
    assert things.ended
    worker.post(f"/workers/{things.worker}/claim", {"request": "r", "resources": {}, "max_tasks": 0})
    worker.post(f"/workers/{things.worker}/report", {"reports": []})
    assert things.sample
    before = [(entry["method"], entry["route"]) for entry in entries(log)]
    assert before == [("POST", "/tasks"), ("POST", "/workers"), ("POST", "/tasks")]
    provider.post(f"/workers/{things.worker}/claim", {"request": "r", "resources": {}, "max_tasks": 0})
    assert (last(log)["user"], last(log)["status"]) == ("alice", 403)
    assert things.token not in log.read_text()


def test_reading_is_not_told_and_a_repetition_is_no_second_change(log: Path, provider: Api) -> None:
    provider.get("/tasks")
    for _ in range(2):
        provider.post("/tasks", {"name": "x"}, headers={"Idempotency-Key": "k"})
    provider.patch("/tasks?where={}&dry_run=true", {"name": "y"})
    told = [(entry["status"], entry.get("repeated"), entry.get("dry_run")) for entry in entries(log)]
    assert told == [(201, None, None), (201, True, None), (200, None, True)]


def test_every_route_that_changes_something_is_in_the_log(log: Path, admin: Api) -> None:
    quiet = {route.endpoint for route in ROUTES.values() if route.quiet}
    assert quiet == {
        "POST /memory_usage",
        "POST /workers/<objectid:worker_id>/claim",
        "POST /workers/<objectid:worker_id>/report",
        "PUT /execution_history/<objectid:execution>/stdout",
        "PUT /execution_history/<objectid:execution>/stderr",
        "PUT /execution_history/<objectid:execution>/files/<path:path>",
    }
    for route in ROUTES.values():
        if route.method == "GET" or route.quiet or "update_execution_data" in route.path:
            continue
        before = len(entries(log))
        admin.call(route.method, route.path.replace("<name>", "x").replace("<path:name>", "x"), json=[])
        assert (route.endpoint, len(entries(log))) == (route.endpoint, before + 1)


def test_the_file_is_its_owners_alone_and_begins_anew_when_it_is_moved(log: Path) -> None:
    trail = Trail(str(log))
    trail.check()
    trail.add({"n": 1})
    moved = log.with_suffix(".1")
    log.rename(moved)
    trail.add({"n": 2})
    trail.close()
    assert [entries(path) for path in (moved, log)] == [[{"n": 1}], [{"n": 2}]]
    assert log.stat().st_mode & 0o777 == 0o600


def test_many_write_whole_lines_into_one_file(log: Path) -> None:
    def write(number: int) -> None:
        trail = Trail(str(log))
        for n in range(200):
            trail.add({"who": number, "n": n, "text": "x" * number * 100})
        trail.close()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted((e["who"], e["n"]) for e in entries(log)) == [(who, n) for who in range(4) for n in range(200)]


def test_a_log_that_cannot_be_written_stops_the_start_and_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trail = Trail(str(tmp_path))
    with pytest.raises(SetupError, match=r"cannot write the audit log .*: Is a directory; see log\.audit"):
        trail.check()
    for _ in range(3):
        trail.add({"n": 1})
    assert [record.message for record in caplog.records] == [
        f"the audit log {tmp_path} cannot be written, changes go unrecorded: [Errno 21] Is a directory: '{tmp_path}'"
    ]


def test_without_a_file_the_lines_go_to_the_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    Trail("").check()
    Trail("").add({"text": "a\nb", "pid": os.getpid()})
    assert json.loads(capsys.readouterr().err) == {"text": "a\nb", "pid": os.getpid()}
