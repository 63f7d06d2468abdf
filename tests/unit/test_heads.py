"""What a server remembers of the heads of classes, and when it reads them again."""

from collections.abc import Sequence
from typing import Any

import pytest

from banyan.queue.heads import Heads

Document = dict[str, Any]


class Reading:
    """What can be claimed, what was read of it, and a clock."""

    def __init__(self) -> None:
        self.stored: dict[str, int] = {}
        self.asked: list[list[str] | None] = []
        self.now = 0.0
        self.heads = Heads(lambda: self.now)

    def read(self, keys: Sequence[str] | None) -> Sequence[Document]:
        self.asked.append(None if keys is None else list(keys))
        return [{"class_key": key, "_id": id} for key, id in self.stored.items() if keys is None or key in keys]

    def get(self, *, fresh: bool = False) -> dict[str, int]:
        return {key: head["_id"] for key, head in self.heads.current(self.read, fresh=fresh).items()}


@pytest.fixture
def reading() -> Reading:
    return Reading()


def test_heads_are_read_once(reading: Reading) -> None:
    reading.stored = {"a": 1}
    assert [reading.get() for _ in range(3)] == [{"a": 1}] * 3
    assert reading.asked == [None]


def test_only_what_has_changed_is_read_again(reading: Reading) -> None:
    reading.stored = {"a": 1, "b": 2, "c": 3}
    reading.get()
    reading.stored = {"b": 4, "c": 5, "d": 6}
    reading.heads.changed(["a", "b", "d"])
    assert reading.get() == {"b": 4, "c": 3, "d": 6}
    assert reading.asked == [None, ["a", "b", "d"]]


def test_what_nobody_has_told_is_seen_a_moment_later(reading: Reading) -> None:
    reading.get()
    reading.stored, reading.now = {"a": 1}, 0.9
    assert reading.get() == {}
    reading.now = 1.0
    assert reading.get() == {"a": 1}


def test_who_does_not_wait_always_looks(reading: Reading) -> None:
    reading.get()
    reading.stored = {"a": 1}
    assert reading.get(fresh=True) == {"a": 1}


def test_a_reading_that_failed_is_repeated(reading: Reading) -> None:
    reading.get()
    reading.stored = {"a": 1}
    reading.heads.changed(["a"])
    with pytest.raises(ZeroDivisionError):
        reading.heads.current(lambda keys: 1 / 0)  # type: ignore[arg-type, return-value]
    assert reading.get() == {"a": 1}
