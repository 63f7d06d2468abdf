"""Waiting claims: the right ones are woken, and no wake-up is lost on its way."""

from unittest.mock import MagicMock

from bson import ObjectId

from banyan.queue.hub import Hub, Waiter
from banyan.storage.mongo import Storage


def waiting(hub: Hub, *keys: str) -> Waiter:
    """A claim that could start tasks of these classes."""
    waiter = Waiter(ObjectId(), accepts=lambda key: key in keys)
    hub.enter(waiter)
    return waiter


def hub() -> Hub:
    """One that exchanges nothing with others."""
    return Hub(MagicMock(spec=Storage))


def test_a_claim_that_was_answered_with_something_else_passes_on_what_it_was_woken_for_meanwhile() -> None:
    here = hub()
    first, second = waiting(here, "a"), waiting(here, "a")
    here.work({"a": 1})
    assert (first.woken.is_set(), second.woken.is_set()) == (True, False)
    here.leave(first)
    assert second.woken.is_set()


def test_what_comes_while_a_claim_looks_is_not_declined_with_what_it_looked_for() -> None:
    here = hub()
    first = waiting(here, "a", "b")
    here.work({"a": 1})
    assert first.wait(0) is False
    here.work({"b": 1})
    second = waiting(here, "a", "b")
    here.decline(first)
    assert second.wait(0) is False
    assert second.looking is not None
    assert second.looking.key == "a"
    assert first.wait(0) is False
    assert first.looking is not None
    assert first.looking.key == "b"


def test_a_wake_up_goes_round_once_when_nobody_can_use_it() -> None:
    here = hub()
    claims = [waiting(here, "a") for _ in range(3)]
    here.work({"a": 1})
    for claim in claims:
        assert claim.wait(0) is False
        here.decline(claim)
    assert [claim.wait(0) for claim in claims] == [None] * 3


def test_an_idle_claim_that_is_called_but_leaves_wakes_another_one() -> None:
    here = hub()
    idle, asking = waiting(here, "a"), waiting(here)
    asking.lines_up = lambda key, priority: True
    assert here.call_idle("a", but=asking.worker)
    here.leave(idle)
    assert asking.woken.is_set()
