"""Pages of any collection by an already checked filter, for the reading side of the interface."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import bson
from bson import ObjectId
from pymongo.database import Database

from banyan.errors import TooLarge
from banyan.storage.by_ids import by_ids
from banyan.storage.references import plain

Document = dict[str, Any]

MAX_LINKS = 1000
"""The largest number of continuations and dependencies that a task shows; `/continuations` has all of them."""

_MAX_TOGETHER = 20_000
_COUNTED = 100_000
"""The size above which a whole collection is estimated instead of counted."""
_CANCELLED = "cancelled"


class Budget:
    """The number of bytes of documents that may still be read for one response."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._left = max_bytes

    def spend(self, count: int) -> None:
        """Take so many bytes; raises `TooLarge` when the budget is exhausted."""
        self._left -= count
        if self._left < 0:
            limit = f"{self._max_bytes} bytes (limits.max_answer_bytes)"
            raise TooLarge(f"the documents have more than {limit}; ask for fewer (max_results) or less (projection)")


class Reader:
    """Pages of documents and counts; no query may take longer than `query_seconds` (the driver then raises).

    With a `budget` no more than that is read.
    """

    def __init__(self, db: Database[Document], query_seconds: float, budget: Budget | None = None) -> None:
        self._db = db
        self._max_time_ms = max(1, int(query_seconds * 1000))  # 0 would mean no limit
        self._budget = budget

    def page(
        self,
        collection: str,
        where: Mapping[str, Any],
        fields: Mapping[str, int] | None = None,
        sort: Sequence[tuple[str, int]] = (("_id", 1),),
        skip: int = 0,
        limit: int = 0,
    ) -> list[Document]:
        """The matching documents in order, at most `limit` (0: all of them); `TooLarge`."""
        asked: Document = {"filter": where, "projection": fields, "sort": list(sort) or None}
        asked |= {"skip": skip, "limit": limit, "max_time_ms": self._max_time_ms, "allow_disk_use": True}
        if self._budget is None:
            return plain(self._db[collection].find(**asked))
        documents: list[Document] = []
        for batch in cast(Iterable[bytes], self._db[collection].find_raw_batches(**asked)):
            self._budget.spend(len(batch))
            documents += plain(bson.decode_all(batch, self._db.codec_options))
        return documents

    def ids(self, collection: str, where: Mapping[str, Any]) -> list[ObjectId]:
        """The ids of all matching documents, oldest first."""
        return [document["_id"] for document in self.page(collection, where, {"_id": 1})]

    def one(
        self, collection: str, where: Mapping[str, Any], fields: Mapping[str, int] | None = None
    ) -> Document | None:
        """The matching document."""
        found = self.page(collection, where, fields, sort=(), limit=-1)
        return found[0] if found else None

    def count(self, collection: str, where: Mapping[str, Any]) -> int:
        """The number of matching documents; an estimate from MongoDB for the whole of a large collection."""
        if not where:
            about = self._db[collection].estimated_document_count(maxTimeMS=self._max_time_ms)
            if about > _COUNTED:
                return about
        return self._db[collection].count_documents(where, maxTimeMS=self._max_time_ms)

    def aggregate(
        self, collection: str, pipeline: Sequence[Mapping[str, Any]], hint: str | None = None
    ) -> list[Document]:
        """The result of an aggregation; `hint` names the index to use."""
        how: Document = {"maxTimeMS": self._max_time_ms, "allowDiskUse": True} | ({"hint": hint} if hint else {})
        return list(self._db[collection].aggregate(pipeline, **how))

    def continuations(self, parents: Iterable[ObjectId]) -> dict[ObjectId, list[ObjectId]]:
        """The children of each parent that are not cancelled, at most `MAX_LINKS` of each."""
        edges = self._edges("parent", parents)
        children = list({edge["child"] for edge in edges})
        where = {"_id": {"$in": children}, "state": _CANCELLED}
        gone = {d["_id"] for d in self.page("tasks", where, {"_id": 1})} if children else set()
        shown: dict[ObjectId, list[ObjectId]] = {}
        for edge in edges:
            of_parent = shown.setdefault(edge["parent"], [])
            if edge["child"] not in gone and len(of_parent) < MAX_LINKS:
                of_parent.append(edge["child"])
        return shown

    def dependencies(self, children: Iterable[ObjectId]) -> dict[ObjectId, list[Document]]:
        """The dependencies of each child, past and present, at most `MAX_LINKS` of each.

        Deleted parents are marked `deleted`.
        """
        shown: dict[ObjectId, list[Document]] = {}
        edges = self._edges("child", children)
        deleted = self.deleted_parents(edges)
        for edge in edges:
            of_child = shown.setdefault(edge["child"], [])
            if len(of_child) < MAX_LINKS:
                gone = {"deleted": True} if edge["parent"] in deleted else {}
                of_child.append({"task": edge["parent"], "on": edge["on"], **gone})
        return shown

    def deleted_parents(self, edges: Iterable[Mapping[str, Any]]) -> set[ObjectId]:
        """The deleted parents of these edges; a parent that has not ended, or does not exist yet, is not deleted."""
        ended = list({edge["parent"] for edge in edges if edge["settled"]})
        return set(ended) - {d["_id"] for d in by_ids(self._db["tasks"], ended, ["_id"])} if ended else set()

    def _edges(self, end: str, tasks: Iterable[ObjectId]) -> list[Document]:
        """The edges of all these tasks in one query, or some of each task when they are too many for that."""
        ids = list(tasks)
        edges = self.page("continuations", {end: {"$in": ids}}, limit=_MAX_TOGETHER)
        if len(edges) < _MAX_TOGETHER:
            return edges
        return [edge for each in ids for edge in self.page("continuations", {end: each}, limit=2 * MAX_LINKS)]
