"""Simulates one FMU in a process of its own: `python simulate.py REQUEST OUTPUTS`, two files of JSON.

The first says what to simulate (see `experiment.py`), into which directory to unpack the FMU, and where to write the
outputs over time; the final outputs go into the second. SIGTERM lets it stop after the current step and clean up.
"""

import csv
import json
import math
import signal
import sys
import threading
from pathlib import Path
from typing import IO, Any

import fmpy
import numpy as np


def simulate(request: dict[str, Any], stopping: threading.Event) -> dict[str, Any]:
    """The outputs at the end of the period; SystemExit if the simulation has ended before it."""
    with open(request["trajectory"] or "/dev/null", "w", newline="", buffering=1) as file:
        trajectory = Trajectory(file)

        def step_finished(time: float, recorder: Any) -> bool:
            trajectory.extend(recorder)
            return not stopping.is_set()

        recorded = fmpy.simulate_fmu(
            str(fmpy.extract(request["fmu"], request["unpacked"])),
            start_time=request["start"],
            stop_time=request["end"],
            output_interval=request["step"],
            start_values=request["values"],
            output=request["outputs"],
            step_finished=step_finished,
            debug_logging=True,
        )
    last, end = recorded[-1], request["end"]
    if stopping.is_set():
        sys.exit(f"it was told to stop, and stopped at {last['time']:g} s of {end:g} s")
    if not math.isclose(last["time"], end, rel_tol=1e-9, abs_tol=1e-9 * (end - request["start"])):
        sys.exit(f"the FMU stopped at {last['time']:g} s of {end:g} s: give it another 'step', or a shorter period")
    return {name: np.asarray(last[name]).tolist() for name in request["outputs"]}


class Trajectory:
    """The recorded outputs as CSV, written while the simulation goes on."""

    def __init__(self, file: IO[str]) -> None:
        self._writer = csv.writer(file)
        self._rows = 0

    def extend(self, recorder: Any) -> None:
        """Write the rows that are new."""
        if not self._rows:
            self._writer.writerow(name for name, *_ in recorder.cols)
        self._writer.writerows(recorder.rows[self._rows :])
        self._rows = len(recorder.rows)


def main() -> None:
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    request, outputs = map(Path, sys.argv[1:])
    try:
        found = simulate(json.loads(request.read_text()), stopping)
    except Exception as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    outputs.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
