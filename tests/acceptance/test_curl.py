"""The queue from a shell with nothing but curl, the requests written as in the manual."""

import base64
import json
import subprocess
from typing import Any

import pytest

from tests.support.up import Up, eventually


class Curl:
    """Runs curl as the holder of a token, which goes as a user name without a password."""

    def __init__(self, up: Up, token: str) -> None:
        self.root = up.url
        self.authorization = "Authorization: Basic " + base64.b64encode(f"{token}:".encode()).decode()

    def __call__(self, *arguments: str, path: str) -> tuple[int, Any]:
        """The status and the decoded body of one request."""
        command = ["curl", "-s", "-w", "\n%{http_code}", "-H", self.authorization, *arguments, f"{self.root}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body)

    def send(self, method: str, path: str, body: str) -> tuple[int, Any]:
        """Send JSON, written as one would type it."""
        return self("-X", method, "-H", "Content-Type: application/json", "-d", body, path=path)


@pytest.fixture
def curl(up: Up) -> Curl:
    """curl with the provider's token."""
    return Curl(up, up.ready["provider_token"])


def test_a_task_is_posted_and_changed(curl: Curl) -> None:
    status, posted = curl.send("POST", "/tasks", '{"command": "test", "requested_resources": {"memory": "1 GiB"}}')
    assert (status, posted["state"]) == (201, "inactive")
    path = f"/tasks/{posted['_id']}"
    change = '{"requested_resources": {"cores": 1, "memory": "1 GiB"}}'
    assert curl.send("PATCH", path, change)[0] == 200
    assert curl(path=path)[1]["requested_resources"] == {"cores": 1, "memory": 1 << 30}


def test_a_parent_is_posted_with_its_continuations_and_both_run(curl: Curl) -> None:
    _, child = curl.send("POST", "/tasks", '{"name": "child", "command": "true"}')
    body = f'{{"name": "parent", "continuations": ["{child["_id"]}"]}}'
    status, parent = curl.send("POST", "/tasks", body)
    assert status == 201
    assert curl(path=f"/tasks/{parent['_id']}")[1]["continuations"] == [child["_id"]]
    assert curl.send("PATCH", f"/tasks/{parent['_id']}", '{"state": "available"}')[1]["state"] == "terminated"
    ended = eventually(lambda: curl(path=f"/tasks/{child['_id']}")[1], lambda task: bool(task["state"] == "terminated"))
    assert ended["exit_status"] == "success"


def test_memory_usage_is_posted_with_a_date(curl: Curl) -> None:
    _, task = curl.send("POST", "/tasks", '{"command": "test"}')
    sample = {"task": task["_id"], "time": "Tue, 02 Apr 2013 10:29:13 GMT", "resident_memory_bytes": 256}
    assert curl.send("POST", "/memory_usage", json.dumps(sample))[0] == 201
    query = f'/memory_usage?where={{"task":"{task["_id"]}"}}'
    found = curl("-g", path=query)[1]["_items"]
    assert [{name: each[name] for name in sample} for each in found] == [sample]


def test_filters_are_written_with_escaped_spaces(curl: Curl) -> None:
    _, task = curl.send("POST", "/tasks", '{"name": "task 1", "command": "test"}')
    status, found = curl("-g", path='/tasks?where={"name":%20"task%201"}')
    assert (status, [each["_id"] for each in found["_items"]]) == (200, [task["_id"]])
    status, found = curl("-g", path='/tasks?where={"retry_count":{"$lt":10}}')
    assert (status, found["_meta"]["total"] > 0) == (200, True)
    assert all(each["retry_count"] < 10 for each in found["_items"])
    narrow = f'/tasks?where={{"retry_count":{{"$lt":10}},"_id":"{task["_id"]}"}}'
    status, found = curl("-g", path=narrow)
    assert (status, [each["_id"] for each in found["_items"]]) == (200, [task["_id"]])


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ('{"command": "test"', 400, None),
        ('{"command": "test", "requested_resources": {"memory": "lots"}}', 422, "requested_resources"),
        ('{"command": "test", "colour": "red"}', 422, "colour"),
        ('{"command": "test", "queue": "nowhere"}', 422, "queue"),
    ],
)
def test_what_is_wrong_is_named(curl: Curl, body: str, status: int, field: str | None) -> None:
    answered, said = curl.send("POST", "/tasks", body)
    assert (answered, said["_status"]) == (status, "ERR")
    assert list(said["_issues"]) == [field] if field else said["_error"]["code"] == status


def test_nobody_gets_in_without_a_token_but_for_health(up: Up) -> None:
    stranger = Curl(up, "guess")
    assert stranger(path="/tasks")[0] == 401
    assert stranger(path="/health")[0] == 200
