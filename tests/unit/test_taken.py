"""What claims of one server keep from each other."""

from typing import Any

import pytest
from bson import ObjectId

from banyan.queue.taken import Taken


def task(revision: str = "1", id: ObjectId | None = None, class_key: str = "a") -> dict[str, Any]:
    return {"_id": id or ObjectId(), "_etag": revision, "class_key": class_key}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_one_claim_takes_no_other_does_until_it_is_let_go() -> None:
    taken, wanted = Taken(), task()
    with taken.taking() as one, taken.taking() as other:
        assert one.take(wanted)
        assert not other.take(wanted)
        assert not one.take(wanted)
        assert (taken.count("a"), taken.count("b")) == (1, 0)
    assert taken.count("a") == 0
    with taken.taking() as third:
        assert third.take(wanted)


def test_what_fails_lets_all_go() -> None:
    taken, wanted = Taken(), task()

    def fail() -> None:
        with taken.taking() as one:
            one.take(wanted)
            raise RuntimeError("MongoDB is away")

    with pytest.raises(RuntimeError):
        fail()
    assert not taken.has(wanted)
    assert taken.count("a") == 0


def test_what_was_granted_is_known_for_a_while_but_as_a_new_revision_it_is_free() -> None:
    clock = Clock()
    taken, granted = Taken(clock), task("1")
    with taken.taking() as one:
        one.take(granted)
        one.grant([granted["_id"]])
    assert taken.has(granted)
    assert not taken.has(task("2", granted["_id"]))
    clock.now = 5.0
    with taken.taking() as other:
        assert other.take(granted)
