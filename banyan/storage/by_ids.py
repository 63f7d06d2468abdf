"""Reads of many documents by their ids, for the hot paths."""

from collections.abc import Iterable
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.collection import Collection

Document = dict[str, Any]


def by_ids(
    collection: Collection[Document],
    ids: Iterable[ObjectId],
    fields: Iterable[str] | None = None,
    session: ClientSession | None = None,
) -> list[Document]:
    """The documents with these ids, whole or only some fields, in one round trip; no ids need none."""
    wanted = list(ids)
    if not wanted:
        return []
    projection = None if fields is None else dict.fromkeys(fields, 1)
    found = collection.find({"_id": {"$in": wanted}}, projection, session=session)
    return found.batch_size(len(wanted) + 1).to_list()
