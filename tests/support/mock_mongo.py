"""mongomock, made to understand what today's driver sends it."""

from typing import Any

import mongomock
from mongomock import collection
from pymongo.database import Database


class _Operations(collection.BulkOperationBuilder):
    """Newer drivers pass `sort` to each update of a bulk write; we never set it, and mongomock does not know it."""

    def add_update(self, *arguments: Any, sort: object = None, **more: Any) -> None:
        if sort is not None:
            raise NotImplementedError("mongomock cannot sort in a bulk write")
        super().add_update(*arguments, **more)  # type: ignore[no-untyped-call]


class _Cursor(collection.Cursor):
    """Newer drivers can read all that is left at once."""

    def to_list(self) -> list[Any]:
        return list(self)


def mock_database() -> Database[dict[str, Any]]:
    """An empty database in memory; it knows no transactions."""
    vars(collection).update(BulkOperationBuilder=_Operations, Cursor=_Cursor)
    database: Database[dict[str, Any]] = mongomock.MongoClient(tz_aware=True)["banyan"]
    return database
