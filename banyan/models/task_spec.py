"""The first argument of a model's `task`: the description of its task."""

from collections.abc import Mapping
from typing import Any


class Task_spec:  # noqa: N801 - the name that models import from `simsvc.tasks`
    """The first argument of `model.task`.

    `inputs` maps input names (any strings) to values, `workdir` is the absolute name of the task's work directory or
    None, `jobid` the id of the task.
    """

    __slots__ = ("inputs", "jobid", "workdir")

    def __init__(self, inputs: Mapping[str, Any], workdir: str | None = None, jobid: str | None = None) -> None:
        self.inputs = inputs
        self.workdir = workdir
        self.jobid = jobid

    def __repr__(self) -> str:
        return f"Task_spec(inputs={self.inputs!r}, workdir={self.workdir!r}, jobid={self.jobid!r})"
