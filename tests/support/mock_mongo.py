"""mongomock, made to understand what today's driver sends it."""

from collections.abc import Callable
from typing import Any, Self, TypeVar

import bson
import mongomock
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from mongomock import collection, database
from pymongo.database import Database

Result = TypeVar("Result")


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


class _Collection(collection.Collection):
    """The driver takes documents that are BSON already."""

    def insert_many(self, documents: Any, *arguments: Any, **more: Any) -> Any:
        plain = [bson.decode(each.raw, _CODEC) if isinstance(each, RawBSONDocument) else each for each in documents]
        return super().insert_many(plain, *arguments, **more)  # type: ignore[no-untyped-call]

    def find(self, filter: Any = None, projection: Any = None, *arguments: Any, **more: Any) -> Any:
        known = projection and {name: each for name, each in projection.items() if each != _BSON_SIZE}
        return super().find(filter, known, *arguments, **more)  # type: ignore[no-untyped-call]

    def aggregate(self, pipeline: Any, *arguments: Any, **more: Any) -> Any:
        return super().aggregate(_without_sizes(pipeline), *arguments, **more)  # type: ignore[no-untyped-call]


_BSON_SIZE = {"$bsonSize": "$$ROOT"}
"""The mock does not know how large a document is: it shows none."""


def _without_sizes(value: Any) -> Any:
    """A pipeline that the mock understands: of a first document it takes the whole, not an object of some fields."""
    if isinstance(value, dict):
        return {
            name: "$$ROOT" if name == "$first" and isinstance(each, dict) else _without_sizes(each)
            for name, each in value.items()
        }
    return [_without_sizes(each) for each in value] if isinstance(value, list) else value


_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)


class _Session:
    """Does at once what a transaction does, and undoes nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def with_transaction(self, act: Callable[[Self], Result]) -> Result:
        return act(self)

    def commit_transaction(self) -> None:
        """It is done already."""


def mock_database() -> Database[dict[str, Any]]:
    """An empty database in memory; its transactions undo nothing."""
    vars(collection).update(BulkOperationBuilder=_Operations, Cursor=_Cursor)
    vars(database).update(Collection=_Collection)
    mongomock.ignore_feature("session")
    client: Any = mongomock.MongoClient(tz_aware=True)
    client.start_session = _Session
    mock: Database[dict[str, Any]] = client["banyan"]
    return mock
