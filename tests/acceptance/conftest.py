"""One real `banyan up` for all tests that do not stop it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from banyan.client import Client
from tests.support.up import Up, started

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running `banyan up` with two cores, whose worker samples memory often."""
    directory = tmp_path_factory.mktemp("up")
    models = [str(ROOT / "models"), str(ROOT / "tests" / "support" / "probe_models")]
    settings = {"BANYAN_USAGE__INTERVAL": "0.25", "BANYAN_MODELS__PATH": json.dumps(models)}
    with started(directory, "--cores", "2", env=settings) as up:
        yield up


@pytest.fixture
def client(up: Up) -> Iterator[Client]:
    """A client of it with the provider's token."""
    with Client(up.url, up.ready["provider_token"]) as client:
        yield client
