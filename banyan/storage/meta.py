"""Facts about the queue as a whole: its secret, and the start of its leases (`upgrade` has the schema's version)."""

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError


class MetaStore:
    """One document for each fact in the collection `meta`."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._meta = db["meta"]
        self._secret: bytes | None = None

    def prepare(self) -> None:
        """Write the secret of a new database."""
        self._meta.update_one({"_id": "secret"}, {"$setOnInsert": {"key": secrets.token_bytes(32)}}, upsert=True)

    def attempt_token(self, execution: ObjectId) -> str:
        """The token of an attempt: a keyed digest of its id, so that it need not be stored."""
        if self._secret is None:
            document = self._meta.find_one({"_id": "secret"})
            if document is None:
                raise LookupError("the collection meta has no secret; prepare() writes one")
            self._secret = bytes(document["key"])
        return hmac.new(self._secret, execution.binary, hashlib.sha256).hexdigest()[:40]

    def token_matches(self, execution: ObjectId, token: object) -> bool:
        """Return whether `token` is the attempt's, compared in constant time."""
        return isinstance(token, str) and hmac.compare_digest(self.attempt_token(execution).encode(), token.encode())

    def leases_count_from(self, now: datetime, outage: timedelta) -> datetime:
        """Record that a server is watching, and return the time from which a worker's silence counts.

        When no server watched for longer than `outage` (all servers were down, or MongoDB was), all leases start anew.
        """
        for _ in range(10):
            known = self._meta.find_one({"_id": "leases"})
            if known is None:
                self._meta.update_one({"_id": "leases"}, {"$setOnInsert": {"since": now, "watched": now}}, upsert=True)
                continue
            since: datetime = known["since"] if now - known["watched"] <= outage else now
            written = self._meta.find_one_and_update(
                {"_id": "leases", "watched": known["watched"]},
                {"$set": {"since": since, "watched": max(now, known["watched"])}},
                return_document=ReturnDocument.AFTER,
            )
            if written is not None:
                return since
        return now

    def settings(self) -> dict[str, Any] | None:
        """The settings that all servers share, and the servers; None in a new database."""
        return self._meta.find_one({"_id": "settings"})

    def write_settings(self, revision: int, content: dict[str, Any]) -> bool:
        """Write the settings if they still have this revision (0: there are none); False if they do not."""
        change = {"$set": {**content, "revision": revision + 1}}
        guard = {"_id": "settings", **({"revision": revision} if revision else {"revision": {"$exists": False}})}
        try:
            done = self._meta.update_one(guard, change, upsert=revision == 0)
        except DuplicateKeyError:
            return False
        return done.matched_count > 0 or done.upserted_id is not None

    def catch_up(self) -> None:
        """Make the reads that follow see all acknowledged writes: a new primary may lag behind at first.

        A write that changes nothing waits until a majority has everything that the primary has.
        """
        self._meta.update_one({"_id": "nothing"}, {"$set": {"seen": True}})

    def touch_graph(self, session: ClientSession | None) -> None:
        """Make two concurrent edits of existing edges conflict: the second to commit is run again."""
        self._meta.update_one({"_id": "graph"}, {"$inc": {"revision": 1}}, upsert=True, session=session)
