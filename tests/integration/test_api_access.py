"""Who gets in, and who may do what."""

import base64
import re

import pytest
from bson import ObjectId
from flask import Flask

from banyan.api.app import create_app
from banyan.api.routes import ROUTES, Route
from banyan.config import Auth, ServerSettings
from banyan.domain.roles import Role
from banyan.queue.context import Context
from tests.integration.conftest import Api

GUARDED = [route for route in ROUTES.values() if not route.open]


def path_of(route: Route) -> str:
    """The route's path with something that does not exist in its places."""
    return re.sub(r"<[a-z]+>", "x", re.sub(r"<[a-z]+:[a-z_]+>", str(ObjectId()), route.path))


def name_of(value: object) -> str:
    return value.endpoint if isinstance(value, Route) else str(value)


def test_health_is_open(app: Flask) -> None:
    answer = app.test_client().get("/health")
    assert (answer.status_code, answer.get_json()) == (200, {"_status": "OK", "mongo": "ok"})


def test_health_is_the_only_open_route() -> None:
    assert [route.path for route in ROUTES.values() if route.open] == ["/health"]


def test_every_route_refuses_a_stranger(app: Flask) -> None:
    client = app.test_client()
    for route in GUARDED:
        assert (route.endpoint, client.open(path_of(route), method=route.method).status_code) == (route.endpoint, 401)


def test_every_route_refuses_the_roles_that_it_is_not_for(admin: Api, provider: Api, worker: Api) -> None:
    by_role = {Role.ADMIN: admin, Role.PROVIDER: provider, Role.WORKER: worker}
    for route in GUARDED:
        for role, api in by_role.items():
            answer = api.call(route.method, path_of(route))
            got_in = not (answer.status_code == 403 and " is for " in answer.get_data(as_text=True))
            assert (route.endpoint, role, got_in) == (route.endpoint, role, role in route.roles)


@pytest.mark.parametrize("path", ["/tasks", "/users", "/queues/default", "/", "/nothing/here", "/tasks/not-an-id"])
def test_a_stranger_is_shown_nothing_not_even_what_exists(app: Flask, path: str) -> None:
    answer = app.test_client().get(path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert answer.get_json()["_error"]["code"] == 401


@pytest.mark.parametrize("header", ["", "Basic", "Basic !!!", "Bearer", "Bearer wrong", "Digest x", "Basic d3Jvbmc6"])
def test_a_wrong_token_is_refused(app: Flask, header: str) -> None:
    assert app.test_client().get("/tasks", headers={"Authorization": header}).status_code == 401


def test_the_token_may_be_the_user_name_of_basic_authentication(app: Flask, provider: Api) -> None:
    header = base64.b64encode(f"{provider.token}:".encode()).decode()
    answer = app.test_client().get("/tasks", headers={"Authorization": f"Basic {header}"})
    assert (answer.status_code, answer.get_json()) == (
        200,
        {"_items": [], "_meta": {"page": 1, "max_results": 25, "total": 0}},
    )


def test_only_admins_see_users_and_nobody_sees_digests(admin: Api, provider: Api, worker: Api) -> None:
    for api in (provider, worker):
        assert [api.get(path).status_code for path in ("/users", "/users/root")] == [403, 403]
    shown = admin.get("/users").get_json()["_items"]
    assert [sorted(user) for user in shown] == [["_created", "_etag", "_id", "_updated", "expires", "name", "role"]] * 3
    assert admin.get("/users/alice").get_json()["role"] == "provider"


@pytest.mark.parametrize("role", ["provider", "worker", "admin"])
def test_an_unknown_path_and_a_wrong_method_are_told_in_json(request: pytest.FixtureRequest, role: str) -> None:
    api: Api = request.getfixturevalue(role)
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/tasks/not-an-id", 404),
        ("GET", f"/tasks/{ObjectId()}", 404),
        ("POST", "/tasks/not-an-id/cancel", 404),
        ("PUT", "/tasks", 405),
        ("DELETE", "/execution_history", 405),
    ):
        answer = api.call(method, path)
        assert (method, path, answer.status_code) == (method, path, status)
        assert answer.get_json()["_error"]["code"] == status


def test_private_providers_see_only_their_own(context: Context, provider: Api, other: Api, admin: Api) -> None:
    settings = ServerSettings(auth=Auth(private=True))
    private = create_app(Context(storage=context.storage, hub=context.hub, settings=settings)).test_client()
    mine, his = (api.post("/tasks", {"command": "true"}).get_json()["_id"] for api in (provider, other))
    for task, api in ((mine, provider), (his, other)):
        sample = {"task": task, "time": "Tue, 02 Apr 2013 10:29:13 GMT", "resident_memory_bytes": 1}
        assert api.post("/memory_usage", sample).status_code == 201
    alice = Api(client=private, token=provider.token)
    assert [task["_id"] for task in alice.get("/tasks").get_json()["_items"]] == [mine]
    assert [each["task"] for each in alice.get("/memory_usage").get_json()["_items"]] == [mine]
    assert alice.get(f'/tasks?where={{"_id": "{his}"}}').get_json()["_items"] == []
    assert alice.get('/tasks?where={"owner": "bob"}').get_json()["_items"] == []
    assert alice.get("/statistics").get_json()["total"] == 1
    for path in ("", "/execution_history", "/stdout", "/stderr", "/files/", "/files/a", "/explain"):
        assert (path, alice.get(f"/tasks/{his}{path}").status_code) == (path, 404)
    assert alice.patch(f"/tasks/{his}", {"name": "x"}).status_code == 404
    assert alice.post(f"/tasks/{his}/cancel").status_code == 404
    everything = Api(client=private, token=admin.token).get("/tasks").get_json()["_meta"]["total"]
    assert everything == 2
