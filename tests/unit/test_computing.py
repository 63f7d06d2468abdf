"""Computing what a model returns: the short way for a graph of one task gives what Dask gives."""

from collections.abc import Callable
from typing import Any

import pytest
from dask import delayed
from dask.callbacks import Callback

from banyan.models.cancel import Cancel
from banyan.models.computing import Scheduler, Synchronous, Threads


def add(x: int, y: int = 1) -> int:
    return x + y


def fail() -> None:
    raise ValueError("no")


@pytest.fixture(params=[Synchronous, lambda: Threads(1)], ids=["synchronous", "threads"])
def scheduler(request: pytest.FixtureRequest) -> Scheduler:
    made: Scheduler = request.param()
    return made


def compute(scheduler: Scheduler, computation: Any) -> Any:
    return scheduler.compute(computation, Cancel([0], 1))


GRAPHS: dict[str, Callable[[], Any]] = {
    "one call": lambda: delayed(add)(1, y=2),
    "arguments in containers": lambda: delayed(dict)(a=[1, {"b": (2, 3)}], c=add),
    "a method of a value": lambda: delayed("a b").split(),
    "a value": lambda: delayed({"a": 1}),
    "a value that can be called": lambda: delayed(add),
    "a list of calls": lambda: delayed([delayed(add)(1), 2]),
    "calls of calls": lambda: delayed(add)(delayed(add)(1), delayed(add)(2)),
    "a part of a call": lambda: delayed(dict)(a=1)["a"],
}


@pytest.mark.parametrize("name", GRAPHS)
def test_each_graph_gives_what_dask_gives(scheduler: Scheduler, name: str) -> None:
    computation = GRAPHS[name]()
    assert compute(scheduler, computation) == computation.compute(scheduler="synchronous")


def test_an_exception_comes_as_it_is(scheduler: Scheduler) -> None:
    with pytest.raises(ValueError, match="no"):
        compute(scheduler, delayed(fail)())
    assert scheduler.settle(1.0)


def test_who_wants_to_hear_of_tasks_hears_of_a_single_one(scheduler: Scheduler) -> None:
    heard: list[Any] = []
    with Callback(posttask=lambda key, value, *_: heard.append(value)):  # type: ignore[no-untyped-call]
        assert compute(scheduler, delayed(add)(1)) == 2
    assert heard == [2]
