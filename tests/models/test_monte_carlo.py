"""`monte_carlo`: a graph with many nodes, reproducible, cancelled inside its subtasks."""

import math
from concurrent.futures import CancelledError
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from tests.models.running import SCHEDULERS, Cancel, load, post, run

OPTION = {"spot": 100, "strike": 95, "rate": 0.05, "volatility": 0.2, "maturity": 0.5}
SMALL = {**OPTION, "steps": 4, "samples": 2_500, "chunk": 100}


def black_scholes(spot: float, strike: float, rate: float, volatility: float, maturity: float) -> float:
    """The price of a European call."""
    spread = volatility * math.sqrt(maturity)
    d1 = (math.log(spot / strike) + (rate + volatility**2 / 2) * maturity) / spread
    normal = NormalDist().cdf
    return spot * normal(d1) - strike * math.exp(-rate * maturity) * normal(d1 - spread)


@pytest.mark.parametrize("option", [OPTION, {**OPTION, "strike": 120, "volatility": 0.4, "rate": 0.0}])
def test_with_one_step_it_is_a_european_call(option: dict[str, float]) -> None:
    result = run("monte_carlo", {**option, "steps": 1, "samples": 200_000, "seed": 7})
    assert set(result) == {"price", "standard_error"}
    assert {type(value) for value in result.values()} == {float}
    assert 0 < result["standard_error"] < 0.1
    assert abs(result["price"] - black_scholes(**option)) < 4 * result["standard_error"]


def test_each_path_pays_by_the_mean_of_its_prices() -> None:
    draws = np.array([[0.5, -2.0], [-0.1, 0.3], [1.2, -0.7]])
    payments = load("monte_carlo").payments_of(draws, Cancel(), **OPTION)
    expected = []
    for path in draws.T:
        prices = [100.0]
        for draw in path:
            prices.append(prices[-1] * math.exp(0.03 * 0.5 / 3 + 0.2 * math.sqrt(0.5 / 3) * draw))
        expected.append(math.exp(-0.025) * max(sum(prices[1:]) / 3 - 95, 0))
    assert expected[1] == 0
    assert payments == pytest.approx(expected, rel=1e-12)


def test_the_same_seed_gives_the_same_result_on_any_scheduler() -> None:
    results = [run("monte_carlo", {**SMALL, "seed": seed}, scheduler=each) for seed in (3, 3, 4) for each in SCHEDULERS]
    assert results[0] == results[1] == results[2] == results[3]
    assert results[4] == results[5] != results[0]


def test_the_standard_error_falls_with_the_root_of_the_samples() -> None:
    errors = [
        run("monte_carlo", {**OPTION, "steps": 1, "samples": each})["standard_error"] for each in (1_000, 100_000)
    ]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.2)


def test_the_graph_has_nodes_for_each_chunk() -> None:
    assert len(dict(post("monte_carlo", SMALL).__dask_graph__())) > 2 * 25


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_cancelling_stops_the_subtasks(scheduler: str) -> None:
    cancel = Cancel(true_after=10)
    with pytest.raises(CancelledError, match="the task was cancelled"):
        run("monte_carlo", SMALL, cancel=cancel, scheduler=scheduler)
    assert 10 < cancel.polls <= 10 + 25, "each of the 25 nodes polls once more at most, instead of 4 times"


def test_nothing_polls_before_the_computation_runs() -> None:
    cancel = Cancel()
    post("monte_carlo", SMALL, cancel=cancel)
    assert cancel.polls == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"spot": 0}, "input 'spot' is 0: give a number greater than 0"),
        ({"rate": "5 %"}, "input 'rate' is '5 %': give a finite number"),
        ({"samples": 1}, r"input 'samples' is 1: give a whole number from 2 to 1000000000"),
        ({"samples": 10.5}, "input 'samples' is 10.5: give a whole number"),
        ({"steps": True}, "input 'steps' is True: give a whole number"),
        ({"seed": -1}, "input 'seed' is -1: give a whole number"),
        ({"samples": 10**9}, "input 'chunk' is 10000: for 1000000000 samples give at least 100000"),
        ({"sample": 10}, "there is no input 'sample': the inputs are spot, strike"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_before_anything_runs(change: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        post("monte_carlo", {**OPTION, **change})


def test_a_missing_input_is_named() -> None:
    with pytest.raises(ValueError, match="input 'maturity' is missing: give a finite number"):
        post("monte_carlo", {name: value for name, value in OPTION.items() if name != "maturity"})


def test_a_whole_number_may_come_as_a_float() -> None:
    assert run("monte_carlo", {**SMALL, "steps": 4.0}) == run("monte_carlo", SMALL)
