"""Reading the inputs of the example models, with errors that say what is to be given. No model itself."""

import math
from collections.abc import Collection, Mapping
from typing import Any


def number(inputs: Mapping[str, Any], name: str, *, above: float = -math.inf) -> float:
    """The finite number of this name, greater than `above`; ValueError without one. Whole numbers stay `int`."""
    value = inputs.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"input {name!r} {_found(inputs, name)}: give a finite number")
    if not value > above:
        raise ValueError(f"input {name!r} {_found(inputs, name)}: give a number greater than {above:g}")
    return value


def whole(inputs: Mapping[str, Any], name: str, *, default: int, least: int, most: int) -> int:
    """The whole number of this name, from `least` to `most`; ValueError for anything else. 5.0 is 5."""
    value = inputs.get(name, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"input {name!r} {_found(inputs, name)}: give a whole number from {least} to {most}")
    return value


def refuse_unknown(inputs: Mapping[str, Any], known: Collection[str]) -> None:
    """ValueError if there are other inputs than the `known` ones: a misspelt one would silently do nothing."""
    unknown = sorted(set(inputs) - set(known))
    if unknown:
        raise ValueError(f"there is no input {unknown[0]!r}: the inputs are {', '.join(known)}")


def _found(inputs: Mapping[str, Any], name: str) -> str:
    return f"is {inputs[name]!r}" if name in inputs else "is missing"
