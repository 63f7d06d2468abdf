"""The collection `idempotency`: completed requests and their responses, kept for a day."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from banyan.errors import Invalid, StillRunning

Document = dict[str, Any]
Session = ClientSession | None

ABANDONED_SECONDS = 60.0
"""The time without a response after which the server of a request counts as dead and the request begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A request in progress: the digest of its user, route and `Idempotency-Key`, and the process that holds it."""

    id: str
    digest: str
    holder: ObjectId


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstAnswer:
    """The stored response of the first request; `body` is None when it was not to be kept."""

    status: int
    body: bytes | None


class IdempotencyStore:
    """Requests by key; the unique `_id` decides which server does the work."""

    def __init__(self, db: Database[Document]) -> None:
        self._requests = db["idempotency"]

    def prepare(self) -> None:
        """Create the index that removes old requests."""
        self._requests.create_index("expires", expireAfterSeconds=0, name="expiry")

    def begin(self, id: str, digest: str, now: datetime, kept_seconds: float) -> Key | FirstAnswer:
        """Begin the work, or return the response of the first request with this key and body.

        The response is kept for `kept_seconds`. Raises `Invalid` when the key was used with another body,
        `StillRunning` while the first request is in progress.
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
            return key  # MongoDB removes it within about a minute
        if known is None:
            raise StillRunning("the first request with this Idempotency-Key has just failed; send it again")
        if known["digest"] != key.digest:
            raise Invalid({"Idempotency-Key": "this key was used with another body; take a new key"})
        if "status" in known:
            body = known["body"]
            return FirstAnswer(status=known["status"], body=None if body is None else bytes(body))
        if now - known["begun"] >= timedelta(seconds=ABANDONED_SECONDS) and self._take(known, fresh):
            return key
        raise StillRunning("the first request with this Idempotency-Key is still running; send it again in a moment")

    def _take(self, known: Document, fresh: Document) -> bool:
        """Begin a request anew, unless it was completed, or begun anew by another server, since it was read."""
        as_read = {"_id": known["_id"], "holder": known["holder"], "status": known.get("status")}
        anew = {"$set": fresh, "$unset": {"status": 1, "body": 1}}
        return self._requests.update_one(as_read, anew).matched_count == 1

    def finish(self, key: Key, status: int, body: bytes | None, session: Session = None) -> None:
        """Store the response; within a transaction it is stored exactly if the work is.

        Raises `StillRunning` when another server has taken the request over.
        """
        mine = {"_id": key.id, "holder": key.holder}
        answer = {"$set": {"status": status, "body": body}}
        if not self._requests.update_one(mine, answer, session=session).matched_count:
            raise StillRunning("another server has taken this request over; send it again for its response")

    def release(self, key: Key) -> None:
        """Remove a request that failed, so that it can be sent again with the same key."""
        self._requests.delete_one({"_id": key.id, "holder": key.holder, "status": {"$exists": False}})
