"""The sum of two numbers, computed by another program: awk.

Inputs:

- `x`, `y`: two finite numbers, of any one unit; whole numbers up to 2**52, as awk computes in double precision

Result:

- `sum`: x + y, in that unit; a whole number if both are
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from dask import delayed

from inputs import number

if TYPE_CHECKING:
    from dask.delayed import Delayed
    from dask.distributed import Variable
    from simsvc.tasks import Task_spec

PROGRAM = 'BEGIN { printf "%.17g", x + y }'
LARGEST_WHOLE = 2**52
"""The sum of two of them is exact in double precision."""


@delayed
def add(x: float, y: float) -> dict[str, float]:
    """RuntimeError, with what awk has said, if awk fails or answers something else than a number."""
    done = subprocess.run(
        ["awk", "-v", f"x={x!r}", "-v", f"y={y!r}", PROGRAM],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode:
        raise RuntimeError(f"awk ended with exit code {done.returncode}: {done.stderr.strip() or 'it said nothing'}")
    try:
        return {"sum": int(done.stdout) if isinstance(x, int) and isinstance(y, int) else float(done.stdout)}
    except ValueError as error:
        raise RuntimeError(f"awk answered {done.stdout!r} where a number should be") from error


def task(spec: Task_spec, cancel: Variable) -> Delayed:
    """The computation of one task; ValueError, which refuses the post, if an input does not fit.

    It takes a few milliseconds, too few to poll `cancel`; see `slow_sum` for a program that takes longer.
    """
    x, y = number(spec.inputs, "x"), number(spec.inputs, "y")
    for name, value in (("x", x), ("y", y)):
        if isinstance(value, int) and abs(value) > LARGEST_WHOLE:
            raise ValueError(f"input {name!r} is {value}: give a whole number from -2**52 to 2**52")
    return add(x, y)
