"""MongoDB's clock, known to a server without a request for each reading."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pymongo.errors import PyMongoError

log = logging.getLogger(__name__)

_SYNC_SECONDS = 10.0
_AGAIN_SECONDS = 2.0
_GOOD_ROUND_TRIP_SECONDS = 0.5
_OLD_SECONDS = 120.0


class Clock:
    """MongoDB's clock, read from time to time and advanced by the monotonic clock in between.

    While MongoDB cannot be read, or when a response took too long to be precise, the last reading is advanced. `read`
    reads MongoDB's clock; `monotonic` counts seconds.
    """

    def __init__(self, read: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._monotonic = monotonic
        self._turn = threading.Lock()
        self._base: tuple[datetime, float] | None = None
        self._again_at = 0.0

    def now(self) -> datetime:
        """MongoDB's time in UTC, to the millisecond that BSON keeps; raises the driver's error if it was never read."""
        base, at = self._base or self._first()
        if self._monotonic() >= self._again_at and self._turn.acquire(blocking=False):
            try:
                base, at = self._sync(base, at)
            finally:
                self._turn.release()
        current = base + timedelta(seconds=self._monotonic() - at)
        return current.replace(microsecond=current.microsecond // 1000 * 1000)

    def _first(self) -> tuple[datetime, float]:
        with self._turn:
            if self._base is None:
                self._base, _ = self._asked()
                self._again_at = self._monotonic() + _SYNC_SECONDS
            return self._base

    def _sync(self, base: datetime, at: float) -> tuple[datetime, float]:
        """A new reading, unless the old one is better."""
        try:
            (time_read, read_at), round_trip = self._asked()
        except PyMongoError as error:
            log.debug("the clock was not read: %s", error)
            self._again_at = self._monotonic() + _AGAIN_SECONDS
            return base, at
        good = round_trip <= _GOOD_ROUND_TRIP_SECONDS or read_at - at > _OLD_SECONDS
        self._again_at = self._monotonic() + (_SYNC_SECONDS if good else _AGAIN_SECONDS)
        if good:
            self._base = base, at = time_read, read_at
        return base, at

    def _asked(self) -> tuple[tuple[datetime, float], float]:
        before = self._monotonic()
        read = self._read().astimezone(UTC)
        after = self._monotonic()
        return (read, (before + after) / 2), after - before
