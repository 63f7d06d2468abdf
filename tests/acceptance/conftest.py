"""One real `banyan up` for all tests that do not stop it."""

from collections.abc import Iterator

import pytest

from banyan.client import Client
from tests.support.up import Up, started


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running `banyan up` with two cores, whose worker samples memory often."""
    directory = tmp_path_factory.mktemp("up")
    with started(directory, "--cores", "2", env={"BANYAN_USAGE__INTERVAL": "0.25"}) as up:
        yield up


@pytest.fixture
def client(up: Up) -> Iterator[Client]:
    """A client of it with the provider's token."""
    with Client(up.url, up.ready["provider_token"]) as client:
        yield client
