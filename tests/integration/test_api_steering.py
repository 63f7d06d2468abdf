"""Cancelling, retrying and deleting over HTTP, of one task and of many; what a deleted parent looks like."""

from typing import Any

import pytest
from bson import ObjectId

from banyan.queue.context import Context
from tests.integration.conftest import Api
from tests.support.queue import SimulatedWorker

FAILED = "failure (exit code 1)"


def posted(api: Api, **fields: Any) -> str:
    answer = api.post("/tasks", {"command": "true", "state": "available", **fields})
    assert answer.status_code == 201, answer.get_json()
    return str(answer.get_json()["_id"])


def states(api: Api, *ids: str) -> list[str]:
    return [api.get(f"/tasks/{id}").get_json()["state"] for id in ids]


def edges(api: Api, child: str) -> list[dict[str, Any]]:
    answer = api.get("/continuations", query_string={"where": f'{{"child": "{child}"}}'})
    return list(answer.get_json()["_items"])


@pytest.fixture
def worker(context: Context) -> SimulatedWorker:
    return SimulatedWorker(context)


@pytest.fixture
def family(provider: Api, worker: SimulatedWorker) -> list[str]:
    """A failed task, one that was cancelled for it, a clean-up that ran, and something after that."""
    parent = posted(provider)
    cancelled = posted(provider, dependencies=[parent])
    cleanup = posted(provider, dependencies=[{"task": cancelled, "on": "any"}])
    last = posted(provider, dependencies=[cleanup])
    worker.claim(1)
    worker.end(FAILED)
    worker.run_all()
    ids = [parent, cancelled, cleanup, last]
    assert states(provider, *ids) == ["terminated", "cancelled", "terminated", "terminated"]
    return ids


# One task


def test_a_retry_without_a_body_says_what_to_ask_for_where_descendants_have_run(
    provider: Api, family: list[str]
) -> None:
    for body in (None, {}, {"downstream": "refuse"}, {"priority": 3}):
        answer = provider.post(f"/tasks/{family[0]}/retry", body)
        assert answer.status_code == 422
        [(field, reason)] = answer.get_json()["_issues"].items()
        assert field == "downstream"
        assert all(word in reason for word in ("'rerun'", "'keep'", family[2]))
    assert states(provider, *family) == ["terminated", "cancelled", "terminated", "terminated"]


@pytest.mark.parametrize("as_query", [True, False])
def test_a_dry_run_tells_of_each_descendant(provider: Api, family: list[str], as_query: bool) -> None:
    query, more = ("?dry_run=true", {}) if as_query else ("", {"dry_run": True})
    rerun = provider.post(f"/tasks/{family[0]}/retry{query}", {"downstream": "rerun", **more}).get_json()
    assert (rerun["dry_run"], rerun["state"], rerun["becomes"]) == (True, "terminated", "available")
    assert (rerun["descendants"]["again"], rerun["descendants"]["kept"]) == (3, 0)
    assert {item["_id"]: item["becomes"] for item in rerun["descendants"]["_items"]} == dict.fromkeys(
        family[1:], "inactive"
    )
    keep = provider.post(f"/tasks/{family[0]}/retry{query}", {"downstream": "keep", **more}).get_json()
    assert keep["descendants"] == {
        "again": 1,
        "kept": 1,
        "_items": [{"_id": family[1], "becomes": "inactive"}, {"_id": family[2], "kept": "it is terminated"}],
    }
    assert states(provider, *family) == ["terminated", "cancelled", "terminated", "terminated"]


def test_a_failed_task_is_retried_with_more_memory_while_its_children_are_kept(
    provider: Api, family: list[str]
) -> None:
    body = {"downstream": "keep", "requested_resources": {"cores": 1, "memory": "4 GiB"}, "not_before": None}
    answer = provider.post(f"/tasks/{family[0]}/retry", body)
    assert (answer.status_code, answer.get_json()["state"]) == (200, "available")
    assert provider.get(f"/tasks/{family[0]}").get_json()["requested_resources"]["memory"] == 4 * 2**30
    assert states(provider, *family) == ["available", "inactive", "terminated", "terminated"]
    outdated = [(edge["settled"], edge.get("outdated", False)) for id in family[1:3] for edge in edges(provider, id)]
    assert outdated == [(False, False), (True, True)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"downstream": "all"}, "downstream"),
        ({"downstream": None}, "downstream"),
        ({"dry_run": "yes"}, "dry_run"),
        ({"without": ["x"]}, "without"),
        ({"state": "available"}, "state"),
        ({"continuations": []}, "continuations"),
        ({"add_continuations": [str(ObjectId())]}, "continuations"),
        ({"dependencies": []}, "dependencies"),
        ({"input_refs": {}}, "input_refs"),
        ({"_id": str(ObjectId())}, "_id"),
        ({"owner": "bob"}, "owner"),
        ({"retry_at": None}, "retry_at"),
        ({"requested_resources": {"memory": -1}}, "requested_resources"),
        ({"model": "m"}, "model"),
        ({"queue": "nope"}, "queue"),
        ({"nothing": 1}, "nothing"),
    ],
)
def test_what_a_retry_cannot_change_is_named(
    provider: Api, worker: SimulatedWorker, body: dict[str, Any], field: str
) -> None:
    id = posted(provider)
    worker.run_all()
    answer = provider.post(f"/tasks/{id}/retry", body)
    assert (answer.status_code, list(answer.get_json()["_issues"])) == (422, [field])
    assert states(provider, id) == ["terminated"]


@pytest.mark.parametrize("body", [b"[]", b"{", b"null"])
def test_a_body_that_is_no_object_is_refused(provider: Api, worker: SimulatedWorker, body: bytes) -> None:
    id = posted(provider)
    worker.run_all()
    assert provider.post(f"/tasks/{id}/retry", data=body, content_type="application/json").status_code == 400


# Deleted parents


def test_a_deleted_parent_is_shown_as_such_and_still_forbids_its_child(provider: Api, worker: SimulatedWorker) -> None:
    failed, other = posted(provider, priority=1), posted(provider)
    child = posted(provider, dependencies=[failed, other])
    for _ in range(2):
        worker.claim(1)
        worker.end(FAILED)
    assert provider.delete(f"/tasks/{failed}").status_code == 200
    assert [(edge["parent"], edge["parent_deleted"]) for edge in edges(provider, child)] == [
        (failed, True),
        (other, False),
    ]
    shown = provider.get(f"/tasks/{child}").get_json()["dependencies"]
    assert shown == [
        {"task": failed, "on": "success", "deleted": True},
        {"task": other, "on": "success"},
    ]
    assert "has been deleted" in provider.get(f"/tasks/{child}/explain").get_json()["summary"]
    provider.post(f"/tasks/{other}/retry")
    worker.run_all()
    assert states(provider, other, child) == ["terminated", "cancelled"]
    refused = provider.post(f"/tasks/{child}/retry")
    assert (refused.status_code, list(refused.get_json()["_issues"])) == (422, ["without"])
    assert failed in refused.get_json()["_issues"]["without"]
    again = provider.post("/tasks", {"command": "true", "_id": failed})
    assert (again.status_code, list(again.get_json()["_issues"])) == (422, ["_id"])
    assert provider.post(f"/tasks/{child}/retry", {"without": [failed]}).get_json()["state"] == "available"
    assert [edge["parent"] for edge in edges(provider, child)] == [other]


def test_a_projection_shows_deleted_parents_alone(provider: Api, worker: SimulatedWorker) -> None:
    parent = posted(provider)
    child = posted(provider, dependencies=[parent])
    worker.run_all()
    provider.delete(f"/tasks/{parent}")
    query = {"where": f'{{"child": "{child}"}}', "projection": '{"parent_deleted": 1}'}
    [edge] = provider.get("/continuations", query_string=query).get_json()["_items"]
    assert (edge["parent_deleted"], "parent" in edge) == (True, False)
    assert provider.get("/continuations", query_string={"where": '{"parent_deleted": true}'}).status_code == 400


# Many tasks


def test_many_are_cancelled_by_their_ids(provider: Api, other: Api) -> None:
    mine, ended, theirs, nobody = posted(provider), posted(provider), posted(other), str(ObjectId())
    provider.post(f"/tasks/{ended}/cancel")
    ids = [mine, theirs, nobody, ended]
    would = provider.post("/tasks/cancel", {"ids": ids, "dry_run": True}).get_json()
    assert (would["matched"], would["cancelled"], would["refused"], would["dry_run"]) == (4, 1, 2, True)
    assert states(provider, mine) == ["available"]
    answer = provider.post("/tasks/cancel", {"ids": ids}).get_json()
    assert (answer["matched"], answer["cancelled"], answer["refused"]) == (4, 1, 2)
    assert [item.get("state") or item["_error"]["code"] for item in answer["_items"]] == [
        "cancelled",
        403,
        404,
        "cancelled",
    ]
    assert states(provider, theirs) == ["available"]


def test_many_are_cancelled_by_a_filter_that_sees_ones_own(provider: Api, other: Api) -> None:
    mine = [posted(provider, name="x") for _ in range(3)]
    theirs, another = posted(other, name="x"), posted(provider, name="y")
    answer = provider.post("/tasks/cancel", {"where": {"name": "x"}}).get_json()
    assert answer == {"_status": "OK", "matched": 3, "cancelled": 3, "refused": 0, "_items": []}
    assert states(provider, *mine, theirs, another) == ["cancelled"] * 3 + ["available"] * 2


def test_many_are_retried_with_the_same_changes(provider: Api, worker: SimulatedWorker) -> None:
    failed = [posted(provider, tags=["x"]) for _ in range(3)]
    runs = posted(provider, priority=-1)
    worker.claim(3)
    worker.end(FAILED)
    body = {"where": {"exit_status": FAILED}, "changes": {"requested_resources": {"cores": 2}}}
    would = provider.post("/tasks/retry", {**body, "dry_run": True}).get_json()
    assert (would["matched"], would["retried"], would["dry_run"]) == (3, 3, True)
    assert states(provider, *failed) == ["terminated"] * 3
    answer = provider.post("/tasks/retry", body).get_json()
    assert (answer["matched"], answer["retried"], answer["refused"], answer["_items"]) == (3, 3, 0, [])
    assert {provider.get(f"/tasks/{id}").get_json()["requested_resources"]["cores"] for id in failed} == {2}
    again = provider.post("/tasks/retry", {"ids": [*failed, runs]}).get_json()
    assert (again["retried"], again["refused"]) == (0, 4)
    assert [item["_error"]["code"] for item in again["_items"]] == [422] * 4


def test_many_are_retried_with_what_comes_after_them(provider: Api, family: list[str]) -> None:
    refused = provider.post("/tasks/retry", {"ids": [family[0]]}).get_json()
    assert list(refused["_items"][0]["_issues"]) == ["downstream"]
    answer = provider.post("/tasks/retry", {"ids": [family[0], family[3]], "downstream": "rerun"}).get_json()
    assert (answer["retried"], answer["refused"], answer["descendants"]["again"]) == (2, 0, 2)
    assert states(provider, *family) == ["available", "inactive", "inactive", "inactive"]


@pytest.mark.parametrize("act", ["cancel", "retry"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"ids": [], "where": {}}, 422),
        ({"ids": ["x"]}, 422),
        ({"where": {"nothing": 1}}, 400),
        ({"where": {"$where": "1"}}, 400),
        ({"where": []}, 422),
        ({"ids": [], "priority": 1}, 422),
        ([], 400),
    ],
)
def test_an_act_on_many_names_them_in_one_way(provider: Api, act: str, body: Any, status: int) -> None:
    assert provider.call("POST", f"/tasks/{act}", body).status_code == status


def test_a_provider_deletes_what_it_has_of_those_that_have_ended(
    provider: Api, other: Api, admin: Api, worker: SimulatedWorker
) -> None:
    mine, theirs = posted(provider), posted(other)
    worker.run_all()
    waits = posted(provider)
    assert provider.delete("/tasks?where={}").get_json() == {"_status": "OK", "matched": 2, "deleted": 1}
    assert provider.get(f"/tasks/{mine}").status_code == 404
    assert states(provider, theirs, waits) == ["terminated", "available"]
    assert admin.delete("/tasks?where={}").get_json()["deleted"] == 1


# Sweeps


def test_a_sweep_is_retried_with_changes_and_what_follows_its_barrier(provider: Api, worker: SimulatedWorker) -> None:
    sweep = provider.post("/sweeps", {"command": "true", "points": [{}, {}, {}], "barrier": {"command": "true"}})
    id, barrier = sweep.get_json()["_id"], sweep.get_json()["barrier"]
    last = posted(provider, dependencies=[barrier])
    worker.claim(3)
    failed = list(worker.held)[:2]
    worker.end(FAILED, failed)
    worker.end()
    worker.run_all()
    path = f"/sweeps/{id}/retry"
    refused = provider.post(path)
    assert (refused.status_code, "'rerun'" in refused.get_json()["_issues"]["barrier"]) == (422, True)
    body = {"downstream": "rerun", "requested_resources": {"cores": 2}}
    would = provider.post(path, {**body, "dry_run": True}).get_json()
    assert (would["retried"], would["descendants"]["again"], would["dry_run"]) == (2, 2, True)
    assert states(provider, barrier, last) == ["terminated", "terminated"]
    answer = provider.post(path, body).get_json()
    assert (answer["retried"], answer["refused"], answer["descendants"]["again"]) == (2, 0, 2)
    assert states(provider, barrier, last) == ["inactive", "inactive"]
    assert worker.run_all() == 4
    assert states(provider, barrier, last) == ["terminated", "terminated"]


def test_a_sweep_is_retried_while_what_came_after_it_is_kept(provider: Api, worker: SimulatedWorker) -> None:
    sweep = provider.post("/sweeps", {"command": "true", "points": [{}, {}], "barrier": {"command": "true"}})
    id, barrier = sweep.get_json()["_id"], sweep.get_json()["barrier"]
    worker.claim(2)
    worker.end(FAILED, list(worker.held)[:1])
    worker.end()
    worker.claim()
    answer = provider.post(f"/sweeps/{id}/retry", {"downstream": "keep"}).get_json()
    assert (answer["retried"], answer["descendants"]["kept"]) == (1, 1)
    assert states(provider, barrier) == ["running"]
    worker.end()
    assert worker.run_all() == 1
    assert states(provider, barrier) == ["terminated"]
