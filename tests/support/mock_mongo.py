"""mongomock, made to understand what today's driver sends it."""

from typing import Any

import mongomock
from mongomock.collection import BulkOperationBuilder
from pymongo.database import Database


def mock_database() -> Database[dict[str, Any]]:
    """An empty database in memory; it knows no transactions."""
    _accept_sort()
    database: Database[dict[str, Any]] = mongomock.MongoClient(tz_aware=True)["banyan"]
    return database


def _accept_sort() -> None:
    """Newer drivers pass `sort` to each update of a bulk write; we never set it, and mongomock does not know it."""
    plain = BulkOperationBuilder.add_update
    if plain.__name__ != "add_update":
        return

    def add_update_without_sort(self: Any, *arguments: Any, sort: object = None, **more: Any) -> None:
        if sort is not None:
            raise NotImplementedError("mongomock cannot sort in a bulk write")
        plain(self, *arguments, **more)

    BulkOperationBuilder.add_update = add_update_without_sort
