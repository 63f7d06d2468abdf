"""The collection `workers`: who registered, since when each is silent, and which claim it waits in."""

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
"""Of so many directories a worker is known to lack them."""


class WorkerStore:
    """Workers by id; ids are never used again."""

    def __init__(self, db: Database[Document]) -> None:
        self._workers = db["workers"]
        self._heard = self._workers.with_options(
            write_concern=WriteConcern(w=1, j=False), read_concern=ReadConcern("local")
        )
        """For signs of life: nothing is lost with one, so none waits for a disk, and each is seen at once."""

    def prepare(self) -> None:
        """Create the indexes that leases and listings rest on."""
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
        """Workers that are lost or gone, those that were heard of last first."""
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
        """Note that a worker was heard of; the worker as it was before, or None if it is lost, gone or unknown.

        `number` is that of a claim: None also if the worker has sent a later one. With `owner`: if it is another's.
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
        """Make a claim by hand meet a change of the worker's state; the worker, None if it is lost, gone or unknown."""
        alive = {"_id": worker, "state": {"$in": list(ALIVE)}}
        return self._workers.find_one_and_update(alive, {"$inc": {"claims_by_hand": 1}}, session=session)

    def with_waiting(self, seconds: float, but: ObjectId) -> list[Document]:
        """Other workers at which work of more than so many seconds waits, as they have told."""
        where = {"_id": {"$ne": but}, "state": {"$in": list(ALIVE)}, "waiting_seconds": {"$gt": seconds}}
        return list(self._heard.find(where, {"waiting_seconds": 1, "resources": 1}))

    def silent_since(self, before: datetime, now: datetime | None = None) -> list[ObjectId]:
        """Workers that count as alive and were last heard of before `before`.

        With `now`, those are left out whose own lease (`lease_seconds`, as they were told) has not ended yet.
        """
        where = {"state": {"$in": list(ALIVE)}, "last_seen": {"$lt": before}}
        found = self._workers.find(where, {"last_seen": 1, "lease_seconds": 1})
        return [each["_id"] for each in found if now is None or _lease_ended(each, now)]

    def move(self, worker: ObjectId, to: str, now: datetime, only_silent_since: datetime | None = None) -> bool:
        """Change the state of a living worker; False if it is lost or gone already, or was heard of meanwhile."""
        where: Document = {"_id": worker, "state": {"$in": list(ALIVE)}}
        if only_silent_since is not None:
            where["last_seen"] = {"$lt": only_silent_since}
        fields: Document = {"state": to, "_updated": now, "drain_told": None}
        if to in (LOST, GONE):
            fields["time_left"] = now
        update: Document = {"$set": fields, "$unset": {"quarantine": 1, "failing": 1}}
        return self._workers.update_one(where, update).matched_count == 1

    def failed(self, worker: ObjectId, subjects: Iterable[str]) -> Document | None:
        """Note what an active worker failed by its own fault (`failing`, each once); the worker, None if it is not."""
        return self._workers.find_one_and_update(
            {"_id": worker, "state": ACTIVE},
            {"$addToSet": {"failing": {"$each": list(subjects)}}},
            return_document=ReturnDocument.AFTER,
        )

    def failing(self, workers: Iterable[ObjectId]) -> list[ObjectId]:
        """Those of the workers that have failed something by their own fault lately."""
        where = {"_id": {"$in": list(workers)}, "failing": {"$exists": True}}
        return [d["_id"] for d in self._workers.find(where, {"_id": 1})]

    def did_well(self, workers: Iterable[ObjectId]) -> None:
        """Forget what these workers failed before."""
        failing = {"_id": {"$in": list(workers)}, "failing": {"$exists": True}}
        self._workers.update_many(failing, {"$unset": {"failing": 1}})

    def lack(self, worker: ObjectId, paths: Iterable[str], now: datetime, until: datetime) -> None:
        """Note until when a worker is known to lack these directories; the newest `MAX_LACKING` notes are kept."""
        field, notes = "lacking_directories", [{"path": path, "since": now, "until": until} for path in paths]
        known = {"$or": [{"path": {"$in": [note["path"] for note in notes]}}, {"until": {"$lte": now}}]}
        add = {"$each": notes, "$slice": -MAX_LACKING}
        self._workers.bulk_write(
            [UpdateOne({"_id": worker}, {"$pull": {field: known}}), UpdateOne({"_id": worker}, {"$push": {field: add}})]
        )

    def quarantine(self, worker: ObjectId, reason: str, now: datetime, until: datetime | None) -> bool:
        """Give an active worker nothing more; False if it is not active."""
        told = {"reason": reason, "since": now} | ({} if until is None else {"until": until})
        fields = {"state": QUARANTINED, "quarantine": told, "_updated": now, "drain_told": None}
        return self._workers.update_one({"_id": worker, "state": ACTIVE}, {"$set": fields}).matched_count == 1

    def quarantined_until(self, now: datetime) -> list[ObjectId]:
        """Workers whose time in quarantine is over."""
        over = {"state": QUARANTINED, "quarantine.until": {"$lte": now}}
        return [d["_id"] for d in self._workers.find(over, {"_id": 1})]

    def release(self, worker: ObjectId, now: datetime) -> bool:
        """Let a worker whose time in quarantine is over be active; False if it is so already, or lost or gone.

        What it failed is still known, so that one more failure is enough.
        """
        over = {"_id": worker, "state": QUARANTINED, "quarantine.until": {"$lte": now}}
        fields = {"state": ACTIVE, "_updated": now, "drain_told": None}
        update: Document = {"$set": fields, "$unset": {"quarantine": 1}}
        return self._workers.update_one(over, update).matched_count == 1


def _lease_ended(worker: Document, now: datetime) -> bool:
    return bool(now - worker["last_seen"] > timedelta(seconds=worker.get("lease_seconds") or 0))
