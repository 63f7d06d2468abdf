"""The availability of MongoDB for this server: the driver's options, and the time since which no primary responds."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError, PyMongoError, ServerSelectionTimeoutError
from pymongo.monitoring import (
    CommandListener,
    TopologyClosedEvent,
    TopologyDescriptionChangedEvent,
    TopologyListener,
    TopologyOpenedEvent,
)

from banyan.errors import Unavailable

Result = TypeVar("Result")
Listener = CommandListener | TopologyListener

SELECTION_SECONDS = 5.0
"""The longest time that an operation waits for a primary."""
MAJORITY_SECONDS = 10.0
"""The longest time that it waits for a majority, whose absence a primary may notice late."""
COMMIT_SECONDS = 10.0
"""The longest time for which a commit of unknown outcome is repeated."""

_DUPLICATE = 11000

AWAY = "MongoDB cannot be reached now; try again in a few seconds"

OPTIONS: dict[str, Any] = {
    # A response to a client rests only on data on the disks of a majority: writes wait for it, and reads see only that.
    "w": "majority",
    "journal": True,
    "wtimeoutMS": round(MAJORITY_SECONDS * 1000),
    "readConcernLevel": "majority",
    "readPreference": "primary",
    "retryWrites": True,
    "retryReads": True,
    # A mongod that hangs keeps its connections: the driver gives it up after these two times together.
    "connectTimeoutMS": 3000,
    "heartbeatFrequencyMS": 2000,
    "serverSelectionTimeoutMS": round(SELECTION_SECONDS * 1000),
}
"""The options of the driver; they take precedence over the same options in the setting mongo.uri."""


class Reach(TopologyListener):
    """Receives the driver's events about primaries; `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._away_since: float | None = None

    def opened(self, event: TopologyOpenedEvent) -> None:
        """Ignore the event: no server is known yet."""

    def closed(self, event: TopologyClosedEvent) -> None:
        """Ignore the event: no request follows."""

    def description_changed(self, event: TopologyDescriptionChangedEvent) -> None:
        """Record when the last primary was lost."""
        self.found(event.new_description.has_writable_server())

    def found(self, primary: bool) -> None:
        """Record that there is a primary now, or none."""
        with self._lock:
            if primary:
                self._away_since = None
            elif self._away_since is None:
                self._away_since = self._clock()

    def require(self) -> None:
        """Raise `Unavailable` at once if there has been no primary for too long for a wait to help."""
        with self._lock:
            away_since = self._away_since
        if away_since is not None and self._clock() - away_since > SELECTION_SECONDS:
            raise Unavailable(AWAY)


def only_duplicates(error: BulkWriteError) -> bool:
    """Return whether an insertion failed only for documents that already exist, on a majority of disks."""
    details = error.details or {}
    codes = {fault.get("code") for fault in details.get("writeErrors", ())}
    return codes == {_DUPLICATE} and not details.get("writeConcernErrors")


def transact(session: ClientSession, act: Callable[[ClientSession], Result]) -> Result:
    """Run `act(session)` in a transaction; it is repeated when MongoDB reports a conflict with another one.

    The wait for an unavailable MongoDB is no longer than for any other operation.
    """

    def whole(session: ClientSession) -> Result:
        try:
            result = act(session)
        except ServerSelectionTimeoutError as error:
            raise Unavailable(AWAY) from error  # the driver would repeat its own error for minutes
        _commit(session)
        return result

    return session.with_transaction(whole)


def _commit(session: ClientSession) -> None:
    deadline = time.monotonic() + COMMIT_SECONDS
    while True:
        try:
            return session.commit_transaction()
        except PyMongoError as error:
            unknown = error.has_error_label("UnknownTransactionCommitResult")
            if not unknown or time.monotonic() > deadline:
                raise
