"""From the inputs of a task to what is to be simulated, checked against the FMU's own description."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.config
from fmpy import read_model_description

from inputs import number, whole

CONFIGURATION = "simsvc.model.fmu"
PERIOD = ("CITYOPT.simulation_start", "CITYOPT.simulation_end")
REALS = ("Real", "Float32", "Float64")
NOT_RECORDED = ("String", "Binary", "Clock")


def experiment(inputs: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """What `simulate.py` is to do, as JSON values; ValueError unless the FMU can take these inputs.

    The name of the FMU may be relative to `directory`.
    """
    fmu = _file(inputs, directory)
    try:
        description: Any = read_model_description(str(fmu))
    except Exception as error:
        raise ValueError(f"{fmu} is no FMU that FMPy can read: {error}") from error
    variables = {variable.name: variable for variable in description.modelVariables}
    outputs = [name for name, each in variables.items() if each.causality == "output" and each.type not in NOT_RECORDED]
    if not outputs:
        raise ValueError(f"{fmu} has no outputs that are numbers or true and false: give another FMU")
    start, end = _period(inputs, description.defaultExperiment)
    return {
        "fmu": str(fmu),
        "start": start,
        "end": end,
        "step": number(inputs, "step", above=0) if "step" in inputs else None,
        "values": _values(inputs, variables),
        "outputs": outputs,
    }


def _file(inputs: Mapping[str, Any], directory: Path) -> Path:
    name = inputs.get("fmu", dask.config.get(CONFIGURATION, None))
    if not isinstance(name, str) or not name:
        raise ValueError(f"input 'fmu' is {name!r}: give the name of the FMU's file")
    file = (directory / name).absolute()
    if not file.is_file():
        raise ValueError(f"input 'fmu' is {name!r}: there is no file {file}")
    return file


def _period(inputs: Mapping[str, Any], default: Any) -> tuple[float, float]:
    """The simulation period in seconds; `default` is the FMU's default experiment or None."""
    start, end = (float(number(inputs, name)) if name in inputs else None for name in PERIOD)
    if start is None:
        start = float(default.startTime or 0) if default else 0.0
    if end is None:
        end = float(default.stopTime) if default and default.stopTime is not None else start + 1.0
    if not start < end:
        raise ValueError(
            f"the simulation would be from {start:g} s to {end:g} s: give {PERIOD[1]!r} after {PERIOD[0]!r}"
        )
    return start, end


def _values(inputs: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """The values of parameters and inputs by the FMU's own names for them."""
    settable = {name for name, each in variables.items() if each.causality in ("parameter", "input") and not each.shape}
    values = {}
    for given in inputs:
        component, _, name = given.partition(".")
        if component == "CITYOPT" or given in ("fmu", "step"):
            continue
        if component != "p" or name not in settable:
            known = ", ".join(["fmu", "step", *PERIOD, *(f"p.{each}" for each in sorted(settable))])
            raise ValueError(f"there is no input {given!r}: the inputs are {known}")
        values[name] = _value(inputs, given, variables[name].type)
    return values


def _value(inputs: Mapping[str, Any], name: str, kind: str) -> Any:
    """The input of this name if it fits a variable of this FMI type; ValueError if not."""
    if kind in REALS:
        return number(inputs, name)
    if "Int" in kind or kind == "Enumeration":
        bits = int("".join(filter(str.isdigit, kind)) or 32)
        least = 0 if kind.startswith("U") else -(2 ** (bits - 1))
        return whole(inputs, name, default=0, least=least, most=least + 2**bits - 1)
    wanted, words = {"Boolean": (bool, "true or false"), "String": (str, "a text")}.get(kind, (None, f"no {kind}"))
    if wanted is None or not isinstance(inputs[name], wanted):
        raise ValueError(f"input {name!r} is {inputs[name]!r}: give {words}")
    return inputs[name]
