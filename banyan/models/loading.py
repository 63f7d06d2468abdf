"""The import of a model in a host process, with its Dask configuration in force before its first line runs."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import dask
from dask.delayed import Delayed

from banyan.models.traces import name_of, text_of

_COMPAT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "compat")


class Unfit(Exception):
    """A model cannot be used; `exception` is the name of the reason, the text is the whole reason."""

    def __init__(self, exception: str, text: str) -> None:
        super().__init__(text)
        self.exception = exception


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A loaded model."""

    name: str
    task: Callable[..., Any]
    worker_callback: Callable[..., object] | None = None


def load(setup: Mapping[str, Any]) -> Model:
    """Import the model that `setup` names (`name`, `module`, `attribute`, `directory`, `dask`); raises `Unfit`."""
    name = setup["name"]
    sys.dont_write_bytecode = True  # cached bytecode would hide a second edit within the same second
    for each in [each for each in sys.modules if each == "worker" or each.startswith("worker.")]:
        del sys.modules[each]  # our own, which has started; a file beside the model may have that name
    dask.config.update(dask.config.config, setup["dask"], priority="new")
    if setup["directory"] is not None and setup["directory"] not in sys.path:
        sys.path.insert(0, setup["directory"])
    if _COMPAT not in sys.path:
        sys.path.append(_COMPAT)
    try:
        module = importlib.import_module(setup["module"])
        found: Any = module
        for part in (setup["attribute"] or "").split("."):
            found = getattr(found, part) if part else found
    except (Exception, SystemExit) as error:
        raise Unfit(name_of(error), text_of(error, f"model {name!r} cannot be imported")) from error
    _refuse_another(name, module, setup["directory"])
    is_function = isinstance(found, Delayed) or inspect.isroutine(found)
    task = found if is_function else getattr(found, "task", None)
    if inspect.isclass(found) or not callable(task):
        kind = "it names a class; name an object of it" if inspect.isclass(found) else "there is none"
        raise Unfit("TypeError", f"model {name!r} needs a function task(spec, cancel), and {kind}")
    callback = None if is_function else getattr(found, "worker_callback", None)
    return Model(name=name, task=task, worker_callback=callback)


def callback_arguments(callback: Callable[..., object], worker: Any) -> dict[str, Any]:
    """The arguments for a `worker_callback`: `dask_worker` if it takes that, as in Dask."""
    try:
        takes = "dask_worker" in inspect.signature(callback).parameters
    except (TypeError, ValueError):
        takes = False
    return {"dask_worker": worker} if takes else {}


def _refuse_another(name: str, module: ModuleType, directory: str | None) -> None:
    """Raise `Unfit` if a module that was imported before hides a model of the same name."""
    origin = getattr(module, "__file__", None) or ""
    if directory is not None and os.path.commonpath([os.path.realpath(directory), os.path.realpath(origin)]) != (
        os.path.realpath(directory)
    ):
        text = f"model {name!r}: there is another module of that name, {origin or 'a built-in one'}; rename the model"
        raise Unfit("ImportError", text)
