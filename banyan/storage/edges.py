"""The collection `continuations`: one document for each edge from a parent to a child."""

from collections.abc import Iterable, Sequence
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.database import Database

from banyan.domain.continuations import Edge

Document = dict[str, Any]
Session = ClientSession | None

FEW = 1000
"""The largest number of pending parents that is counted where the count is repeated often."""

_BY_CHILD = {"child": 1, "settled": 1, "satisfied": 1}
_OUTDATED = {"outdated": True}


class EdgeStore:
    """Edges by parent and by child; the field `settled` of an edge records that its parent has ended."""

    def __init__(self, db: Database[Document]) -> None:
        self._edges = db["continuations"]

    def prepare(self) -> None:
        """Create the indexes for settling and reading."""
        self._edges.create_index([("parent", 1), ("child", 1)], unique=True, name="edge")
        self._edges.create_index([("parent", 1), ("settled", 1)], name="parent")
        self._edges.create_index(list(_BY_CHILD.items()), name="child")
        for end in ("parent", "child"):
            self._edges.create_index(end, name=f"outdated_{end}", partialFilterExpression=_OUTDATED)

    def insert(self, edges: Sequence[Edge], session: Session = None) -> None:
        """Store new edges; raises the driver's duplicate key error when one exists already."""
        if edges:
            self._edges.insert_many([edge_document(edge) for edge in edges], session=session)

    def remove(self, pairs: Iterable[tuple[ObjectId, ObjectId]], session: Session = None) -> int:
        """Remove edges given as (parent, child); return the number of removed edges."""
        removed = 0
        for parent, child in pairs:
            removed += self._edges.delete_one({"parent": parent, "child": child}, session=session).deleted_count
        return removed

    def existing(
        self, parents: Iterable[ObjectId], children: Iterable[ObjectId], session: Session = None
    ) -> set[tuple[ObjectId, ObjectId]]:
        """The pairs of these parents and children that have an edge."""
        where = {"parent": {"$in": list(parents)}, "child": {"$in": list(children)}}
        found = self._edges.find(where, {"parent": 1, "child": 1}, session=session)
        return {(d["parent"], d["child"]) for d in found}

    def unsettled(self, parents: Iterable[ObjectId], limit: int, session: Session = None) -> list[Edge]:
        """Edges of these parents that are not settled yet."""
        where = {"parent": {"$in": list(parents)}, "settled": False}
        # The other index of parents would also visit all settled edges.
        return [edge_of(d) for d in self._edges.find(where, session=session).hint("parent").limit(limit)]

    def of_parents(self, parents: Iterable[ObjectId], session: Session = None) -> list[Edge]:
        """All edges of these parents."""
        return [edge_of(d) for d in self._edges.find({"parent": {"$in": list(parents)}}, session=session)]

    def page_of_parents(self, parents: Sequence[ObjectId], after: Edge | None, limit: int) -> list[Edge]:
        """Some edges of these parents in the order of parents and children, after `after`; none at the end."""
        if after is not None:
            same = {"parent": after.parent, "child": {"$gt": after.child}}
            if edges := self._by_parent(same, limit):
                return edges
            parents = [id for id in parents if id > after.parent]
        return self._by_parent({"parent": {"$in": list(parents)}}, limit)

    def _by_parent(self, where: Document, limit: int) -> list[Edge]:
        found = self._edges.find(where).sort([("parent", 1), ("child", 1)]).hint("edge")
        return [edge_of(d) for d in found.limit(limit)]

    def page(self, after: ObjectId | None, limit: int) -> list[Edge]:
        """One page of all edges in the order of their ids, after `after`."""
        where: Document = {} if after is None else {"_id": {"$gt": after}}
        return [edge_of(d) for d in self._edges.find(where).sort("_id").limit(limit)]

    def of_children(self, children: Iterable[ObjectId], session: Session = None) -> list[Edge]:
        """All edges to these children."""
        return [edge_of(d) for d in self._edges.find({"child": {"$in": list(children)}}, session=session)]

    def pending(self, children: Iterable[ObjectId], limit: int) -> list[Edge]:
        """Some of the unsettled edges to these children."""
        where = {"child": {"$in": list(children)}, "settled": False}
        return [edge_of(d) for d in self._edges.find(where).hint("child").limit(limit)]

    def settle(self, edges: Iterable[Edge], satisfied: bool) -> int:
        """Mark the edges that are still unsettled and in the life that was read; return how many were marked."""
        by_life: dict[int, list[ObjectId]] = {}
        for edge in edges:
            by_life.setdefault(edge.life, []).append(edge.id)
        marked = 0
        for life, ids in by_life.items():
            where = {"_id": {"$in": ids}, "settled": False, "life": life}
            update = {"$set": {"settled": True, "satisfied": satisfied}}
            marked += self._edges.update_many(where, update).modified_count
        return marked

    def unsettle(self, edges: Iterable[ObjectId], session: Session) -> None:
        """Make edges wait for their parent again."""
        self._edges.update_many(
            {"_id": {"$in": list(edges)}},
            {"$set": {"settled": False}, "$unset": {"satisfied": 1, "outdated": 1}, "$inc": {"life": 1}},
            session=session,
        )

    def waiting(self, children: Sequence[ObjectId], session: Session = None) -> set[ObjectId]:
        """The children with an unsettled edge; one index step for each child, not each edge."""
        pipeline: list[Document] = [
            {"$match": {"child": {"$in": list(children)}, "settled": False}},
            {"$sort": _BY_CHILD},
            {"$group": {"_id": "$child", "first": {"$first": "$settled"}}},
        ]
        return {d["_id"] for d in self._edges.aggregate(pipeline, session=session)}

    def having_parents(self, children: Sequence[ObjectId]) -> set[ObjectId]:
        """The children that have at least one edge."""
        pipeline: list[Document] = [
            {"$match": {"child": {"$in": list(children)}}},
            {"$sort": _BY_CHILD},
            {"$group": {"_id": "$child", "first": {"$first": "$settled"}}},
        ]
        return {d["_id"] for d in self._edges.aggregate(pipeline)}

    def broken(self, children: Sequence[ObjectId], session: Session = None) -> dict[ObjectId, ObjectId]:
        """The children with an edge that can no longer be satisfied, each with a parent that caused it.

        One index step for each child, as in `waiting`.
        """
        pipeline: list[Document] = [
            {"$match": {"child": {"$in": list(children)}, "settled": True, "satisfied": False}},
            {"$sort": _BY_CHILD},
            {"$group": {"_id": "$child", "parent": {"$first": "$parent"}}},
        ]
        return {d["_id"]: d["parent"] for d in self._edges.aggregate(pipeline, session=session)}

    def few_pending(self, children: Iterable[ObjectId], session: Session = None) -> dict[ObjectId, int]:
        """The exact number of unsettled edges of each child that has fewer than `FEW`; other children are left out.

        No command reads more edges than that.
        """
        counts: dict[ObjectId, int] = {}
        left = sorted(children)
        while left:
            pipeline: list[Document] = [
                {"$match": {"child": {"$in": left}, "settled": False}},
                {"$sort": _BY_CHILD},
                {"$limit": FEW},
                {"$group": {"_id": "$child", "count": {"$sum": 1}}},
            ]
            found = {d["_id"]: d["count"] for d in self._edges.aggregate(pipeline, session=session)}
            if sum(found.values()) < FEW:
                return counts | {id: found.get(id, 0) for id in left}
            last = max(found)  # it may have more edges than the limit returned
            counts |= {id: found.get(id, 0) for id in left if id < last}
            left = [id for id in left if id > last or (id == last and found[id] < FEW)]
        return counts

    def pending_counts(self, children: Iterable[ObjectId], session: Session = None) -> dict[ObjectId, int]:
        """The exact number of unsettled edges of each child, however many."""
        ids = list(children)
        counts = dict.fromkeys(ids, 0)
        pipeline: list[Document] = [
            {"$match": {"child": {"$in": ids}, "settled": False}},
            {"$group": {"_id": "$child", "count": {"$sum": 1}}},
        ]
        return counts | {d["_id"]: d["count"] for d in self._edges.aggregate(pipeline, session=session)}

    def children(self, parents: Iterable[ObjectId], session: Session = None) -> set[ObjectId]:
        """The children of these parents."""
        found = self._edges.find({"parent": {"$in": list(parents)}}, {"child": 1, "_id": 0}, session=session)
        return {d["child"] for d in found}

    def weights(self, tasks: Iterable[ObjectId]) -> dict[ObjectId, int]:
        """The number of edges that the deletion of each task changes, for tasks with any: see `delete_to`."""
        ids = list(tasks)
        weights: dict[ObjectId, int] = {}
        for end, where in (("child", {}), ("parent", _OUTDATED)):
            pipeline: list[Document] = [
                {"$match": {end: {"$in": ids}, **where}},
                {"$group": {"_id": f"${end}", "count": {"$sum": 1}}},
            ]
            for group in self._edges.aggregate(pipeline):
                weights[group["_id"]] = weights.get(group["_id"], 0) + group["count"]
        return weights

    def delete_to(self, children: Sequence[ObjectId], session: Session = None) -> None:
        """Delete all edges to deleted tasks; edges from them stay, because they record how the parents ended."""
        self._edges.delete_many({"child": {"$in": list(children)}}, session=session)

    def outdate(self, edges: Sequence[Edge], session: Session) -> None:
        """Mark edges whose parents begin again while the edges stay unchanged."""
        if edges:
            ids = [edge.id for edge in edges]
            self._edges.update_many({"_id": {"$in": ids}}, {"$set": _OUTDATED}, session=session)

    def outdated_from(self, parents: Iterable[ObjectId], session: Session = None) -> set[ObjectId]:
        """The parents with an edge that does not show the parent's last end."""
        return set(self._edges.distinct("parent", {"parent": {"$in": list(parents)}, **_OUTDATED}, session=session))

    def outdated_to(self, children: Iterable[ObjectId], session: Session = None) -> list[Edge]:
        """The edges to these children that do not show the last ends of their parents."""
        return [edge_of(d) for d in self._edges.find({"child": {"$in": list(children)}, **_OUTDATED}, session=session)]

    def renew(self, parent: ObjectId, on: str, satisfied: bool, session: Session = None) -> None:
        """Update the outdated edges of a parent that wait for `on` to its last end."""
        where = {"parent": parent, "on": on, **_OUTDATED}
        update = {"$set": {"settled": True, "satisfied": satisfied}, "$unset": {"outdated": 1}}
        self._edges.update_many(where, update, session=session)

    def correct(self, edges: Sequence[Edge], satisfied: bool, session: Session) -> None:
        """Update outdated edges to the last ends of their parents."""
        if edges:
            update = {"$set": {"settled": True, "satisfied": satisfied}, "$unset": {"outdated": 1}}
            self._edges.update_many({"_id": {"$in": [edge.id for edge in edges]}}, update, session=session)

    def broken_by(self, child: ObjectId, limit: int, session: Session = None) -> list[ObjectId]:
        """Some of the parents whose ends do not satisfy their edges to a child."""
        where = {"child": child, "settled": True, "satisfied": False}
        found = self._edges.find(where, {"parent": 1}, session=session).sort(list(_BY_CHILD.items())).limit(limit)
        return [d["parent"] for d in found]

    def remove_between(self, parents: Iterable[ObjectId], children: Iterable[ObjectId], session: Session) -> int:
        """Remove the edges from any of these parents to any of these children; return their number."""
        where = {"parent": {"$in": list(parents)}, "child": {"$in": list(children)}}
        return self._edges.delete_many(where, session=session).deleted_count

    def naming(self, ids: Iterable[ObjectId], session: Session = None) -> set[ObjectId]:
        """The given ids that are a parent or a child of any edge."""
        wanted = list(ids)
        ends: set[ObjectId] = set()
        for end in ("parent", "child"):
            ends |= set(self._edges.distinct(end, {end: {"$in": wanted}}, session=session))
        return ends


def edge_of(document: Document) -> Edge:
    """The edge that a document describes."""
    return Edge(
        id=document["_id"],
        parent=document["parent"],
        child=document["child"],
        on=document["on"],
        settled=document["settled"],
        satisfied=document.get("satisfied"),
        owner=document.get("owner", ""),
        life=document["life"],
        outdated=document.get("outdated", False),
    )


def edge_document(edge: Edge) -> Document:
    """An edge as it is stored."""
    document = {"_id": edge.id, "parent": edge.parent, "child": edge.child, "on": edge.on}
    document |= {"settled": edge.settled, "owner": edge.owner, "life": edge.life}
    return document if edge.satisfied is None else document | {"satisfied": edge.satisfied}
