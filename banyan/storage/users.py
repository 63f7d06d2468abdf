"""The collection `users`: names, roles and tokens; tokens are stored as digests only."""

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
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from banyan.domain.roles import Role
from banyan.errors import Invalid, NotFound
from banyan.spelling import unknown
from banyan.storage.reach import transact

Document = dict[str, Any]

CACHE_SECONDS = 5.0
"""The longest time for which another server process still accepts a removed token."""

_ADMINS = {"_id": "admins"}
"""Every removal of an admin writes this document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The holder of a token."""

    name: str
    role: Role
    expires: datetime | None = None

    def expired(self, now: datetime) -> bool:
        """Return whether the token has expired; a token without a date never does."""
        return self.expires is not None and self.expires <= now


class UserStore:
    """Users by name and by token. `clock` is a monotonic clock in seconds, for the small cache of known tokens."""

    def __init__(self, db: Database[Document], clock: Callable[[], float] = time.monotonic) -> None:
        self._users = db["users"]
        self._retired = db["retired_tokens"]
        self._meta = db["meta"]
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, User]] = {}

    def prepare(self) -> None:
        """Create the indexes: one user per name and per token."""
        self._users.create_index("name", unique=True, name="name")
        self._users.create_index("digest", unique=True, name="digest")
        # Create the collection here: a transaction that has to create it would block all others.
        self._retired.create_index("time", name="time")

    def add(self, name: str, role: Role, now: datetime, expires: datetime | None = None) -> str:
        """Create a user and return the token, which is shown only now; Invalid if the name is taken."""
        token = _new_token()
        fresh = {"_id": ObjectId(), "name": name, "_created": now, **_changed(role, token, now, expires)}
        try:
            self._users.insert_one(fresh)
        except DuplicateKeyError as error:
            text = f"there is a user {name!r} already; rotate its token, or remove it first"
            raise Invalid({"name": text}) from error
        return token

    def make_sure(self, name: str, role: Role, token: str, now: datetime) -> bool:
        """Ensure that the user exists with this role and token; a matching token keeps its expiry.

        Returns False, and changes nothing, for a token that was rotated away or whose user was removed: an old token
        file does not restore it.
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
        """Replace the user's token and return the new one; the old one ends for good.

        `NotFound` if there is no such user.
        """
        token = _new_token()

        def act(session: ClientSession) -> None:
            self._retire(self._known(name, session), now, session)
            change = {"digest": _digest(token), "expires": expires, "_etag": str(ObjectId()), "_updated": now}
            self._users.update_one({"name": name}, {"$set": change}, session=session)

        self._at_once(act)
        return token

    def remove(self, name: str, now: datetime) -> None:
        """Remove the user; Invalid if no admin with a valid token would be left, `NotFound` if there is no such user.

        Of two concurrent removals of admins, the second counts only the admins that the first has left.
        """

        def act(session: ClientSession) -> None:
            found = self._known(name, session)
            if found["role"] == Role.ADMIN:
                # Both transactions write this document, so MongoDB does not let both commit.
                self._meta.update_one(_ADMINS, {"$set": {"changed": ObjectId()}}, upsert=True, session=session)
                others = self._users.find({"role": Role.ADMIN, "name": {"$ne": name}}, session=session)
                if all(_user(other).expired(now) for other in others):
                    raise Invalid({"name": f"{name!r} is the last admin; make another one first"})
            self._retire(found, now, session)
            self._users.delete_one({"name": name}, session=session)

        self._at_once(act)

    def _at_once(self, act: Callable[[ClientSession], None]) -> None:
        """Run `act` in one transaction, and clear the cache of tokens."""
        with self._users.database.client.start_session() as session:
            transact(session, act)
        self._forget()

    def _known(self, name: str, session: ClientSession) -> Document:
        found = self._users.find_one({"name": name}, session=session)
        if found is None:
            raise self._unknown(name, session)
        return found

    def _unknown(self, name: str, session: ClientSession | None = None) -> NotFound:
        known = [d["name"] for d in self._users.find({}, {"name": 1}, session=session)]
        return NotFound(unknown("user", name, known))

    def _retire(self, user: Document, now: datetime, session: ClientSession) -> None:
        change = {"$setOnInsert": {"time": now}}
        self._retired.update_one({"_id": user["digest"]}, change, upsert=True, session=session)

    def list(self) -> list[User]:
        """All users in the order of their names."""
        return [_user(document) for document in self._users.find().sort("name")]

    def document(self, name: str) -> Document:
        """The public fields of a user; NotFound if there is none."""
        found = self._users.find_one({"name": name}, {"digest": 0})
        if found is None:
            raise self._unknown(name)
        return found

    def by_token(self, token: str) -> User | None:
        """The user of a token, even of an expired one; None for a wrong one."""
        digest = _digest(token)
        with self._lock:
            known = self._seen.get(digest)
        if known is not None and self._clock() - known[0] < CACHE_SECONDS:
            return known[1]
        found = self._users.find_one({"digest": digest})
        if found is None or not hmac.compare_digest(str(found["digest"]), digest):
            return None
        user = _user(found)
        with self._lock:
            self._seen[digest] = (self._clock(), user)
        return user

    def _forget(self) -> None:
        with self._lock:
            self._seen.clear()


def _new_token() -> str:
    return secrets.token_urlsafe(24)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _changed(role: Role, token: str, now: datetime, expires: datetime | None = None) -> Document:
    known = {"role": role.value, "digest": _digest(token), "expires": expires}
    return known | {"_etag": str(ObjectId()), "_updated": now}


def _user(document: Document) -> User:
    return User(name=document["name"], role=Role(document["role"]), expires=document.get("expires"))
