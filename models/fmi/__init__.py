"""The simulation of a Functional Mock-up Unit (FMU) with FMPy, for co-simulation or model exchange.

Inputs:

- `fmu`: the FMU's file, absolute or relative to this model's directory; without it, what the Dask configuration says
  under `simsvc.model.fmu`. The server reads it too, when a task is posted
- `p.NAME`: the value of the FMU's parameter NAME, or of its input NAME during the whole simulation, in the unit that
  the FMU declares: a number, true or false, or a text; without it, the FMU's own. NAME may contain periods
- `CITYOPT.simulation_start`, `CITYOPT.simulation_end`: the simulation period, in seconds; without them, that of the
  FMU's default experiment, else from 0 for one second. Other names in `CITYOPT` mean nothing
- `step`: the time between two recorded values, in seconds, and so the communication step of co-simulation, greater
  than 0; without it, what the FMU says, else what FMPy chooses for the period

Results:

- `o.NAME`: the value of the FMU's output NAME at the end of the period, in the unit that the FMU declares; outputs that
  are texts are left out

Files in the work directory, if the task has one:

- `trajectory.csv`: all these outputs over time, a row for each step as soon as it is done; `time` is in seconds
- `fmu.log`: what the FMU has printed and logged

Each simulation is a process of its own: FMPy changes the working directory to load an FMU, an FMU may leave things
behind (one that PythonFMU built leaves Python modules), and it may crash. Needs FMPy: `pip install fmpy`.

Source: https://fmi-standard.org
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask import delayed

from fmi.experiment import experiment
from programs import wait

if TYPE_CHECKING:
    from dask.delayed import Delayed
    from dask.distributed import Variable
    from simsvc.tasks import Task_spec

PROGRAM = Path(__file__).with_name("simulate.py")
LOG, TRAJECTORY = "fmu.log", "trajectory.csv"


def task(spec: Task_spec, cancel: Variable) -> Delayed:
    """The computation of one task; ValueError, which refuses the post, unless the FMU can take these inputs."""
    return simulate(experiment(spec.inputs, Path(__file__).parent), spec.workdir, cancel)


@delayed
def simulate(request: dict[str, Any], workdir: str | None, cancel: Variable) -> dict[str, Any]:
    """The final outputs; CancelledError if `cancel` becomes true, RuntimeError if the FMU fails.

    `request` is what `simulate.py` is to do. A cancelled FMU may end its current step and clean up, for a second.
    """
    with tempfile.TemporaryDirectory(prefix="fmi-") as directory:
        place = Path(workdir or directory)
        request = {**request, "unpacked": f"{directory}/fmu", "trajectory": workdir and str(place / TRAJECTORY)}
        files = [Path(directory, "request.json"), Path(directory, "outputs.json")]
        files[0].write_text(json.dumps(request))
        with (place / LOG).open("w") as log:
            command = [sys.executable, "-P", "-u", str(PROGRAM), *map(str, files)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=place)
            exit_code = wait(process, cancel)
        if exit_code:
            raise RuntimeError(f"{request['fmu']}: {failure(exit_code, (place / LOG).read_text(errors='replace'))}")
        outputs = json.loads(files[1].read_text())
    return {f"o.{name}": value for name, value in outputs.items()}


def failure(exit_code: int, log: str) -> str:
    """How the simulation failed, with the end of what the FMU and FMPy have said, in one line."""
    how = f"was ended by {signal.Signals(-exit_code).name}" if exit_code < 0 else "failed"
    said = [line.strip() for line in log.splitlines() if line.strip()]
    return f"the simulation {how}: {' | '.join(said[-5:]) or 'nothing was said'}"
