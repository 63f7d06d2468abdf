"""A clock that a test moves."""

from datetime import datetime, timedelta

from banyan.storage.mongo import Clock, Storage


class Ahead(Clock):
    """Another clock, `seconds` ahead of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds = 0.0

    def now(self) -> datetime:
        """The other clock's time, and what was added."""
        return self._clock.now() + timedelta(seconds=self.seconds)


def moved(storage: Storage) -> Ahead:
    """Make the storage's clock one that the test moves."""
    ahead = Ahead(storage.clock)
    storage.clock = ahead
    return ahead
