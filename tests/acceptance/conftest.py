"""One real `banyan up` for all tests that do not stop it."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from banyan.cli.app import run
from banyan.client import Client
from tests.support.cli import Banyan
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


@pytest.fixture
def banyan(up: Up, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Banyan:
    """Runs commands in this process as the provider of `up`."""
    monkeypatch.setenv("BANYAN_URL", up.url)
    monkeypatch.setenv("BANYAN_TOKEN", up.ready["provider_token"])

    def act(*words: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        status = run(words)
        told = capfd.readouterr()
        return status, told.out, told.err

    return act
