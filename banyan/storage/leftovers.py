"""Garbage of interrupted uploads: pieces that no file counts, bytes without a piece, files without an attempt."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo.collection import Collection
from pymongo.database import Database

from banyan.storage.files import FileStore

Document = dict[str, Any]
Look = Callable[[ObjectId | None, datetime, int], ObjectId | None]


class Leftovers:
    """Finds and removes garbage, a page at a time.

    Each of `looks` takes the last id of the previous page (None: from the start), the time before which an object must
    have been created to be checked, and the size of a page; it returns the last id of this page, or None when there are
    no more.
    """

    def __init__(self, db: Database[Document], files: FileStore) -> None:
        self._files = files
        self._heads = db["files"]
        self._executions = db["executions"]
        self._segments = db["file_segments.files"]
        self._chunks = db["file_segments.chunks"]
        self.looks: Mapping[str, Look] = {"heads": self._look_at_heads, "pieces": self._look_at_pieces,
                                          "chunks": self._look_at_chunks}  # fmt: skip

    def _look_at_heads(self, after: ObjectId | None, before: datetime, limit: int) -> ObjectId | None:
        """Files that were received while their attempt was being deleted."""
        page = _page(self._heads, "_id", after, before, limit, ["execution"])
        attempts = _ids(self._executions, {head["execution"] for head in page})
        self._files.delete_of({head["execution"] for head in page} - attempts)
        return _last(page, "_id", limit)

    def _look_at_pieces(self, after: ObjectId | None, before: datetime, limit: int) -> ObjectId | None:
        """Pieces of a file that is gone, of one that was begun anew, or beyond a file's end."""
        page = _page(self._segments, "_id", after, before, limit, ["metadata"])
        wanted = list({piece["metadata"]["file"] for piece in page})
        heads = {head["_id"]: head for head in self._heads.find({"_id": {"$in": wanted}})}
        self._files.drop([piece["_id"] for piece in page if not _counts(piece["metadata"], heads)])
        return _last(page, "_id", limit)

    def _look_at_chunks(self, after: ObjectId | None, before: datetime, limit: int) -> ObjectId | None:
        """Bytes whose piece was never finished, or was removed without them."""
        page = _page(self._chunks, "files_id", after, before, limit, [])
        pieces = {chunk["files_id"] for chunk in page}
        self._files.drop(pieces - _ids(self._segments, pieces))
        return _last(page, "files_id", limit)


def _counts(piece: Mapping[str, Any], heads: Mapping[ObjectId, Document]) -> bool:
    head = heads.get(piece["file"])
    return head is not None and piece["generation"] == head["generation"] and piece["offset"] < head["size"]


def _page(
    collection: Collection[Document],
    key: str,
    after: ObjectId | None,
    before: datetime,
    limit: int,
    fields: Iterable[str],
) -> list[Document]:
    """Documents in the order of the ids in `key`, which contain the time of creation."""
    where = {key: {"$gt": after or ObjectId(bytes(12)), "$lt": ObjectId.from_datetime(before)}}
    return list(collection.find(where, [key, *fields]).sort(key).limit(limit))


def _ids(collection: Collection[Document], ids: Iterable[ObjectId]) -> set[ObjectId]:
    return {document["_id"] for document in collection.find({"_id": {"$in": list(ids)}}, {"_id": 1})}


def _last(page: list[Document], key: str, limit: int) -> ObjectId | None:
    return page[-1][key] if len(page) == limit else None
