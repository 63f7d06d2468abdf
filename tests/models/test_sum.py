"""`sum`: the smallest model."""

from typing import Any

import dask
import pytest

from tests.models.running import SCHEDULERS, post, run


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_two_whole_numbers_give_a_whole_sum(scheduler: str) -> None:
    result = run("sum", {"x": 1, "y": 2}, scheduler=scheduler)
    assert result == {"sum": 3}
    assert type(result["sum"]) is int


def test_two_fractions_give_their_sum() -> None:
    assert run("sum", {"x": 0.1, "y": 0.2}) == {"sum": 0.1 + 0.2}


def test_task_answers_a_computation_that_has_not_run() -> None:
    assert dask.is_dask_collection(post("sum", {"x": 1, "y": 2}))


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({"x": 1}, "input 'y' is missing: give a number"),
        ({}, "input 'x' is missing: give a number"),
        ({"x": "1", "y": 2}, "input 'x' is '1': give a number"),
        ({"x": 1, "y": None}, "input 'y' is None: give a number"),
        ({"x": 1, "y": True}, "input 'y' is True: give a number"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_before_anything_runs(inputs: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        post("sum", inputs)
