"""Every test here runs twice: over mongomock and over the real mongod; both must keep the same contract."""

from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from tests.support.mock_mongo import mock_database


@pytest.fixture(params=["mongomock", "mongod"])
def db(request: pytest.FixtureRequest) -> Iterator[Database[dict[str, Any]]]:
    """An empty database of each kind."""
    if request.param == "mongomock":
        yield mock_database()
        return
    uri, name = request.getfixturevalue("mongo_uri"), request.getfixturevalue("database_name")
    with MongoClient[dict[str, Any]](uri, tz_aware=True) as client:
        yield client[name]
