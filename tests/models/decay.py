"""An FMU's program, for PythonFMU: a quantity x that decays, x' = -k x. It steps exactly, whatever the step."""

import math
import os
import time

from pythonfmu import Boolean, Fmi2Causality, Fmi2Slave, Fmi2Variability, Integer, Real, String


class Decay(Fmi2Slave):
    """Parameters `k` (1/s), `x0`, and some that let it misbehave; outputs `x` and `steps`."""

    description = "Exponential decay"

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.k = 1.0
        self.x0 = 1.0
        self.pause_seconds = 0.0
        self.fail = False
        self.crash = False
        self.write = ""
        self.level = 0
        self.x = 1.0
        self.steps = 0
        self.small = False
        self.note = "decaying"
        parameter = {"causality": Fmi2Causality.parameter, "variability": Fmi2Variability.tunable}
        output = {"causality": Fmi2Causality.output, "variability": Fmi2Variability.discrete}
        for name in ("k", "x0", "pause_seconds"):
            self.register_variable(Real(name, **parameter))
        for name in ("fail", "crash"):
            self.register_variable(Boolean(name, **parameter))
        self.register_variable(Integer("level", **parameter))
        self.register_variable(String("write", **parameter))
        self.register_variable(Real("x", causality=Fmi2Causality.output))
        self.register_variable(Integer("steps", **output))
        self.register_variable(Boolean("small", **output))
        self.register_variable(String("note", **output))

    def exit_initialization_mode(self) -> None:
        self.x = self.x0
        if self.write:
            with open(self.write, "w") as file:
                file.write("from the FMU")

    def do_step(self, current_time: float, step_size: float) -> bool:
        if self.fail:
            raise ValueError("this FMU was asked to fail")
        if self.crash:
            os.abort()
        time.sleep(self.pause_seconds)
        self.x *= math.exp(-self.k * step_size)
        self.steps += 1
        self.small = self.x < 0.1
        return True
