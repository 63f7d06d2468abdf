"""Models through everything: commands and HTTP at the front, real host processes at the end."""

import json
import os
import signal
import uuid
from pathlib import Path
from typing import Any

import pytest
import requests

from banyan.client import Client
from banyan.errors import Invalid, NotFound
from tests.support.up import Up
from tests.support.waiting import eventually, processes_with

Document = dict[str, Any]


def probe(do: str, *, fields: Document | None = None, **inputs: Any) -> Document:
    """An available task of the model `probe`."""
    return {"model": "probe", "inputs": {"do": do, **inputs}, "state": "available"} | (fields or {})


def said(client: Client, task: str) -> str:
    """What the task has written to the file `said` so far."""
    try:
        return client.file(task, "said").decode()
    except NotFound:
        return ""


def ended(client: Client, *tasks: str) -> list[Document]:
    """The tasks, once they have ended."""
    client.wait(tasks, timeout=60)
    return [client.task(task) for task in tasks]


def test_a_model_is_run_and_its_result_printed(up: Up) -> None:
    done = up.run("run", "sum", "x=1", "y=2", "--wait")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"sum": 3}


def test_the_models_are_listed_with_who_has_them(up: Up, client: Client) -> None:
    models = {model["name"]: model for model in client.models()}
    assert {"sum", "shell_sum", "slow_sum", "portfolio", "monte_carlo", "fmi", "probe"} <= models.keys()
    assert models["sum"]["summary"] == "The sum of two numbers: the smallest model."
    (worker,) = client.workers({"pid": up.ready["pids"]["worker"]})
    assert worker["_id"] in [each["_id"] for each in models["sum"]["workers"]]


def test_a_task_that_its_model_refuses_does_not_exist(client: Client) -> None:
    tag = uuid.uuid4().hex
    with pytest.raises(Invalid, match="ValueError: the inputs do not fit"):
        client.submit(probe("raise in task", fields={"tags": [tag]}))
    with pytest.raises(Invalid, match="item 1"):
        client.submit([probe("echo", fields={"tags": [tag]}), probe("raise in task", fields={"tags": [tag]})])
    assert client.tasks({"tags": tag}).total == 0


def test_names_and_numbers_come_back_exactly(client: Client) -> None:
    inputs = {"c.x": 1, "CITYOPT.simulation_start": 0.5, "$ref": "$where", "": None, "\N{DECIDUOUS TREE}": float("inf")}
    task = client.submit(probe("echo") | {"inputs": {"do": "echo", **inputs}})["_id"]
    (done,) = ended(client, task)
    assert done["result"] == inputs
    assert done["inputs"] == {"do": "echo", **inputs}


def test_a_file_of_a_running_model_is_downloaded_before_its_end_and_a_cancellation_is_noticed(client: Client) -> None:
    task = client.submit(probe("wait for cancel"))["_id"]
    eventually(lambda: said(client, task) == "waiting")
    assert client.task(task)["state"] == "running"
    client.cancel(task)
    (done,) = ended(client, task)
    assert (done["state"], done["exit_status"]) == ("cancelled", "cancelled")
    assert said(client, task) == "noticed"


def test_a_model_that_ignores_its_cancellation_dies_with_its_processes_and_the_slot_goes_on(client: Client) -> None:
    mark = f"mark-{uuid.uuid4().hex}"
    fields = {"max_shutdown_time": 0.5, "requested_resources": {"cores": 2}}
    task = client.submit(probe("ignore cancel", mark=mark, fields=fields))["_id"]
    after = client.submit(probe("describe", fields={"requested_resources": {"cores": 2}}))["_id"]
    eventually(lambda: said(client, task) == "waiting")
    assert processes_with(mark)
    client.cancel(task)
    first, second = ended(client, task, after)
    assert (first["state"], second["exit_status"]) == ("cancelled", "success")
    assert not processes_with(mark)


def test_a_host_killed_in_the_middle_costs_one_attempt_of_its_own_task_alone(client: Client) -> None:
    task = client.submit(probe("wait for file"))["_id"]
    beside = client.submit(probe("wait for file"))["_id"]
    eventually(lambda: said(client, task) == said(client, beside) == "waiting")
    pid = int(eventually(lambda: client.attempts(task)[0].get("pid")) or 0)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(client.attempts(task)) == 2 and said(client, task) == "waiting")
    for each in (task, beside):
        _let_go_on(client, each)
    first, second = ended(client, task, beside)
    assert (first["exit_status"], second["exit_status"]) == ("success", "success")
    attempts = client.attempts(task)
    assert [each["exit_status"] for each in attempts] == ["failure (worker: model host died)", "success"]
    assert first["result"]["pid"] != pid
    assert (first["retry_count"], first["abandoned_count"]) == (0, 1)
    assert len(client.attempts(beside)) == 1


def _let_go_on(client: Client, task: str) -> None:
    """Make the file that the running task waits for; its directory is on this machine."""
    Path(client.file(task, "where").decode(), "go").touch()


def test_a_model_that_kills_every_host_is_blamed_the_third_time(client: Client) -> None:
    task = client.submit(probe("kill host", signal=int(signal.SIGKILL)))["_id"]
    (done,) = ended(client, task)
    assert done["exit_status"] == "failure (SIGKILL)"
    died = "failure (worker: model host died)"
    assert [each["exit_status"] for each in client.attempts(task)] == [died, died, "failure (SIGKILL)"]


def test_a_failure_keeps_its_traceback(up: Up, client: Client) -> None:
    task = client.submit(probe("raise", error="ValueError"))["_id"]
    (done,) = ended(client, task)
    assert done["exit_status"] == "failure (ValueError)"
    assert "ValueError: no such value" in client.attempts(task)[0]["error"]
    assert "ValueError: no such value" in up.run("show", task).stdout


def test_a_large_result_is_linked_and_can_be_downloaded(client: Client) -> None:
    task = client.submit(probe("give", value="large"))["_id"]
    (done,) = ended(client, task)
    assert (done["exit_status"], done["result_file"]) == ("success", "result.json")
    assert json.loads(client.file(task, done["result_file"])) == {"text": "x" * 100_000}


def test_inputs_are_taken_from_a_parents_result(client: Client) -> None:
    parent = client.submit(probe("echo", x=20, y=[1, 2]))["_id"]
    child = probe("echo", own=1) | {"input_refs": {"c.x": {"task": parent, "result": "x"}, "all": {"task": parent}}}
    (done,) = ended(client, client.submit(child)["_id"])
    assert done["result"] == {"own": 1, "c.x": 20, "all": {"x": 20, "y": [1, 2]}}
    assert "c.x" not in done["inputs"]


def test_default_inputs_lie_below_those_that_are_given(up: Up, client: Client) -> None:
    with Client(up.url, up.ready["admin_token"]) as admin:
        admin.set_model_defaults("shell_sum", {"x": 30, "y": 12})
    task = client.submit({"model": "shell_sum", "inputs": {"x": 1}, "state": "available"})["_id"]
    (done,) = ended(client, task)
    assert (done["inputs"], done["result"]) == ({"x": 1, "y": 12}, {"sum": 13})


def test_a_model_nobody_has_waits_and_explains_itself(client: Client) -> None:
    task = client.submit({"model": "no_such_model", "state": "available"})["_id"]
    assert "model:no_such_model" in client.explain(task)["summary"]
    client.cancel(task)


def test_curl_is_told_what_the_model_says(up: Up) -> None:
    answer = requests.post(
        f"{up.url}/tasks", json={"model": "sum", "inputs": {"x": 1}}, auth=(up.ready["provider_token"], ""), timeout=60
    )
    assert answer.status_code == 422
    assert answer.json()["_issues"] == {"model": "sum: ValueError: input 'y' is missing: give a number"}
