"""Running an example model as a host process would: loaded by its path, `task` called, its result computed."""

import importlib.util
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import dask

DIRECTORY = Path(__file__).parents[2] / "models"
SCHEDULERS = ("threads", "synchronous")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The first argument of `task`."""

    inputs: Mapping[str, Any]
    workdir: str | None = None
    jobid: str = "5f0000000000000000000001"


@dataclass(slots=True, kw_only=True)
class Cancel:
    """The second argument of `task`: becomes true with its poll number `true_after`, or when `set` is called."""

    true_after: float = float("inf")
    polls: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, timeout: float | str | None = None) -> bool:
        with self._lock:
            self.polls += 1
            return self.polls > self.true_after

    def set(self, value: bool) -> None:
        assert value
        self.true_after = 0


@cache
def load(name: str) -> ModuleType:
    """The model of this name, a file or a package in `models/`; what it imports from there is found too.

    None of them stays in `sys.modules`: other tests have modules called `sum` or `inputs` too.
    """
    package = DIRECTORY / name
    file = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
    found = importlib.util.spec_from_file_location(name, file)
    assert found is not None
    assert found.loader is not None
    model = importlib.util.module_from_spec(found)
    sys.modules[name] = model
    sys.path.insert(0, str(DIRECTORY))
    try:
        found.loader.exec_module(model)
    finally:
        sys.path.remove(str(DIRECTORY))
        for added in list(sys.modules):
            if str(getattr(sys.modules[added], "__file__", None)).startswith(f"{DIRECTORY}/"):
                del sys.modules[added]
    return model


def run(
    name: str,
    inputs: Mapping[str, Any],
    *,
    workdir: Path | None = None,
    cancel: Cancel | None = None,
    scheduler: str = "threads",
) -> Any:
    """The result of a task of this model."""
    computation = post(name, inputs, workdir=workdir, cancel=cancel)
    with dask.config.set(scheduler=scheduler, num_workers=2):
        return computation.compute()


def post(name: str, inputs: Mapping[str, Any], *, workdir: Path | None = None, cancel: Cancel | None = None) -> Any:
    """What `task` answers: nothing is computed yet."""
    spec = Spec(inputs=inputs, workdir=None if workdir is None else str(workdir))
    return load(name).task(spec, cancel or Cancel())
