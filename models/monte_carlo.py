"""The price of an Asian call option by Monte Carlo simulation: a graph with many nodes.

The simulated prices follow a geometric Brownian motion in the risk-neutral measure. The option pays by how much
the mean of the prices at `steps` equally spaced times, the last of them `maturity`, exceeds the strike. With one
step it is a European call, whose price Black and Scholes gave in closed form.

Inputs:

- `spot`: today's price of the underlying, in any currency, greater than 0
- `strike`: the option's strike price, in this currency, greater than 0
- `rate`: the riskless interest rate, continuously compounded, per year (0.05 is 5 %)
- `volatility`: the standard deviation of the logarithm of the price after one year, per square root of a year,
  greater than 0
- `maturity`: the time until the option is exercised, in years, greater than 0
- `steps` = 12: the number of times, from 1 to 1000
- `samples` = 100000: the number of simulated paths, from 2 to 10**9
- `chunk` = 10000: the paths of one node, from 1 to 10**6; at most 10000 nodes
- `seed` = 0: from 0 to 2**63 - 1; the same seed with the same `steps`, `samples` and `chunk` gives the same result

Results:

- `price`: the estimate, the mean of the discounted payments, in the currency
- `standard_error`: its standard error, in the currency

Source: Phelim Boyle, Options: A Monte Carlo Approach, Journal of Financial Economics 4(3), 1977, pages 323-338.
"""

from __future__ import annotations

import math
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask import delayed

from inputs import number, refuse_unknown, whole

if TYPE_CHECKING:
    from dask.delayed import Delayed
    from dask.distributed import Variable
    from numpy.typing import NDArray
    from simsvc.tasks import Task_spec

INPUTS = ("spot", "strike", "rate", "volatility", "maturity", "steps", "samples", "chunk", "seed")
MOST_NODES = 10_000


def task(spec: Task_spec, cancel: Variable) -> Delayed:
    """The computation of one task; ValueError, which refuses the post, if an input does not fit."""
    refuse_unknown(spec.inputs, INPUTS)
    option = {name: number(spec.inputs, name, above=0) for name in ("spot", "strike", "volatility", "maturity")}
    option["rate"] = number(spec.inputs, "rate")
    steps = whole(spec.inputs, "steps", default=12, least=1, most=1000)
    samples = whole(spec.inputs, "samples", default=100_000, least=2, most=10**9)
    chunk = whole(spec.inputs, "chunk", default=10_000, least=1, most=10**6)
    seed = whole(spec.inputs, "seed", default=0, least=0, most=2**63 - 1)
    if samples > chunk * MOST_NODES:
        raise ValueError(f"input 'chunk' is {chunk}: for {samples} samples give at least {-(-samples // MOST_NODES)}")
    draws = da.random.default_rng(seed).standard_normal(size=(steps, samples), chunks=(steps, chunk))
    payments = da.map_blocks(payments_of, draws, cancel, drop_axis=0, meta=np.empty(0), **option)
    return delayed(estimate)(payments.mean(), payments.var(ddof=1), samples)


def payments_of(
    draws: NDArray[np.float64],
    cancel: Variable,
    *,
    spot: float,
    strike: float,
    rate: float,
    volatility: float,
    maturity: float,
) -> NDArray[np.float64]:
    """The discounted payment of each path, from standard normal `draws` of the shape (steps, paths).

    CancelledError as soon as `cancel` is true: it is polled at each step.
    """
    steps, paths = draws.shape
    interval = maturity / steps
    drift = (rate - volatility**2 / 2) * interval
    spread = volatility * math.sqrt(interval)
    log_price = np.full(paths, math.log(spot))
    total = np.zeros(paths)
    for draw in draws:
        if cancel.get():
            raise CancelledError("the task was cancelled")
        log_price += drift + spread * draw
        total += np.exp(log_price)
    return math.exp(-rate * maturity) * np.maximum(total / steps - strike, 0.0)


def estimate(mean: Any, variance: Any, samples: int) -> dict[str, float]:
    return {"price": float(mean), "standard_error": math.sqrt(float(variance) / samples)}
