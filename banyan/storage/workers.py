"""The collection `workers`: registrations, the time of each worker's last sign of life, and its latest claim."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument, UpdateOne, WriteConcern
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.read_concern import ReadConcern

Document = dict[str, Any]
Session = ClientSession | None

ACTIVE = "active"
DRAINING = "draining"
QUARANTINED = "quarantined"
LOST = "lost"
GONE = "gone"
ALIVE = (ACTIVE, DRAINING, QUARANTINED)
MAX_LACKING = 200
"""The largest number of directories that a worker is recorded to lack."""


class WorkerStore:
    """Workers by id; ids are never reused."""

    def __init__(self, db: Database[Document]) -> None:
        self._workers = db["workers"]
        self._heard = self._workers.with_options(
            write_concern=WriteConcern(w=1, j=False), read_concern=ReadConcern("local")
        )
        """The collection for signs of life: losing one is harmless, so no write waits for a disk, and each is visible
        at once."""

    def prepare(self) -> None:
        """Create the indexes for leases and listings."""
        self._workers.create_index([("state", 1), ("last_seen", 1)], name="lease")

    def register(self, document: Document) -> None:
        """Store a new worker."""
        self._workers.insert_one(document)

    def load(self, worker: ObjectId) -> Document | None:
        """The stored worker."""
        return self._heard.find_one({"_id": worker})

    def in_states(self, states: Iterable[str] = ALIVE) -> list[Document]:
        """All workers in these states."""
        return list(self._workers.find({"state": {"$in": list(states)}}))

    def latest_lost(self, limit: int = 1) -> list[Document]:
        """Workers that are lost or gone, in the order of their last sign of life, latest first."""
        left = {"state": {"$in": [LOST, GONE]}}
        return list(self._workers.find(left).sort("last_seen", -1).limit(limit))

    def by_id(self, ids: Iterable[ObjectId]) -> dict[ObjectId, Document]:
        """Workers by id; missing ones are left out."""
        return {d["_id"]: d for d in self._workers.find({"_id": {"$in": list(ids)}})}

    def renew(
        self,
        worker: ObjectId,
        now: datetime,
        fields: Mapping[str, Any] | None = None,
        number: int | None = None,
        owner: str | None = None,
    ) -> Document | None:
        """Record a sign of life; return the worker as it was before, or None if it is lost, gone or unknown.

        `number` is that of a claim: None also if the worker has sent a later claim. With `owner`: None also if the
        worker belongs to another user.
        """
        where: Document = {"_id": worker, "state": {"$in": list(ALIVE)}}
        if owner is not None:
            where["owner"] = owner
        seen: Document = {**(fields or {}), "last_seen": now}
        if number is not None:
            where["$or"] = [{"claim_number": {"$exists": False}}, {"claim_number": {"$lte": number}}]
            seen["claim_number"] = number
        return self._heard.find_one_and_update(where, {"$set": seen})

    def claims_by_hand(self, worker: ObjectId, session: Session) -> Document | None:
        """Make a claim by hand conflict with a change of the worker's state; return the worker.

        None if it is lost, gone or unknown.
        """
        alive = {"_id": worker, "state": {"$in": list(ALIVE)}}
        return self._workers.find_one_and_update(alive, {"$inc": {"claims_by_hand": 1}}, session=session)

    def with_waiting(self, seconds: float, but: ObjectId) -> list[Document]:
        """Other workers that reported more than so many seconds of waiting work."""
        where = {"_id": {"$ne": but}, "state": {"$in": list(ALIVE)}, "waiting_seconds": {"$gt": seconds}}
        return list(self._heard.find(where, {"waiting_seconds": 1, "resources": 1}))

    def silent_since(self, before: datetime, now: datetime | None = None) -> list[ObjectId]:
        """Workers that count as alive and sent their last sign of life before `before`.

        With `now`, workers are left out whose own lease (`lease_seconds`, as it was sent to them) has not ended yet.
        """
        where = {"state": {"$in": list(ALIVE)}, "last_seen": {"$lt": before}}
        found = self._workers.find(where, {"last_seen": 1, "lease_seconds": 1})
        return [each["_id"] for each in found if now is None or _lease_ended(each, now)]

    def move(self, worker: ObjectId, to: str, now: datetime, only_silent_since: datetime | None = None) -> bool:
        """Change the state of a living worker; False if it is lost or gone, or sent a sign of life meanwhile."""
        where: Document = {"_id": worker, "state": {"$in": list(ALIVE)}}
        if only_silent_since is not None:
            where["last_seen"] = {"$lt": only_silent_since}
        fields: Document = {"state": to, "_updated": now, "drain_told": None}
        if to in (LOST, GONE):
            fields["time_left"] = now
        update: Document = {"$set": fields, "$unset": {"quarantine": 1, "failing": 1}}
        return self._workers.update_one(where, update).matched_count == 1

    def failed(self, worker: ObjectId, subjects: Iterable[str]) -> Document | None:
        """Record the failures of an active worker's own (`failing`, each once); None if it is not active."""
        return self._workers.find_one_and_update(
            {"_id": worker, "state": ACTIVE},
            {"$addToSet": {"failing": {"$each": list(subjects)}}},
            return_document=ReturnDocument.AFTER,
        )

    def failing(self, workers: Iterable[ObjectId]) -> list[ObjectId]:
        """The workers among these with recent failures of their own."""
        where = {"_id": {"$in": list(workers)}, "failing": {"$exists": True}}
        return [d["_id"] for d in self._workers.find(where, {"_id": 1})]

    def did_well(self, workers: Iterable[ObjectId]) -> None:
        """Clear the recorded failures of these workers."""
        failing = {"_id": {"$in": list(workers)}, "failing": {"$exists": True}}
        self._workers.update_many(failing, {"$unset": {"failing": 1}})

    def lack(self, worker: ObjectId, paths: Iterable[str], now: datetime, until: datetime) -> None:
        """Record until when a worker is known to lack these directories; the newest `MAX_LACKING` records are kept."""
        field, notes = "lacking_directories", [{"path": path, "since": now, "until": until} for path in paths]
        known = {"$or": [{"path": {"$in": [note["path"] for note in notes]}}, {"until": {"$lte": now}}]}
        add = {"$each": notes, "$slice": -MAX_LACKING}
        self._workers.bulk_write(
            [UpdateOne({"_id": worker}, {"$pull": {field: known}}), UpdateOne({"_id": worker}, {"$push": {field: add}})]
        )

    def quarantine(self, worker: ObjectId, reason: str, now: datetime, until: datetime | None) -> bool:
        """Quarantine an active worker, which then gets no more tasks; False if it is not active."""
        told = {"reason": reason, "since": now} | ({} if until is None else {"until": until})
        fields = {"state": QUARANTINED, "quarantine": told, "_updated": now, "drain_told": None}
        return self._workers.update_one({"_id": worker, "state": ACTIVE}, {"$set": fields}).matched_count == 1

    def quarantined_until(self, now: datetime) -> list[ObjectId]:
        """Workers whose quarantine has expired."""
        over = {"state": QUARANTINED, "quarantine.until": {"$lte": now}}
        return [d["_id"] for d in self._workers.find(over, {"_id": 1})]

    def release(self, worker: ObjectId, now: datetime) -> bool:
        """Make a worker active whose quarantine has expired; False if it is active already, or lost or gone.

        Its earlier failures stay recorded, so that one more failure is enough.
        """
        over = {"_id": worker, "state": QUARANTINED, "quarantine.until": {"$lte": now}}
        fields = {"state": ACTIVE, "_updated": now, "drain_told": None}
        update: Document = {"$set": fields, "$unset": {"quarantine": 1}}
        return self._workers.update_one(over, update).matched_count == 1


def _lease_ended(worker: Document, now: datetime) -> bool:
    return bool(now - worker["last_seen"] > timedelta(seconds=worker.get("lease_seconds") or 0))
