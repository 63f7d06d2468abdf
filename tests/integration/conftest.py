"""The whole server in this process, without a socket: a real mongod behind it, a client of each role before it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pymongo import WriteConcern
from werkzeug.test import TestResponse

from banyan.api.app import create_app
from banyan.config import Models, ServerSettings
from banyan.domain.roles import Role
from banyan.models.checker import Checker
from banyan.queue.context import Context
from banyan.queue.hub import Hub
from banyan.storage.mongo import Storage

FEW = 1000
"""So many documents are removed as quickly one by one as with their collection."""


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
def mark() -> str:
    """A text by which a test finds the processes that it has started."""
    return f"mark-{uuid4().hex}"


@pytest.fixture
def settings() -> ServerSettings:
    """The server's settings, with no models; a test may override this fixture."""
    return ServerSettings(models=Models(path=()))


@pytest.fixture(scope="session")
def kept(mongo_uri: str) -> Iterator[Storage]:
    """A connection and a database for all tests with the server in this process.

    To make and to drop a database, and to close the driver's connections, takes longer than most of these tests.
    """
    storage = Storage.connect(mongo_uri, f"test_{uuid4().hex}")
    yield storage
    storage.client.drop_database(storage.db.name)
    storage.close()


@pytest.fixture
def storage(kept: Storage) -> Iterator[Storage]:
    """A storage that knows nothing, over a database in which nothing is."""
    storage = Storage(kept.client, kept.db.name, kept.reach)
    storage.prepare()
    known = set(kept.db.list_collection_names())
    yield storage
    for name in sorted(kept.db.list_collection_names(), key="meta".__eq__):
        # Only the last one, of which there is always something, waits until this is what everybody reads.
        collection = kept.db.get_collection(name, write_concern=None if name == "meta" else WriteConcern(w=1))
        if name not in known or collection.estimated_document_count() > FEW:
            collection.drop()
        else:
            collection.delete_many({})


@pytest.fixture
def context(storage: Storage, settings: ServerSettings) -> Iterator[Context]:
    """The storage, hub and settings behind `app`."""
    hub = Hub(storage)
    models = Checker(settings.models, settings.posting.check_seconds)
    yield Context(storage=storage, hub=hub, settings=settings, models=models)
    hub.close()
    models.close()


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
