"""The clock of the server: MongoDB's, carried on where MongoDB cannot be asked."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from pymongo.errors import AutoReconnect

from banyan.storage.clock import Clock

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Mongo:
    """A MongoDB whose clock is `ahead` of the monotonic one, and takes a while to answer."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.ahead = 0.0
        self.takes = 0.0
        self.away = False
        self.asked = 0

    def monotonic(self) -> float:
        return self.seconds

    def read(self) -> datetime:
        self.asked += 1
        self.seconds += self.takes
        if self.away:
            raise AutoReconnect("nobody there")
        return EPOCH + timedelta(seconds=self.seconds + self.ahead)

    def time(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds + self.ahead)


def test_it_follows_mongodb_without_asking_each_time() -> None:
    mongo = Mongo()
    clock = Clock(mongo.read, mongo.monotonic)
    for _ in range(5):
        assert clock.now() == mongo.time()
        mongo.seconds += 1.0
    assert mongo.asked == 1
    mongo.ahead, mongo.seconds = 3.0, mongo.seconds + 10.0
    assert clock.now() == mongo.time()


def test_a_mongodb_that_is_away_stops_no_clock() -> None:
    mongo = Mongo()
    clock = Clock(mongo.read, mongo.monotonic)
    clock.now()
    mongo.away, mongo.seconds = True, mongo.seconds + 100.0
    assert [clock.now(), clock.now()] == [mongo.time()] * 2
    assert mongo.asked == 2
    mongo.away, mongo.ahead, mongo.seconds = False, 1.0, mongo.seconds + 5.0
    assert clock.now() == mongo.time()


def test_a_clock_that_was_never_read_is_no_clock() -> None:
    mongo = Mongo()
    mongo.away = True
    with pytest.raises(AutoReconnect):
        Clock(mongo.read, mongo.monotonic).now()


def test_an_answer_that_took_long_says_little() -> None:
    mongo = Mongo()
    clock = Clock(mongo.read, mongo.monotonic)
    clock.now()
    mongo.takes, mongo.seconds = 8.0, mongo.seconds + 11.0
    assert clock.now() == mongo.time()
    mongo.takes, mongo.seconds = 0.0, mongo.seconds + 3.0
    assert clock.now() == mongo.time()
    assert mongo.asked == 3


def test_nobody_waits_for_the_one_who_asks() -> None:
    mongo = Mongo()
    hanging, go_on = threading.Event(), threading.Event()

    def read() -> datetime:
        if mongo.asked:
            hanging.set()
            go_on.wait(30)
        return mongo.read()

    clock = Clock(read, mongo.monotonic)
    clock.now()
    mongo.seconds += 60.0
    asking = threading.Thread(target=clock.now)
    asking.start()
    assert hanging.wait(30)
    assert clock.now() == mongo.time()
    go_on.set()
    asking.join(30)
    assert mongo.asked == 2
