"""Who gets in, and who may do what."""

import base64

import pytest
from flask import Flask

from tests.integration.conftest import Api


def test_health_is_open(app: Flask) -> None:
    answer = app.test_client().get("/health")
    assert (answer.status_code, answer.json) == (200, {"_status": "OK", "mongo": "ok"})


@pytest.mark.parametrize("path", ["/tasks", "/users", "/", "/nothing/here", "/metrics", "/openapi.json"])
def test_without_a_token_nothing_else_is_shown(app: Flask, path: str) -> None:
    answer = app.test_client().get(path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert answer.json is not None and answer.json["_error"]["code"] == 401


@pytest.mark.parametrize("header", ["", "Basic", "Basic !!!", "Bearer", "Bearer wrong", "Digest x", "Basic d3Jvbmc6"])
def test_a_wrong_token_is_refused(app: Flask, header: str) -> None:
    assert app.test_client().get("/tasks", headers={"Authorization": header}).status_code == 401


def test_the_token_may_be_the_user_name_of_basic_authentication(app: Flask, provider: Api) -> None:
    header = base64.b64encode(f"{provider.token}:".encode()).decode()
    answer = app.test_client().get("/tasks", headers={"Authorization": f"Basic {header}"})
    assert (answer.status_code, answer.json) == (
        200,
        {"_items": [], "_meta": {"page": 1, "max_results": 25, "total": 0}},
    )


def test_only_admins_see_users(admin: Api, provider: Api, worker: Api) -> None:
    assert provider.get("/users").status_code == 403
    assert worker.get("/users").status_code == 403
    shown = admin.get("/users").json
    assert shown is not None and [user["name"] for user in shown["_items"]] == ["root", "alice", "node"]
    assert all("digest" not in user for user in shown["_items"])
