"""The expected return and the variance of a portfolio (Markowitz 1952).

A small model for sweeps and optimisation: `c.w` is what they vary, `c.er` is to be large and `c.var` small.

Inputs, for n assets over one period:

- `mean`: n numbers, the expected return of each asset, as a fraction of what was paid for it (0.05 is 5 %)
- `cov`: n lists of n numbers, the covariances of these returns, as fractions squared: symmetric and positive
  semidefinite, with the variances on the diagonal
- `c.w`: n numbers, how much of the capital is in each asset: in any one unit, only their proportions count; negative
  for what was sold short, but their sum is greater than 0. Or a single number if there are two assets: the share of
  the first, as a fraction of the capital, with all the rest in the second

Results:

- `c.er`: the expected return of the portfolio, as a fraction of the capital
- `c.var`: the variance of this return, as a fraction squared; its square root is the risk, as a fraction

Source: Harry Markowitz, Portfolio Selection, The Journal of Finance 7(1), 1952, pages 77-91.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from dask import delayed

if TYPE_CHECKING:
    from dask.delayed import Delayed
    from dask.distributed import Variable
    from numpy.typing import NDArray
    from simsvc.tasks import Task_spec

ROUNDING = 1e-9
"""How far from symmetric and semidefinite the covariances may be, as a part of the largest of them."""


@delayed
def evaluate(shares: NDArray[np.float64], mean: NDArray[np.float64], cov: NDArray[np.float64]) -> dict[str, float]:
    return {"c.er": float(mean @ shares), "c.var": max(0.0, float(shares @ cov @ shares))}


def task(spec: Task_spec, cancel: Variable) -> Delayed:
    """The computation of one task; ValueError, which refuses the post, if an input does not fit."""
    mean = array(spec.inputs, "mean", 1)
    cov = array(spec.inputs, "cov", 2)
    if cov.shape != (len(mean), len(mean)):
        raise ValueError(
            f"input 'cov' has the shape {cov.shape}: 'mean' has {len(mean)} assets, give as many rows and columns"
        )
    tolerance = ROUNDING * np.abs(cov).max()
    if np.abs(cov - cov.T).max() > tolerance:
        raise ValueError("input 'cov' is not symmetric: give the same covariance in both places of each pair")
    if np.linalg.eigvalsh(cov).min() < -tolerance:
        raise ValueError("input 'cov' is not positive semidefinite: with it a portfolio had a negative variance")
    return evaluate(shares_of(spec.inputs, len(mean)), mean, cov)


def shares_of(inputs: Mapping[str, Any], assets: int) -> NDArray[np.float64]:
    """The share of each asset in the capital, as fractions whose sum is 1."""
    if assets == 2 and not isinstance(inputs.get("c.w"), list | tuple):
        first = float(array(inputs, "c.w", 0))
        return np.array([first, 1.0 - first])
    weights = array(inputs, "c.w", 1)
    if len(weights) != assets:
        raise ValueError(f"input 'c.w' has {len(weights)} weights: 'mean' has {assets} assets, give a weight for each")
    total = weights.sum()
    if not total > 0:
        raise ValueError(f"input 'c.w' has the sum {total:g}: give weights whose sum is greater than 0")
    shares: NDArray[np.float64] = weights / total
    return shares


def array(inputs: Mapping[str, Any], name: str, dimensions: int) -> NDArray[np.float64]:
    """The finite numbers of this input, at least one; ValueError for anything else."""
    wanted = ("a number", "a list of numbers", "a list of lists of numbers, all of one length")[dimensions]
    if name not in inputs:
        raise ValueError(f"input {name!r} is missing: give {wanted}")
    try:
        found = np.array(inputs[name])
    except ValueError as error:
        raise ValueError(f"input {name!r} has lists of different lengths: give {wanted}") from error
    if found.ndim != dimensions or found.dtype.kind not in "iuf" or not found.size or not np.isfinite(found).all():
        raise ValueError(f"input {name!r} is {inputs[name]!r}: give {wanted}, all finite")
    return found.astype(np.float64)
