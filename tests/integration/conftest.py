"""The whole server in this process, without a socket: a real mongod behind it, a client of each role before it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from banyan.api.app import create_app
from banyan.config import Models, ServerSettings
from banyan.domain.roles import Role
from banyan.models.checker import Checker
from banyan.queue.context import Context
from banyan.queue.hub import Hub
from banyan.storage.mongo import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Requests with one token; `get`, `post` and so on answer with the response."""

    client: FlaskClient
    token: str

    def call(self, method: str, path: str, json: Any = None, **more: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        if json is not None:
            more["json"] = json
        return self.client.open(path, method=method, headers=headers, **more)

    def get(self, path: str, **more: Any) -> TestResponse:
        return self.call("GET", path, **more)

    def post(self, path: str, json: Any = None, **more: Any) -> TestResponse:
        return self.call("POST", path, json, **more)

    def patch(self, path: str, json: Any = None, **more: Any) -> TestResponse:
        return self.call("PATCH", path, json, **more)

    def put(self, path: str, json: Any = None, **more: Any) -> TestResponse:
        return self.call("PUT", path, json, **more)

    def delete(self, path: str, **more: Any) -> TestResponse:
        return self.call("DELETE", path, **more)


@pytest.fixture
def settings() -> ServerSettings:
    """The server's settings, with no models; a test may override this fixture."""
    return ServerSettings(models=Models(path=()))


@pytest.fixture
def context(mongo_uri: str, database_name: str, settings: ServerSettings) -> Iterator[Context]:
    """The storage, hub and settings behind `app`."""
    storage = Storage.connect(mongo_uri, database_name)
    hub = Hub(storage)
    models = Checker(settings.models, settings.posting.check_seconds)
    yield Context(storage=storage, hub=hub, settings=settings, models=models)
    hub.close()
    models.close()
    storage.close()


@pytest.fixture
def app(context: Context) -> Flask:
    """The server's WSGI application."""
    application: Flask = create_app(context)
    return application


def _api(app: Flask, context: Context, name: str, role: Role) -> Api:
    return Api(client=app.test_client(), token=context.storage.users.add(name, role, context.now()))


@pytest.fixture
def admin(app: Flask, context: Context) -> Api:
    """The admin `root`."""
    return _api(app, context, "root", Role.ADMIN)


@pytest.fixture
def provider(app: Flask, context: Context) -> Api:
    """The provider `alice`."""
    return _api(app, context, "alice", Role.PROVIDER)


@pytest.fixture
def other(app: Flask, context: Context) -> Api:
    """The provider `bob`."""
    return _api(app, context, "bob", Role.PROVIDER)


@pytest.fixture
def worker(app: Flask, context: Context) -> Api:
    """The worker `node`."""
    return _api(app, context, "node", Role.WORKER)
