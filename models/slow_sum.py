"""The sum of two numbers by a program that takes its time, and ends when the task is cancelled.

Inputs:

- `x`, `y`: two finite numbers, of any one unit
- `seconds`: how long the program takes, in seconds, greater than 0

Result:

- `sum`: x + y, in the unit of x and y; a whole number if both are

Files in the work directory, if the task has one:

- `progress.txt`: what the program has printed so far, a line for each step, with seconds; it can be read at any time
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from dask import delayed

from inputs import number
from programs import wait

if TYPE_CHECKING:
    from dask.delayed import Delayed
    from dask.distributed import Variable
    from simsvc.tasks import Task_spec

PROGRAM = """
import json, math, sys, time

x, y, seconds = json.loads(sys.argv[1])
steps = math.ceil(seconds / 0.1)
for step in range(steps):
    print(f"{step * seconds / steps:.2f} s of {seconds:.2f} s", flush=True)
    time.sleep(seconds / steps)
print(json.dumps(x + y))
"""
"""It stands for a simulator: a process of its own, prints its progress, and its answer on the last line."""


@delayed
def add(x: float, y: float, seconds: float, workdir: str | None, cancel: Variable) -> dict[str, float]:
    """CancelledError if `cancel` becomes true; RuntimeError, with what the program has said, if it fails."""
    command = [sys.executable, "-c", PROGRAM, json.dumps([x, y, seconds])]
    with progress_file(workdir) as progress, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=progress, stderr=errors)
        exit_code = wait(process, cancel)
        if exit_code:
            errors.seek(0)
            raise RuntimeError(f"the program ended with exit code {exit_code}: {errors.read().strip()}")
        progress.seek(0)
        return {"sum": json.loads(progress.readlines()[-1])}


def progress_file(workdir: str | None) -> IO[str]:
    """Where the program prints: a file that can be downloaded, or a temporary one if there is no work directory."""
    return tempfile.TemporaryFile("w+") if workdir is None else Path(workdir, "progress.txt").open("w+")


def task(spec: Task_spec, cancel: Variable) -> Delayed:
    """The computation of one task; ValueError, which refuses the post, if an input does not fit."""
    x, y = number(spec.inputs, "x"), number(spec.inputs, "y")
    return add(x, y, number(spec.inputs, "seconds", above=0), spec.workdir, cancel)
