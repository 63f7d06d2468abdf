"""Submissions that are too large for one transaction: their parts are stored first and become tasks one by one.

The collection `submissions` has a document for each submission that was accepted and is not complete;
`submission_parts` holds the parts that are not tasks yet. Parts of a submission that was never accepted are garbage.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import bson
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession
from pymongo.database import Database

from banyan.domain.continuations import Edge
from banyan.errors import Conflict
from banyan.storage.edges import edge_document, edge_of

Document = dict[str, Any]
Session = ClientSession | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Tasks and edges that are created together; `parents` are the parents of the edges that are older than all parts.

    The tasks are BSON, which is written several times without being decoded. The facts that the server needs of them
    are fields of the part: the number of claimable tasks by class, the groups that have ended and are parents, and the
    tasks that may be ready.
    """

    tasks: Sequence[bytes] = ()
    edges: Sequence[Edge] = ()
    parents: Sequence[ObjectId] = ()
    claimable: Mapping[str, int] = field(default_factory=dict)
    ended: Sequence[ObjectId] = ()
    unpromoted: Sequence[ObjectId] = ()
    given: Sequence[ObjectId] = ()
    """The ids of the tasks that the client chose: another client may choose the same."""

    def without(self, taken: Collection[ObjectId], existing: Collection[tuple[ObjectId, ObjectId]]) -> "Part":
        """Return the part without the tasks with these ids and without the edges with these ends."""
        tasks = [each for each in self.tasks if RawBSONDocument(each)["_id"] not in taken]
        edges = [edge for edge in self.edges if (edge.parent, edge.child) not in existing]
        return replace(self, tasks=tasks, edges=edges)


class PartStore:
    """Parts by submission and number; `next` in the submission is the number of the next part."""

    def __init__(self, db: Database[Document]) -> None:
        self._submissions = db["submissions"]
        self._parts = db["submission_parts"]

    def prepare(self) -> None:
        """Create the indexes on parts."""
        self._parts.create_index([("submission", 1), ("number", 1)], unique=True, name="part")
        self._parts.create_index("given", name="given", partialFilterExpression={"given": {"$exists": True}})
        self._submissions.create_index("touched", name="touched")

    def put_aside(self, submission: ObjectId, number: int, part: Part) -> None:
        """Store a part for later."""
        self._parts.insert_one(
            {
                "submission": submission,
                "number": number,
                "tasks": list(part.tasks),
                "edges": [edge_document(edge) for edge in part.edges],
                "parents": list(part.parents),
                "claimable": dict(part.claimable),
                "ended": list(part.ended),
                "unpromoted": list(part.unpromoted),
                **({"given": list(part.given)} if part.given else {}),
            }
        )

    def promised(self, ids: Iterable[ObjectId], session: Session = None) -> set[ObjectId]:
        """The given ids that belong to tasks of accepted submissions and whose tasks do not exist yet."""
        wanted = set(ids)
        if not wanted or not self.any_pending(session):
            return set()
        found = self._parts.find(
            {"given": {"$exists": True, "$in": list(wanted)}}, {"_id": 0, "submission": 1, "given": 1}, session=session
        )
        by_submission: dict[ObjectId, set[ObjectId]] = defaultdict(set)
        for part in found:
            by_submission[part["submission"]] |= wanted.intersection(part["given"])
        return {id for submission in self.pending(by_submission, session) for id in by_submission[submission]}

    def drop(self, submissions: Iterable[ObjectId]) -> None:
        """Remove the parts of submissions that are given up."""
        self._parts.delete_many({"submission": {"$in": list(submissions)}})

    def accept(
        self, submission: ObjectId, count: int, children: Iterable[ObjectId], now: datetime, session: Session = None
    ) -> None:
        """Accept the submission: all `count` parts will be created; raises `Conflict` when parts are missing.

        `children` are older tasks that get parents by it.
        """
        if self._parts.count_documents({"submission": submission}, session=session) != count:
            raise Conflict("it took so long that what was put aside has been removed; send it again")
        fresh = {"_id": submission, "next": 0, "count": count, "children": list(children), "touched": now}
        self._submissions.insert_one(fresh, session=session)

    def find(self, submission: ObjectId) -> Document | None:
        """An accepted submission that is not complete: `next`, `count`, `children`."""
        return self._submissions.find_one({"_id": submission})

    def pending(self, submissions: Iterable[ObjectId], session: Session = None) -> set[ObjectId]:
        """The given submissions that are accepted and not complete."""
        where = {"_id": {"$in": list(submissions)}}
        return {d["_id"] for d in self._submissions.find(where, {"_id": 1}, session=session)}

    def any_pending(self, session: Session = None) -> bool:
        """Return whether any submission is accepted and not complete."""
        return self._submissions.find_one({}, {"_id": 1}, session=session) is not None

    def take(self, submission: Mapping[str, Any], now: datetime, session: Session = None) -> Part | None:
        """Take the next part of a submission (as it was found), within the transaction that creates it.

        None when another process took it. With the last part the submission is complete.
        """
        id, number = submission["_id"], submission["next"]
        mine = {"_id": id, "next": number}
        if number + 1 == submission["count"]:
            taken = self._submissions.delete_one(mine, session=session).deleted_count
        else:
            further = {"$set": {"next": number + 1, "touched": now}}
            taken = self._submissions.update_one(mine, further, session=session).matched_count
        if not taken:
            return None
        part = self._parts.find_one_and_delete({"submission": id, "number": number}, session=session)
        if part is None:
            raise LookupError(f"part {number} of submission {id} is missing")
        return Part(
            tasks=[each if isinstance(each, bytes) else bson.encode(each) for each in part["tasks"]],
            edges=[edge_of(each) for each in part["edges"]],
            parents=part["parents"],
            claimable=part.get("claimable", {}),
            ended=part.get("ended", []),
            unpromoted=part.get("unpromoted", []),
            given=part.get("given", []),
        )

    def interrupted(self, before: datetime) -> list[ObjectId]:
        """Accepted submissions without progress since `before`."""
        return [d["_id"] for d in self._submissions.find({"touched": {"$lt": before}}, {"_id": 1})]

    def remains(self, before: datetime) -> list[ObjectId]:
        """Submissions with parts from before `before` that were never accepted."""
        ids: list[ObjectId] = self._parts.distinct("submission", {"_id": {"$lt": ObjectId.from_datetime(before)}})
        accepted = self.pending(ids)
        return [id for id in ids if id not in accepted]
