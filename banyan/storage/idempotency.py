"""The collection `idempotency`: which requests were answered, and with what, for a day."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from banyan.errors import Conflict, Invalid

Document = dict[str, Any]
Session = ClientSession | None

ABANDONED_SECONDS = 60.0
"""After so long without an answer, the server that began a request counts as dead, and the request begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A request under way: the digest of its user, route and `Idempotency-Key`, and who works on it."""

    id: str
    digest: str
    holder: ObjectId


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstAnswer:
    """The stored answer of the first request; `body` is None when it was not to be kept."""

    status: int
    body: bytes | None


class IdempotencyStore:
    """Requests by key; the one unique `_id` decides who does the work."""

    def __init__(self, db: Database[Document]) -> None:
        self._requests = db["idempotency"]

    def prepare(self) -> None:
        """Create the index that forgets old requests."""
        self._requests.create_index("expires", expireAfterSeconds=0, name="expiry")

    def begin(self, id: str, digest: str, now: datetime, kept_seconds: float) -> Key | FirstAnswer:
        """Begin the work, or get the answer of the first request with this key and body, which is kept for so long.

        Raises `Invalid` when the key was used with another body, `Conflict` while the first is still running.
        """
        key = Key(id=id, digest=digest, holder=ObjectId())
        fresh = {"digest": digest, "holder": key.holder, "begun": now}
        fresh["expires"] = now + timedelta(seconds=kept_seconds)
        try:
            self._requests.insert_one({"_id": id, **fresh})
        except DuplicateKeyError:
            return self._again(key, fresh, now)
        return key

    def _again(self, key: Key, fresh: Document, now: datetime) -> Key | FirstAnswer:
        known = self._requests.find_one({"_id": key.id})
        if known is not None and known["expires"] <= now and self._take(known, fresh):
            return key  # MongoDB removes it in a minute or so
        if known is None:
            raise Conflict("the first request with this Idempotency-Key has just failed; send it again")
        if known["digest"] != key.digest:
            raise Invalid({"Idempotency-Key": "this key was used with another body; take a new key"})
        if "status" in known:
            body = known["body"]
            return FirstAnswer(status=known["status"], body=None if body is None else bytes(body))
        if now - known["begun"] >= timedelta(seconds=ABANDONED_SECONDS) and self._take(known, fresh):
            return key
        raise Conflict("the first request with this Idempotency-Key is still running; ask again in a moment")

    def _take(self, known: Document, fresh: Document) -> bool:
        """Begin a request anew, unless it was answered, or begun anew by another server, since it was read."""
        as_read = {"_id": known["_id"], "holder": known["holder"], "status": known.get("status")}
        anew = {"$set": fresh, "$unset": {"status": 1, "body": 1}}
        return self._requests.update_one(as_read, anew).matched_count == 1

    def finish(self, key: Key, status: int, body: bytes | None, session: Session = None) -> None:
        """Store the answer; within a transaction it is there exactly if the work is.

        Raises `Conflict` when another server has taken the request over.
        """
        mine = {"_id": key.id, "holder": key.holder}
        answer = {"$set": {"status": status, "body": body}}
        if not self._requests.update_one(mine, answer, session=session).matched_count:
            raise Conflict("another server has taken this request over; ask again for its answer")

    def release(self, key: Key) -> None:
        """Forget a request that failed, so that it can be sent again with the same key."""
        self._requests.delete_one({"_id": key.id, "holder": key.holder, "status": {"$exists": False}})
