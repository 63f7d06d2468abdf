"""Eve's data layer over our storage: it reads, and shows only documents that the requesting user may see."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from bson import ObjectId
from eve.io.mongo import Mongo
from flask import Flask, g

from banyan.api.coercion import to_id
from banyan.api.context import actor, context
from banyan.api.query import Filter, parse_where
from banyan.api.schema import RESOURCES
from banyan.api.selection import Selection, leave_out, parse_projection, parse_sort
from banyan.domain.roles import Role
from banyan.storage.reading import Budget, Reader
from banyan.storage.sweep_reading import progress_of

Document = dict[str, Any]

COLLECTIONS = {"execution_history": "executions"}
"""The collection of a resource, if its name differs."""

OWNED = frozenset({"tasks", "continuations", "execution_history", "memory_usage", "sweeps"})
"""Resources whose documents have an `owner`."""


def reader() -> Reader:
    """A reader of any collection, within the time limit of a query."""
    return Reader(context().storage.db, context().settings.limits.query_seconds)


def answering() -> Reader:
    """A reader for the documents of the response, within the size limit of a response."""
    limits = context().settings.limits
    if "budget" not in g:
        g.budget = Budget(limits.max_answer_bytes)
    return Reader(context().storage.db, limits.query_seconds, g.budget)


def visible(resource: str) -> Filter:
    """The filter that hides the documents of other users, where reads are private."""
    asking = actor()
    hidden = asking.private and asking.role == Role.PROVIDER and resource in OWNED
    return {"owner": asking.name} if hidden else {}


def both(*filters: Mapping[str, Any]) -> Filter:
    """The filter that requires all of these."""
    given = [dict(each) for each in filters if each]
    return given[0] if len(given) == 1 else {"$and": given} if given else {}


class Data(Mongo):
    """The data layer for Eve's reads; all writes are routes of our own."""

    def init_app(self, app: Flask) -> None:
        """Connect to nothing: the storage is the context's."""
        self.driver = None
        self.mongo_prefix = None

    def find(
        self, resource: str, req: Any, sub_resource_lookup: Mapping[str, Any] | None, perform_count: bool = True
    ) -> tuple[list[Document], int | None]:
        """A page of documents, and the number of all matches (None for embedded documents, which have no request)."""
        asked = parse_where(resource, req.where if req else None)
        where = both(asked, _stored(resource, sub_resource_lookup or {}), visible(resource))
        selection = parse_projection(resource, req.projection if req else None, listed=True)
        limit = req.max_results if req else 0
        skip = (req.page - 1) * limit if req else 0
        collection = COLLECTIONS.get(resource, resource)
        sort = parse_sort(resource, req.sort if req else None)
        documents = answering().page(collection, where, selection.stored, sort, skip, limit)
        _complete(resource, documents, selection)
        if req is None or not perform_count:
            return documents, None
        if len(documents) < limit and (documents or skip == 0):
            return documents, skip + len(documents)
        return documents, reader().count(collection, where)

    def find_one(
        self,
        resource: str,
        req: Any,
        check_auth_value: bool = True,
        force_auth_field_projection: bool = False,
        mongo_options: Any = None,
        **lookup: Any,
    ) -> Document | None:
        """One document by its id or name."""
        selection = parse_projection(resource, req.projection if req else None)
        where = both(_stored(resource, lookup), visible(resource))
        document = answering().one(COLLECTIONS.get(resource, resource), where, selection.stored)
        if document is not None:
            _complete(resource, [document], selection)
        return document


def _stored(resource: str, lookup: Mapping[str, Any]) -> Filter:
    """A lookup from a path, with ids as they are stored."""
    rules = RESOURCES[resource]
    return {
        name: to_id(value) if isinstance(value, str) and rules[name].get("coerce") == "id" else value
        for name, value in lookup.items()
    }


def _tell_of_parents(edges: list[Document]) -> None:
    """Add to edges, whatever their projection, whether their parents were deleted."""
    whole = reader().page("continuations", {"_id": {"$in": [edge["_id"] for edge in edges]}})
    deleted = reader().deleted_parents(whole)
    gone = {edge["_id"] for edge in whole if edge["parent"] in deleted}
    for edge in edges:
        edge["parent_deleted"] = edge["_id"] in gone


def _complete(resource: str, documents: list[Document], selection: Selection) -> None:
    """Add the virtual fields, and remove the fields that a projection excludes."""
    ids = [document["_id"] for document in documents]
    if documents and "continuations" in selection.virtual:
        children = reader().continuations(ids)
        for document in documents:
            document["continuations"] = children.get(document["_id"], [])
    if documents and "dependencies" in selection.virtual:
        parents = reader().dependencies(ids)
        for document in documents:
            document["dependencies"] = parents.get(document["_id"], [])
    if documents and "progress" in selection.virtual:
        progress = progress_of(reader(), ids)
        for document in documents:
            document["progress"] = progress.get(document["_id"])
            digest = hashlib.sha256(json.dumps(document["progress"], sort_keys=True).encode()).hexdigest()
            document["_etag"] = f"{document['_etag']}-{digest[:12]}"  # it changes as the tasks do
    if documents and "parent_deleted" in selection.virtual:
        _tell_of_parents(documents)
    for document in documents:
        leave_out(document, selection.without)
        if isinstance(document["_id"], ObjectId):
            document.setdefault("_created", document["_id"].generation_time)
            document.setdefault("_updated", document["_created"])
