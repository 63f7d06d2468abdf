"""The sum of two numbers: the smallest model.

Inputs:

- `x`, `y`: two numbers, of any one unit

Result:

- `sum`: x + y, in that unit; a whole number if both are
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask import delayed

if TYPE_CHECKING:
    from dask.delayed import Delayed
    from dask.distributed import Variable
    from simsvc.tasks import Task_spec


@delayed
def add(x: float, y: float) -> dict[str, float]:
    return {"sum": x + y}


def task(spec: Task_spec, cancel: Variable) -> Delayed:
    """The computation of one task; ValueError, which refuses the post, if an input is no number."""
    for name in ("x", "y"):
        value = spec.inputs.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            found = f"is {value!r}" if name in spec.inputs else "is missing"
            raise ValueError(f"input {name!r} {found}: give a number")
    return add(spec.inputs["x"], spec.inputs["y"])
