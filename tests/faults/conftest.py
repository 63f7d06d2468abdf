"""A replica set that tests may break, and the server on it in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

from banyan.api.app import create_app
from banyan.client import Client
from banyan.config import Models, ServerSettings
from banyan.domain.roles import Role
from banyan.models.checker import Checker
from banyan.queue.context import Context
from banyan.queue.hub import Hub
from banyan.storage.mongo import Storage
from banyan.storage.reach import Listener
from tests.support.replica_set import ReplicaSet, replica_set
from tests.support.wsgi import WSGITransport


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    """One set for all tests of a module; `trio` mends it before each."""
    with replica_set(tmp_path_factory.mktemp("mongod") / "set") as trio:
        yield trio


@pytest.fixture
def trio(unbroken: ReplicaSet) -> Iterator[ReplicaSet]:
    """Three mongods, one of them the primary, all well."""
    unbroken.wait_until_whole()
    yield unbroken
    unbroken.restore()


@pytest.fixture
def context(trio: ReplicaSet) -> Iterator[Context]:
    """The storage, hub and settings of a server on `trio`, with a database of its own."""
    with serving(trio, f"test_{uuid4().hex}") as context:
        yield context


@contextmanager
def serving(trio: ReplicaSet, database: str, *listeners: Listener) -> Iterator[Context]:
    """The same for a database by name, with the driver's `listeners`."""
    settings = ServerSettings(models=Models(path=()))
    storage = Storage.connect(trio.uri, database, listeners)
    hub = Hub(storage)
    models = Checker(settings.models, settings.posting.check_seconds)
    try:
        yield Context(storage=storage, hub=hub, settings=settings, models=models)
    finally:
        hub.close()
        models.close()
        storage.close()


def client(context: Context, name: str, role: Role) -> Client:
    """A client of the server, with a new user's token."""
    token = context.storage.users.add(name, role, context.now())
    return Client("http://banyan.test", token, WSGITransport(create_app(context)))
