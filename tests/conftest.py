"""Fixtures that every level of the tests shares."""

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from pymongo import MongoClient

from tests.support.background import heed_in_children
from tests.support.mongod import shared_mongod
from tests.support.slow import is_slow

settings.register_profile("no clock", deadline=None)
settings.load_profile("no clock")

heed_in_children()


@pytest.fixture(scope="session")
def mongo_uri(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[str]:
    """A real, empty mongod: one for the whole run, started when the first test asks for it."""
    base = tmp_path_factory.getbasetemp()
    with shared_mongod((base if worker_id == "master" else base.parent) / "mongod") as uri:
        yield uri


@pytest.fixture
def database_name(mongo_uri: str) -> Iterator[str]:
    """The name of a database of the test's own, dropped when the test ends."""
    name = f"test_{uuid.uuid4().hex}"
    yield name
    with MongoClient[dict[str, object]](mongo_uri) as client:
        client.drop_database(name)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """With `-n auto`, use more processes than cores: most of the time tests wait for other programs."""
    cores = len(os.sched_getaffinity(0))
    return cores + (cores + 1) // 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`, keep those tests together that share much."""
    from tests.support.scheduling import Scheduling

    return Scheduling(config, log) if config.getvalue("dist") == "load" else None


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests."""
    for item in items:
        if is_slow(item.nodeid):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests want to be read of themselves, also when they pass."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            told = dict(getattr(report, "user_properties", ()))
            if "summary" in told and report.when == "call":
                terminalreporter.write_line(str(told["summary"]))
