"""`Idempotency-Key`: what is sent twice is done once."""

from datetime import timedelta
from typing import Any

import pytest

from banyan.api.validation import validated_new
from banyan.domain.roles import Role
from banyan.errors import Conflict
from banyan.queue.actor import Actor
from banyan.queue.context import Context
from banyan.queue.submit import submit
from banyan.storage.idempotency import ABANDONED_SECONDS, FirstAnswer, Key
from tests.integration.conftest import Api
from tests.support.access import Things

KEY = {"Idempotency-Key": "k1"}


def count(api: Api) -> int:
    return int(api.get("/tasks").get_json()["_meta"]["total"])


@pytest.mark.parametrize("body", [{"command": "true"}, [{"command": "true"}, {"command": "true"}]])
def test_the_same_submission_is_answered_twice_and_done_once(provider: Api, body: Any) -> None:
    first, second = (provider.post("/tasks", body, headers=KEY) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.get_json() == second.get_json()
    assert count(provider) == (len(body) if isinstance(body, list) else 1)


def test_another_body_with_the_same_key_is_refused(provider: Api) -> None:
    provider.post("/tasks", {"command": "true"}, headers=KEY)
    answer = provider.post("/tasks", {"command": "false"}, headers=KEY)
    assert (answer.status_code, list(answer.get_json()["_issues"])) == (422, ["Idempotency-Key"])


def test_keys_of_other_users_and_other_routes_are_other_keys(provider: Api, other: Api) -> None:
    for api in (provider, other):
        assert api.post("/tasks", {"command": "true"}, headers=KEY).status_code == 201
    task = provider.get('/tasks?where={"owner": "alice"}').get_json()["_items"][0]["_id"]
    assert provider.post(f"/tasks/{task}/cancel", headers=KEY).status_code == 200
    assert count(provider) == 2


def test_a_refused_request_may_be_corrected(provider: Api) -> None:
    assert provider.post("/tasks", {"command": ""}, headers=KEY).status_code == 422
    assert provider.post("/tasks", {"command": "true"}, headers=KEY).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_key_that_is_none_is_refused(provider: Api, key: str) -> None:
    assert provider.post("/tasks", {"command": "true"}, headers={"Idempotency-Key": key}).status_code == 400


def test_a_token_is_never_kept_for_a_repetition(context: Context, admin: Api) -> None:
    body = {"name": "carol", "role": "worker"}
    token = admin.post("/users", body, headers=KEY).get_json()["token"]
    again = admin.post("/users", body, headers=KEY)
    assert (again.status_code, "rotate" in again.get_data(as_text=True)) == (409, True)
    assert token not in str(list(context.storage.db["idempotency"].find()))


def test_no_attempt_token_is_kept_for_a_repetition(context: Context, provider: Api, worker: Api, admin: Api) -> None:
    things = Things(provider.call, worker.call, admin.call)
    task, claim = things.task(state="available"), {"worker": things.worker}
    claimed = worker.patch(f"/tasks/{task}", {"state": "running", "update_execution_data": claim})
    token = claimed.get_json()["token"]
    path = f"/tasks/{task}/update_execution_data"
    said = {"token": token, "pid": 3}
    assert [worker.post(path, said, headers=KEY).status_code for _ in range(2)] == [200, 200]

    things.task(state="available")
    path = f"/workers/{things.worker}/claim"
    ask = {"request": "r1", "resources": {"cores": 1}, "max_tasks": 1, "held": [claimed.get_json()["execution"]]}
    granted = [worker.post(path, ask, headers=KEY).get_json()["tasks"] for _ in range(2)]
    assert granted[0] == granted[1] != []
    kept = str(list(context.storage.db["idempotency"].find()))
    assert not [each for each in (token, granted[0][0]["token"]) if each in kept]


def test_while_the_first_is_running_the_second_waits_and_takes_over_from_the_dead(
    context: Context, provider: Api
) -> None:
    store, now = context.storage.idempotency, context.now()
    begun = store.begin("key", "digest", now, 100)
    assert isinstance(begun, Key)
    with pytest.raises(Conflict, match="still running"):
        store.begin("key", "digest", now, 100)
    later = now + timedelta(seconds=ABANDONED_SECONDS)
    taken_over = store.begin("key", "digest", later, 100)
    assert isinstance(taken_over, Key)
    with pytest.raises(Conflict, match="taken this request over"):
        store.finish(begun, 201, b"first")
    store.finish(taken_over, 201, b"second")
    assert store.begin("key", "digest", later, 100) == FirstAnswer(status=201, body=b"second")


def test_a_submission_whose_key_was_taken_over_leaves_nothing(context: Context, provider: Api) -> None:
    """The first server is slow; another has begun the same request anew when the first wants to commit."""
    store, now = context.storage.idempotency, context.now()
    begun = store.begin("key", "digest", now, 100)
    assert isinstance(begun, Key)
    store.begin("key", "digest", now + timedelta(seconds=ABANDONED_SECONDS), 100)
    tasks = validated_new("tasks", {"command": "true"})
    with pytest.raises(Conflict, match="taken this request over"):
        submit(
            context,
            tasks,
            Actor(name="alice", role=Role.PROVIDER),
            lambda session, _: store.finish(begun, 201, b"first", session=session),
        )
    assert count(provider) == 0
