"""`/tasks` over HTTP: posting, changing, cancelling, retrying, deleting, and what each role may do."""

from typing import Any

import pytest
from bson import ObjectId

from banyan.queue.context import Context
from banyan.queue.report import Report, report
from tests.integration.conftest import Api
from tests.support.queue import SimulatedWorker

RELEASED = {"command": "true", "state": "available"}


def state_of(api: Api, task: str) -> str:
    return str(api.get(f"/tasks/{task}").get_json()["state"])


def test_a_posted_task_reads_back_with_its_defaults_and_sizes_in_bytes(provider: Api) -> None:
    posted = provider.post("/tasks", {"command": "test", "requested_resources": {"memory": "1 GiB"}})
    assert posted.status_code == 201
    task = provider.get(f"/tasks/{posted.get_json()['_id']}").get_json()
    assert task["requested_resources"] == {"cores": 1, "memory": 2**30}
    assert (task["state"], task["owner"], task["retry_count"], task["queue"]) == ("inactive", "alice", 0, "default")
    assert not {"order", "task_class", "class_key", "attempt_count"} & task.keys()


def test_a_list_is_accepted_whole_or_not_at_all(provider: Api) -> None:
    refused = provider.post("/tasks", [{"command": "true"}, {"command": "true", "priority": "high"}])
    assert refused.status_code == 422
    first, second = refused.get_json()["_items"]
    assert first == {"_status": "OK"}
    assert set(second["_issues"]) == {"priority"}
    assert provider.get("/tasks").get_json()["_meta"]["total"] == 0


def test_items_of_a_list_refer_to_each_other_in_any_order(provider: Api) -> None:
    parent, child = str(ObjectId()), str(ObjectId())
    answer = provider.post("/tasks", [{"_id": child, "dependencies": [parent]}, {**RELEASED, "_id": parent}]).get_json()
    assert [item["_id"] for item in answer["_items"]] == [child, parent]
    shown = provider.get(f"/tasks/{parent}").get_json()
    assert shown["continuations"] == [child]
    assert provider.get(f"/tasks/{child}").get_json()["pending_dependency_count"] == 1


def test_a_cycle_within_a_list_is_refused_and_named(provider: Api) -> None:
    one, two = str(ObjectId()), str(ObjectId())
    refused = provider.post("/tasks", [{"_id": one, "dependencies": [two]}, {"_id": two, "dependencies": [one]}])
    assert refused.status_code == 422
    assert "wait for each other" in refused.get_data(as_text=True)
    assert provider.get("/tasks").get_json()["_meta"]["total"] == 0


def test_fields_change_until_the_task_begins(provider: Api, context: Context) -> None:
    task = provider.post("/tasks", {"command": "true"}).get_json()["_id"]
    changed = provider.patch(f"/tasks/{task}", {"requested_resources": {"cores": 2, "memory": "1 GiB"}})
    assert changed.status_code == 200
    assert provider.patch(f"/tasks/{task}", {"state": "available"}).get_json()["state"] == "available"
    assert provider.patch(f"/tasks/{task}", {"command": "false", "priority": 3, "tags": ["a"]}).status_code == 200
    assert provider.patch(f"/tasks/{task}", {"requested_resources": {"cores": 1}}).status_code == 200
    worker = SimulatedWorker(context, resources={"cores": 1})
    (granted,) = worker.claim().tasks
    assert granted["command"] == "false"
    report(context, [Report(execution=granted["execution"], fields={"time_started": context.now(), "pid": 1})])
    refused = provider.patch(f"/tasks/{task}", {"command": "true"})
    assert refused.status_code == 422
    assert "runs already" in refused.get_json()["_issues"]["command"]
    for ended in (False, True):
        assert provider.patch(f"/tasks/{task}", {"tags": ["b"], "metadata": {"ended": ended}}).status_code == 200
        worker.end()
    stored = provider.get(f"/tasks/{task}").get_json()
    assert (stored["state"], stored["tags"], stored["metadata"]) == ("terminated", ["b"], {"ended": True})
    assert provider.patch(f"/tasks/{task}", {"priority": 5}).status_code == 422


def test_a_change_to_what_no_kernel_takes_is_refused(provider: Api) -> None:
    env = {f"A{n}": "x" * 130_000 for n in range(9)}
    task = provider.post("/tasks", {"command": ["true"], "env": env}).get_json()["_id"]
    for change, field in (
        ({"command": ["echo", "x" * 140_000]}, "command"),
        ({"command": ["echo", *["x" * 130_000] * 7]}, "env"),
        ({"env": {"A": "x" * 140_000}}, "env"),
        ({"directory": "x" * 256}, "directory"),
    ):
        refused = provider.patch(f"/tasks/{task}", change)
        assert (refused.status_code, list(refused.get_json()["_issues"])) == (422, [field])
    assert provider.patch(f"/tasks/{task}", {"command": "x" * 1_000_000}).status_code == 200


def test_an_illegal_transition_names_the_state_and_what_is_allowed(provider: Api) -> None:
    task = provider.post("/tasks", RELEASED).get_json()["_id"]
    refused = provider.patch(f"/tasks/{task}", {"state": "terminated"})
    assert refused.status_code == 422
    assert "available" in refused.get_json()["_issues"]["state"]
    provider.post(f"/tasks/{task}/cancel")
    refused = provider.patch(f"/tasks/{task}", {"state": "available"})
    assert refused.status_code == 422
    assert "allowed now: a retry" in refused.get_json()["_issues"]["state"]


def test_cancelling_an_ended_task_changes_nothing(provider: Api) -> None:
    task = provider.post("/tasks", RELEASED).get_json()["_id"]
    first = provider.post(f"/tasks/{task}/cancel").get_json()
    again = provider.post(f"/tasks/{task}/cancel")
    assert again.status_code == 200
    assert again.get_json() == first


def test_if_match_is_honoured_and_not_required(provider: Api) -> None:
    task = provider.post("/tasks", {"command": "true"}).get_json()
    refused = provider.patch(f"/tasks/{task['_id']}", {"priority": 1}, headers={"If-Match": "other"})
    assert refused.status_code == 412
    accepted = provider.patch(f"/tasks/{task['_id']}", {"priority": 1}, headers={"If-Match": task["_etag"]})
    assert accepted.status_code == 200


def test_another_providers_tasks_can_be_read_and_depended_on_but_not_steered(provider: Api, other: Api) -> None:
    task = provider.post("/tasks", RELEASED).get_json()["_id"]
    assert other.get(f"/tasks/{task}").status_code == 200
    assert other.patch(f"/tasks/{task}", {"priority": 1}).status_code == 403
    assert other.post(f"/tasks/{task}/cancel").status_code == 403
    assert other.delete(f"/tasks/{task}").status_code == 403
    assert other.post("/tasks", {"command": "true", "dependencies": [task]}).status_code == 201
    mine = other.post("/tasks", {"command": "true"}).get_json()["_id"]
    assert provider.post("/tasks", {"command": "true", "continuations": [mine]}).status_code == 403


def test_continuations_are_added_and_removed_by_every_route(provider: Api) -> None:
    parent, child = (item["_id"] for item in provider.post("/tasks", [{}, {}]).get_json()["_items"])
    edges = [
        ("post", "/tasks/add_continuations", [{"targets": [parent], "values": [child]}], 1),
        ("post", "/tasks/remove_continuations", [{"targets": [parent], "values": [child]}], 0),
        ("post", f"/tasks/{parent}/add_continuations", [child], 1),
        ("patch", f"/tasks/{parent}/remove_continuations", [child], 0),
        ("patch", f"/tasks/{parent}", {"add_continuations": [child]}, 1),
        ("patch", f"/tasks/{parent}", {"remove_continuations": [child]}, 0),
        ("patch", f"/tasks/{parent}", {"continuations": [child]}, 1),
        ("patch", f"/tasks/{parent}", {"continuations": []}, 0),
    ]
    for method, path, body, count in edges:
        answer = provider.call(method.upper(), path, body)
        assert answer.status_code == 200, (path, answer.get_json())
        assert provider.get("/continuations").get_json()["_meta"]["total"] == count, path
        assert provider.get(f"/tasks/{child}").get_json()["pending_dependency_count"] == count, path


def test_a_cycle_through_added_continuations_is_refused(provider: Api) -> None:
    one, two, three = (item["_id"] for item in provider.post("/tasks", [{}, {}, {}]).get_json()["_items"])
    provider.post(f"/tasks/{one}/add_continuations", [two])
    provider.post(f"/tasks/{two}/add_continuations", [three])
    refused = provider.post(f"/tasks/{three}/add_continuations", [one])
    assert refused.status_code == 422
    assert "wait for each other" in str(refused.get_json()["_issues"])
    assert provider.get("/continuations").get_json()["_meta"]["total"] == 2


def test_bulk_changes_answer_item_by_item(provider: Api) -> None:
    one, two = (item["_id"] for item in provider.post("/tasks", [RELEASED, {"command": "true"}]).get_json()["_items"])
    answer = provider.patch("/tasks", [{"_id": one, "continuations": []}, {"_id": two, "priority": 5}, {"priority": 1}])
    items = answer.get_json()["_items"]
    assert [item["_status"] for item in items] == ["ERR", "OK", "ERR"]
    assert "continuations" in items[0]["_issues"]
    assert provider.get(f"/tasks/{two}").get_json()["priority"] == 5


def test_a_dry_run_of_a_list_changes_nothing_and_tells_which_tasks_there_are(provider: Api) -> None:
    task = provider.post("/tasks", {"command": "true"}).get_json()["_id"]
    items = provider.patch("/tasks?dry_run=true", [{"_id": task, "priority": 5}, {"_id": "x"}]).get_json()["_items"]
    assert [item["_status"] for item in items] == ["OK", "ERR"]
    assert provider.get(f"/tasks/{task}").get_json()["priority"] == 0


def test_a_change_by_where_counts_first_and_touches_only_own_tasks(provider: Api, other: Api) -> None:
    provider.post("/tasks", [{**RELEASED, "tags": ["x"]}] * 3)
    other.post("/tasks", {**RELEASED, "tags": ["x"]})
    counted = provider.patch('/tasks?where={"tags":"x"}&dry_run=true', {"state": "cancelled"}).get_json()
    assert (counted["matched"], counted["updated"]) == (3, 0)
    done = provider.patch('/tasks?where={"tags":"x"}', {"state": "cancelled"}).get_json()
    assert (done["matched"], done["updated"]) == (3, 3)
    assert other.get('/tasks?where={"state":"available"}').get_json()["_meta"]["total"] == 1


def test_an_idempotency_key_submits_once(provider: Api) -> None:
    header = {"Idempotency-Key": "one"}
    first = provider.post("/tasks", [RELEASED, RELEASED], headers=header)
    again = provider.post("/tasks", [RELEASED, RELEASED], headers=header)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.get_json() == first.get_json()
    assert provider.post("/tasks", [RELEASED], headers=header).status_code == 422
    assert provider.get("/tasks").get_json()["_meta"]["total"] == 2


def test_a_worker_by_hand_claims_and_ends_a_task_with_the_attempts_token(provider: Api, worker: Api) -> None:
    task = provider.post("/tasks", RELEASED).get_json()["_id"]
    node = worker.post("/workers", {"name": "curl", "resources": {"cores": 1}}).get_json()["_id"]
    claimed = worker.patch(f"/tasks/{task}", {"state": "running", "update_execution_data": {"worker": node}})
    assert claimed.status_code == 200, claimed.get_json()
    token = claimed.get_json()["token"]
    again = worker.patch(f"/tasks/{task}", {"state": "running", "update_execution_data": {"worker": node}})
    assert again.status_code == 409
    wrong = worker.post(f"/tasks/{task}/update_execution_data", {"token": "wrong", "pid": 3})
    assert wrong.status_code == 409
    assert worker.post(f"/tasks/{task}/update_execution_data", {"token": token, "pid": 3}).status_code == 200
    end = {"token": token, "exit_status": "success"}
    done = worker.patch(f"/tasks/{task}", {"state": "terminated", "update_execution_data": end})
    assert done.get_json()["state"] == "terminated"
    (attempt,) = provider.get(f"/tasks/{task}/execution_history").get_json()["_items"]
    assert (attempt["pid"], attempt["exit_status"], attempt["attempt"]) == (3, "success", 1)
    assert "token" not in attempt


def test_only_ended_tasks_are_deleted_and_take_their_history_along(provider: Api, context: Context) -> None:
    task = provider.post("/tasks", RELEASED).get_json()["_id"]
    assert provider.delete(f"/tasks/{task}").status_code == 422
    provider.post(f"/tasks/{task}/cancel")
    assert provider.delete(f"/tasks/{task}").status_code == 200
    assert provider.get(f"/tasks/{task}").status_code == 404


def test_names_with_dots_and_dollars_come_back_exactly(provider: Api) -> None:
    inputs = {"c.x": 1, "$ref": 2, "": 3, "🌳": {"CITYOPT.simulation_start": [1.5, None]}}
    metadata = {"a.b": {"$c": 1}}
    posted = provider.post("/tasks", {"model": "sum", "inputs": inputs, "metadata": metadata, "env": {"A.B": "x"}})
    task = provider.get(f"/tasks/{posted.get_json()['_id']}").get_json()
    assert (task["inputs"], task["metadata"], task["env"]) == (inputs, metadata, {"A.B": "x"})
    provider.patch(f"/tasks/{task['_id']}", {"metadata": {"z": 1}})
    assert provider.get(f"/tasks/{task['_id']}").get_json()["metadata"] == {"z": 1}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"command": "true", "colour": "red"}, "colour"),
        ({"requested_resources": {"memory": "lots"}}, "requested_resources"),
        ({"command": "true", "owner": "bob"}, "owner"),
        ({"command": "true", "state": "running"}, "state"),
        ({"command": "true", "queue": "nowhere"}, "queue"),
        ({"command": "true", "dependencies": ["0" * 24]}, "dependencies"),
        ({"command": "true", "continuations": ["0" * 24]}, "continuations"),
        ({"command": "true", "model": "sum"}, "model"),
    ],
)
def test_a_bad_task_is_refused_with_the_field_and_nothing_is_stored(provider: Api, body: object, field: str) -> None:
    refused = provider.post("/tasks", body)
    assert refused.status_code == 422
    assert field in refused.get_json()["_issues"]
    assert provider.get("/tasks").get_json()["_meta"]["total"] == 0


def test_if_match_is_honoured_by_every_change_of_a_task(provider: Api) -> None:
    task = provider.post("/tasks", RELEASED).get_json()["_id"]
    stale = {"If-Match": "other"}
    assert provider.post(f"/tasks/{task}/cancel", headers=stale).status_code == 412
    assert state_of(provider, task) == "available"
    provider.post(f"/tasks/{task}/cancel")
    assert provider.post(f"/tasks/{task}/retry", headers=stale).status_code == 412
    assert provider.delete(f"/tasks/{task}", headers=stale).status_code == 412
    assert provider.post(f"/tasks/{task}/add_continuations", [], headers=stale).status_code == 412
    assert state_of(provider, task) == "cancelled"


def test_a_change_by_where_refuses_what_a_single_one_refuses(provider: Api) -> None:
    task = provider.post("/tasks", {**RELEASED, "tags": ["x"]}).get_json()["_id"]
    for state in ("running", "terminated", "pending_cancellation"):
        answer = provider.patch('/tasks?where={"tags":"x"}', {"state": state}).get_json()
        assert (answer["matched"], answer["updated"]) == (1, 0), state
        assert state in answer["_items"][0]["_issues"]["state"]
    assert state_of(provider, task) == "available"


def test_a_change_that_changes_nothing_leaves_the_revision(provider: Api) -> None:
    task = provider.post("/tasks", RELEASED).get_json()
    provider.post(f"/tasks/{task['_id']}/cancel")
    before = provider.get(f"/tasks/{task['_id']}").get_json()["_etag"]
    assert provider.patch(f"/tasks/{task['_id']}", {}).get_json()["_etag"] == before


@pytest.fixture
def node(worker: Api) -> str:
    """A worker's id."""
    return str(worker.post("/workers", {"name": "curl", "resources": {"cores": 1}}).get_json()["_id"])


@pytest.fixture
def claimed(provider: Api, worker: Api, node: str) -> tuple[str, str]:
    """A task that this worker has claimed, and the token of its attempt."""
    task = provider.post("/tasks", RELEASED).get_json()["_id"]
    claim = {"state": "running", "update_execution_data": {"worker": node}}
    return task, worker.patch(f"/tasks/{task}", claim).get_json()["token"]


@pytest.mark.parametrize("status", ["whatever", "successful", "Failure", "failure ()", "abandoned (moon unreachable)"])
def test_an_attempt_ends_only_in_a_way_that_there_is(
    provider: Api, worker: Api, claimed: tuple[str, str], status: str
) -> None:
    task, token = claimed
    end = {"state": "terminated", "update_execution_data": {"token": token, "exit_status": status}}
    refused = worker.patch(f"/tasks/{task}", end)
    told = refused.get_json()["_issues"]["update_execution_data"]["exit_status"]
    assert (refused.status_code, told.startswith(f"'{status}' is no way to end; there are 'success', 'fail")) == (
        422,
        True,
    )
    assert "'failure (SIGKILL)'" in told
    assert state_of(provider, task) == "running"


def test_nothing_ends_as_cancelled_that_nobody_has_cancelled(
    provider: Api, worker: Api, claimed: tuple[str, str]
) -> None:
    task, token = claimed
    end = {"state": "terminated", "update_execution_data": {"token": token, "exit_status": "cancelled"}}
    assert worker.patch(f"/tasks/{task}", end).status_code == 422
    assert state_of(provider, task) == "running"


@pytest.mark.parametrize(
    ("said", "stored"),
    [
        ({"exit_status": "failure"}, "failure (exit code 255)"),
        ({"exit_status": "failure", "exit_code": 3}, "failure (exit code 3)"),
        ({"exit_status": "failure", "signal": "SIGKILL"}, "failure (SIGKILL)"),
        ({"exit_status": "failure", "signal": "11", "exit_code": -11}, "failure (SIGSEGV)"),
        ({"exit_status": "failure (SIGTERM)"}, "failure (SIGTERM)"),
        ({"exit_status": "failure (9)"}, "failure (SIGKILL)"),
        ({"exit_status": "failure (signal 15)"}, "failure (SIGTERM)"),
        ({"exit_status": "failure (sigint)"}, "failure (SIGINT)"),
        ({"exit_status": "failure (SIGRTMIN+3)"}, "failure (SIGRTMIN+3)"),
        ({"exit_status": "failure (ValueError)"}, "failure (ValueError)"),
    ],
)
def test_a_failure_is_kept_in_one_form_however_it_is_said(
    provider: Api, worker: Api, node: str, said: dict[str, Any], stored: str
) -> None:
    by_hand, by_report = (provider.post("/tasks", RELEASED).get_json()["_id"] for _ in range(2))
    claim = {"state": "running", "update_execution_data": {"worker": node}}
    first = worker.patch(f"/tasks/{by_hand}", claim).get_json()
    end = {"state": "terminated", "update_execution_data": {"token": first["token"], **said}}
    assert worker.patch(f"/tasks/{by_hand}", end).status_code == 200
    second = worker.patch(f"/tasks/{by_report}", claim).get_json()
    report = {"execution": second["execution"], "token": second["token"], **said}
    for _ in range(2):  # a repeated report is the same end
        answer = worker.post(f"/workers/{node}/report", {"reports": [report]}).get_json()
        assert answer["accepted"] == [second["execution"]]
    for task in (by_hand, by_report):
        assert provider.get(f"/tasks/{task}").get_json()["exit_status"] == stored
        (attempt,) = provider.get(f"/tasks/{task}/execution_history").get_json()["_items"]
        assert attempt["exit_status"] == stored


def test_what_would_be_ignored_of_an_attempt_is_refused(
    provider: Api, worker: Api, node: str, claimed: tuple[str, str]
) -> None:
    task, token = claimed
    other = worker.post("/workers", {"name": "other", "resources": {"cores": 1}}).get_json()["_id"]

    def faults(state: str | None, **data: Any) -> list[str]:
        body = {"update_execution_data": data} | ({"state": state} if state else {})
        answer = worker.patch(f"/tasks/{task}", body)
        return list(answer.get_json()["_issues"]["update_execution_data"]) if answer.status_code == 422 else []

    for state in (None, "running", "terminated"):
        end = {"exit_status": "success"} if state == "terminated" else {}
        assert faults(state, token=token, worker=other, **end) == ["worker"]
    assert faults("running", worker=other, pid=3) == ["pid"]
    assert faults("running", token=token, exit_status="success") == ["exit_status"]
    assert faults("available", token=token, exit_status="success", pid=3) == ["pid", "exit_status"]
    assert worker.post(f"/tasks/{task}/update_execution_data", {"token": token, "worker": other}).status_code == 422
    (attempt,) = provider.get(f"/tasks/{task}/execution_history").get_json()["_items"]
    assert (attempt["worker"], attempt.get("pid"), state_of(provider, task)) == (node, None, "running")
    assert worker.post(f"/tasks/{task}/update_execution_data", {"token": token, "worker": node}).status_code == 200


def test_a_report_cannot_date_an_end_without_one(provider: Api, worker: Api) -> None:
    task = provider.post("/tasks", RELEASED).get_json()["_id"]
    node = worker.post("/workers", {"name": "curl", "resources": {"cores": 1}}).get_json()["_id"]
    claim = {"state": "running", "update_execution_data": {"worker": node}}
    token = worker.patch(f"/tasks/{task}", claim).get_json()["token"]
    early = {"token": token, "time_terminated": "Tue, 02 Apr 2013 10:29:13 GMT"}
    assert worker.post(f"/tasks/{task}/update_execution_data", early).status_code == 422
    end = {"state": "terminated", "update_execution_data": {"token": token, "exit_status": "success"}}
    assert worker.patch(f"/tasks/{task}", end).get_json()["state"] == "terminated"
