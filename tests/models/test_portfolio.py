"""`portfolio`: expected return and variance, against NumPy."""

from typing import Any

import numpy as np
import pytest

from tests.models.running import SCHEDULERS, post, run

TWO: dict[str, Any] = {"mean": [0.05, 0.1], "cov": [[0.01, 0.002], [0.002, 0.04]]}
THREE: dict[str, Any] = {
    "mean": [0.03, 0.07, 0.11],
    "cov": [[0.01, 0.002, 0.0], [0.002, 0.04, -0.01], [0.0, -0.01, 0.09]],
}


def expected(shares: list[float], market: dict[str, Any]) -> dict[str, float]:
    w, mean, cov = np.array(shares), np.array(market["mean"]), np.array(market["cov"])
    return {"c.er": float(mean @ w), "c.var": float(w @ cov @ w)}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("shares", [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [-0.5, 0.5, 1.0]])
def test_return_and_variance_are_those_of_numpy(scheduler: str, shares: list[float]) -> None:
    result = run("portfolio", {**THREE, "c.w": shares}, scheduler=scheduler)
    assert result == expected(shares, THREE)
    assert {type(value) for value in result.values()} == {float}


def test_only_the_proportions_of_the_weights_count() -> None:
    assert run("portfolio", {**THREE, "c.w": [4, 4, 8]}) == expected([0.25, 0.25, 0.5], THREE)


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 1, 1.5, -0.5])
def test_one_number_is_the_share_of_the_first_of_two_assets(share: float) -> None:
    assert run("portfolio", {**TWO, "c.w": share}) == expected([share, 1 - share], TWO)


def test_a_single_asset_is_its_own_portfolio() -> None:
    assert run("portfolio", {"mean": [0.05], "cov": [[0.01]], "c.w": [3]}) == {"c.er": 0.05, "c.var": 0.01}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"c.w": None}, "input 'c.w' is None: give a list of numbers"),
        ({"c.w": 0.5}, "input 'c.w' is 0.5: give a list of numbers"),
        ({"c.w": [0.5, 0.5]}, "input 'c.w' has 2 weights: 'mean' has 3 assets"),
        ({"c.w": [1, -1, 0]}, "input 'c.w' has the sum 0: give weights whose sum is greater than 0"),
        ({"c.w": [1, float("inf"), 0]}, "input 'c.w' is .*: give a list of numbers, all finite"),
        ({"c.w": ["a", "b", "c"]}, "input 'c.w' is .*: give a list of numbers, all finite"),
        ({"mean": []}, "input 'mean' is .*: give a list of numbers, all finite"),
        ({"mean": [0.1, [0.2]]}, "input 'mean' has lists of different lengths: give a list of numbers"),
        ({"cov": [[1, 0], [0, 1]]}, r"input 'cov' has the shape \(2, 2\): 'mean' has 3 assets"),
        ({"cov": [[1, 2, 0], [0, 1, 0], [0, 0, 1]]}, "input 'cov' is not symmetric"),
        ({"cov": [[1, 2, 0], [2, 1, 0], [0, 0, 1]]}, "input 'cov' is not positive semidefinite"),
        ({"cov": [[True]]}, "input 'cov' is .*: give a list of lists of numbers, all of one length"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_before_anything_runs(change: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        post("portfolio", {**THREE, "c.w": [1, 1, 1], **change})


@pytest.mark.parametrize("name", ["mean", "cov", "c.w"])
def test_a_missing_input_is_named(name: str) -> None:
    inputs = {**TWO, "c.w": 0.5}
    del inputs[name]
    with pytest.raises(ValueError, match=f"input '{name}' is missing"):
        post("portfolio", inputs)
