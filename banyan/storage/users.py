"""The collection `users`: who may use the server, in which role; tokens are kept as digests only."""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from banyan.domain.roles import Role
from banyan.errors import Conflict, Invalid, NotFound

Document = dict[str, Any]

CACHE_SECONDS = 5.0
"""How long another server process may still accept a token that was taken away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The holder of a token."""

    name: str
    role: Role
    expires: datetime | None = None

    def expired(self, now: datetime) -> bool:
        """Whether the token has had its time; without a date it never does."""
        return self.expires is not None and self.expires <= now


class UserStore:
    """Users by name and by token. `clock` is a monotonic clock in seconds, for the small cache of known tokens."""

    def __init__(self, db: Database[Document], clock: Callable[[], float] = time.monotonic) -> None:
        self._users = db["users"]
        self._retired = db["retired_tokens"]
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, User]] = {}

    def prepare(self) -> None:
        """Create the indexes: one user per name and per token."""
        self._users.create_index("name", unique=True, name="name")
        self._users.create_index("digest", unique=True, name="digest")

    def add(self, name: str, role: Role, now: datetime, expires: datetime | None = None) -> str:
        """Make a user and return the token, which is shown this once; Invalid if the name is taken."""
        token = _new_token()
        fresh = {"_id": ObjectId(), "name": name, "_created": now, **_changed(role, token, now, expires)}
        try:
            self._users.insert_one(fresh)
        except DuplicateKeyError as error:
            text = f"there is a user {name!r} already; rotate its token, or remove it first"
            raise Invalid({"name": text}) from error
        return token

    def make_sure(self, name: str, role: Role, token: str, now: datetime) -> bool:
        """Let the user exist with this role and token, whatever it had before; a token that it has keeps its expiry.

        Answers with False, and changes nothing, for a token that was rotated away or whose user was removed: a file
        that has outlived it does not bring it back.
        """
        digest = _digest(token)
        if self._retired.find_one({"_id": digest}) is not None:
            return False
        if self._users.find_one({"name": name, "role": role.value, "digest": digest}) is None:
            fresh = {"_id": ObjectId(), "_created": now}
            change = {"$set": _changed(role, token, now), "$setOnInsert": fresh}
            self._users.update_one({"name": name}, change, upsert=True)
            self._forget()
        return True

    def rotate(self, name: str, now: datetime, expires: datetime | None = None) -> str:
        """Give the user a new token and return it; the old one ends for good.

        Raises `NotFound` if there is no such user, `Conflict` if the token was changed at the same time.
        """
        known = self._users.find_one({"name": name})
        if known is None:
            raise _unknown(name)
        self._retire(known, now)
        token = _new_token()
        change = {"digest": _digest(token), "expires": expires, "_etag": str(ObjectId()), "_updated": now}
        written = self._users.update_one(_as_it_was(known), {"$set": change})
        self._forget()
        if not written.matched_count:
            raise _changed_meanwhile(name)
        return token

    def _retire(self, user: Document, now: datetime) -> None:
        self._retired.update_one({"_id": user["digest"]}, {"$setOnInsert": {"time": now}}, upsert=True)

    def remove(self, name: str, now: datetime) -> None:
        """Take the user away; Invalid if no admin with a token that is good would be left.

        Raises `NotFound` if there is no such user, `Conflict` if the token was changed at the same time.
        An admin is marked before the others are counted, so that two that remove each other at once both fail.
        """
        found = self._users.find_one({"name": name})
        if found is None:
            raise _unknown(name)
        if found["role"] == Role.ADMIN:
            self._users.update_one({"name": name}, {"$set": {"leaving": True}})
            others = self._users.find({"role": Role.ADMIN, "leaving": {"$ne": True}})
            if all(_user(other).expired(now) for other in others):
                self._keep(name)
                raise Invalid({"name": f"{name!r} is the last admin; make another one first"})
        self._retire(found, now)
        gone = self._users.delete_one(_as_it_was(found))
        self._forget()
        if not gone.deleted_count:
            self._keep(name)
            raise _changed_meanwhile(name)

    def _keep(self, name: str) -> None:
        """Take back the mark of one that is not removed after all."""
        self._users.update_one({"name": name}, {"$unset": {"leaving": 1}})

    def list(self) -> list[User]:
        """All users in the order of their names."""
        return [_user(document) for document in self._users.find().sort("name")]

    def document(self, name: str) -> Document:
        """What may be shown of a user; NotFound if there is none."""
        found = self._users.find_one({"name": name}, {"digest": 0, "leaving": 0})
        if found is None:
            raise _unknown(name)
        return found

    def by_token(self, token: str) -> User | None:
        """Whose token it is, also one that has expired; None for a wrong one."""
        digest = _digest(token)
        with self._lock:
            known = self._known.get(digest)
        if known is not None and self._clock() - known[0] < CACHE_SECONDS:
            return known[1]
        found = self._users.find_one({"digest": digest})
        if found is None or not hmac.compare_digest(str(found["digest"]), digest):
            return None
        user = _user(found)
        with self._lock:
            self._known[digest] = (self._clock(), user)
        return user

    def _forget(self) -> None:
        with self._lock:
            self._known.clear()


def _new_token() -> str:
    return secrets.token_urlsafe(24)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _changed(role: Role, token: str, now: datetime, expires: datetime | None = None) -> Document:
    known = {"role": role.value, "digest": _digest(token), "expires": expires}
    return known | {"_etag": str(ObjectId()), "_updated": now}


def _user(document: Document) -> User:
    return User(name=document["name"], role=Role(document["role"]), expires=document.get("expires"))


def _as_it_was(user: Document) -> Document:
    return {"_id": user["_id"], "digest": user["digest"]}


def _changed_meanwhile(name: str) -> Conflict:
    return Conflict(f"user {name!r} was changed meanwhile; try again")


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no user {name!r}")
