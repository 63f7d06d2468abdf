"""Samples: points spread over ranges by Latin hypercube or Sobol's sequence; the same seed gives the same points."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from banyan.domain.sweeps import Point
from banyan.errors import Invalid

LATIN_HYPERCUBE = "latin_hypercube"
SOBOL = "sobol"
METHODS = (LATIN_HYPERCUBE, SOBOL)

MAX_SEED = 2**53 - 1
"""The largest seed that every JSON reader keeps exactly."""
MAX_INPUTS = 1000
"""The largest number of inputs in one set of samples."""

_SCALES = ("linear", "log")


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The range of an input's values, both ends included; `log` spreads their logarithms evenly."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def of(cls, value: object) -> "Range":
        """Read `[low, high]` or `{"low": .., "high": .., "scale": "linear"|"log"}`; the ValueError names the fault."""
        if isinstance(value, list) and len(value) == 2:
            value = {"low": value[0], "high": value[1]}
        if not isinstance(value, dict) or not {"low", "high"} <= value.keys() <= {"low", "high", "scale"}:
            raise ValueError("must be [low, high] or {'low': .., 'high': .., 'scale': 'linear' or 'log'}")
        low, high = (_finite(value[end], end) for end in ("low", "high"))
        scale = value.get("scale", "linear")
        if scale not in _SCALES:
            raise ValueError(f"'scale' is {scale!r}; it is linear or log")
        if not low < high:
            raise ValueError(f"'low' ({low:g}) must be less than 'high' ({high:g}); a constant belongs in 'inputs'")
        if scale == "log" and low <= 0:
            raise ValueError(f"'low' is {low:g}; a logarithmic scale begins above 0")
        return cls(low=low, high=high, log=scale == "log")

    def at(self, fraction: float) -> float:
        """The value at a fraction of the way from low to high."""
        if self.log:
            value = math.exp(math.log(self.low) * (1 - fraction) + math.log(self.high) * fraction)
        else:
            value = self.low * (1 - fraction) + self.high * fraction
        return min(max(value, self.low), self.high)


def _finite(value: object, end: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{end!r} must be a finite number")
    return float(value)


def sample(method: str, count: int, seed: int, ranges: Mapping[str, Range]) -> list[Point]:
    """`count` points within the ranges. Raises `Invalid` when SciPy, which spreads them, is not installed.

    Sobol's points are the first of their sequence (scrambled by the seed); a power of two of them is balanced best.
    """
    try:
        from scipy.stats import qmc
    except ImportError as error:
        reason = "the server has no SciPy to spread them; install 'banyan-queue[models]' there, or send 'points'"
        raise Invalid({"samples": reason}) from error
    if method == SOBOL:
        unit = qmc.Sobol(len(ranges), seed=seed).random_base2((count - 1).bit_length())[:count]
    else:
        unit = qmc.LatinHypercube(len(ranges), seed=seed).random(count)
    named = list(ranges.items())
    return [
        {name: each.at(fraction) for (name, each), fraction in zip(named, row, strict=True)} for row in unit.tolist()
    ]
