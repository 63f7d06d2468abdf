"""How this server reaches MongoDB: what the driver is told, and since when no primary answers."""

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
"""How long an operation waits for a primary."""
MAJORITY_SECONDS = 10.0
"""How long it waits for a majority, which a primary may be without for a while before it notices."""
COMMIT_SECONDS = 10.0
"""How long a commit is repeated of which nobody knows whether it was done."""

_DUPLICATE = 11000

AWAY = "MongoDB cannot be reached now; try again in a few seconds"

OPTIONS: dict[str, Any] = {
    # What a client was told of is on the disks of a majority. What it rests on is too: only that is read.
    "w": "majority",
    "journal": True,
    "wtimeoutMS": round(MAJORITY_SECONDS * 1000),
    "readConcernLevel": "majority",
    "readPreference": "primary",
    "retryWrites": True,
    "retryReads": True,
    # A mongod that hangs keeps its connections: after these two together the driver gives it up.
    "connectTimeoutMS": 3000,
    "heartbeatFrequencyMS": 2000,
    "serverSelectionTimeoutMS": round(SELECTION_SECONDS * 1000),
}
"""What goes before the same options in the setting mongo.uri."""


class Reach(TopologyListener):
    """Hears from the driver whether there is a primary; `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._away_since: float | None = None

    def opened(self, event: TopologyOpenedEvent) -> None:
        """Nothing is known yet."""

    def closed(self, event: TopologyClosedEvent) -> None:
        """Nothing is asked any more."""

    def description_changed(self, event: TopologyDescriptionChangedEvent) -> None:
        """Note when the last primary went."""
        self.found(event.new_description.has_writable_server())

    def found(self, primary: bool) -> None:
        """There is a primary now, or none."""
        with self._lock:
            if primary:
                self._away_since = None
            elif self._away_since is None:
                self._away_since = self._clock()

    def require(self) -> None:
        """Raise `Unavailable` at once if there has been no primary for so long that waiting for one is vain."""
        with self._lock:
            away_since = self._away_since
        if away_since is not None and self._clock() - away_since > SELECTION_SECONDS:
            raise Unavailable(AWAY)


def only_duplicates(error: BulkWriteError) -> bool:
    """Whether an insertion failed for nothing but documents that are there already, on a majority of disks."""
    details = error.details or {}
    codes = {fault.get("code") for fault in details.get("writeErrors", ())}
    return codes == {_DUPLICATE} and not details.get("writeConcernErrors")


def transact(session: ClientSession, act: Callable[[ClientSession], Result]) -> Result:
    """Run `act(session)` in a transaction, again when MongoDB says that it met another one.

    A MongoDB that is away is not waited for longer than for any other operation.
    """

    def whole(session: ClientSession) -> Result:
        try:
            result = act(session)
        except ServerSelectionTimeoutError as error:
            raise Unavailable(AWAY) from error  # of the driver's own error it would repeat the transaction for minutes
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
