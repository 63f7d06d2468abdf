"""Lists of the HTTP interface: filters, pages, and all matching documents."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from banyan import wire
from banyan.transport import SAFE_TRIES
from banyan.worker_calls import Document, WorkerCalls

_GLANCE_SECONDS = 2.0

Where = Mapping[str, Any]
"""A filter in MongoDB's syntax, such as `{"state": "running", "retry_count": {"$lt": 10}}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of the matching documents; `total` counts them all."""

    items: list[Document]
    total: int
    page: int


class ListCalls(WorkerCalls):
    """The calls that read lists; a part of `Client`."""

    def page(
        self,
        resource: str,
        where: Where | None = None,
        sort: str | None = None,
        projection: Iterable[str] | None = None,
        max_results: int | None = None,
        page: int | None = None,
    ) -> Page:
        """Return one page of any resource that can be listed."""
        query = query_of(where=where, sort=sort, projection=projection, max_results=max_results, page=page)
        answer = self._get(resource, query)
        meta = answer.get("_meta", {})
        items = list(answer["_items"])
        return Page(items=items, total=meta.get("total", len(items)), page=meta.get("page", 1))

    def each(
        self,
        resource: str,
        where: Where | None = None,
        projection: Iterable[str] | None = None,
        sort: str = "_id",
    ) -> Iterator[Document]:
        """Yield all matching documents of a resource in the order of their ids; each page starts after the last id.

        With another `sort` than `_id` and `-_id` the pages are counted, so that documents that change meanwhile may be
        missed.
        """
        size = 200
        condition: Where | None = where
        fields = list(projection) if projection is not None else None
        by_id, number = sort in ("_id", "-_id"), 1
        while True:
            items = self.page(resource, condition, sort, fields, size, None if by_id else number).items
            yield from items
            if len(items) < size:
                return
            number += 1
            if by_id:
                after = {"_id": {"$gt" if sort == "_id" else "$lt": items[-1]["_id"]}}
                condition = {"$and": [where, after]} if where else after

    def glance(
        self, resource: str, where: Where | None, projection: Iterable[str] | None, max_results: int
    ) -> list[Document]:
        """Return the newest matching documents, with one request; Unavailable if that takes longer than two seconds.

        Where there is no `where`, not even an empty one, the whole resource is read, which then has no pages.
        """
        paged = query_of(where=where, sort="-_id", projection=projection, max_results=max_results)
        query = {} if where is None else paged
        answer = self._act("GET", resource, query=query, read_seconds=_GLANCE_SECONDS, patient=False)
        return list(answer["_items"])

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> Document:
        return self._act("GET", path, query=query, tries=SAFE_TRIES)


def part(text: str) -> str:
    """Return a name as a part of a path."""
    return quote(text, safe="")


def filter_of(where: Where) -> dict[str, str]:
    """Return the parameter that selects documents for a change; the empty filter, which selects all, is sent, too."""
    return {"where": wire.dumps(where).decode()}


def query_of(
    where: Where | None = None,
    sort: str | None = None,
    projection: Iterable[str] | None = None,
    **numbers: int | None,
) -> dict[str, str]:
    """Return the parameters of a read; those that are None are left out."""
    query = {name: str(number) for name, number in numbers.items() if number is not None}
    if where:
        query["where"] = wire.dumps(where).decode()
    if sort:
        query["sort"] = sort
    if projection is not None:
        query["projection"] = wire.dumps(dict.fromkeys(projection, 1)).decode()
    return query
