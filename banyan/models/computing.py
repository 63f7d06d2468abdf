"""The run of a model's computation on one of Dask's schedulers.

A `Scheduler` computes one thing at a time. When a computation fails, Dask leaves its other subtasks running; `settle`
waits until they are over, so that nothing of a task is left when its end is reported.
"""

import concurrent.futures
import importlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing import resource_tracker
from typing import Any, Protocol

import dask
import dask.multiprocessing
import dask.threaded
from dask._task_spec import Task
from dask.base import is_dask_collection
from dask.callbacks import Callback
from dask.delayed import Delayed

from banyan.models.cancel import Cancel
from banyan.models.cluster import Distributed
from banyan.models.left_threads import LeftThreads, told
from banyan.models.loading import Model
from banyan.models.packing import Packed, dumps
from banyan.models.task_spec import Task_spec


class BadTask(Exception):
    """`model.task` did not return a Dask computation."""


def prepare(model: Model, spec: Task_spec, cancel: Cancel) -> Any:
    """Call `model.task`; return its Dask computation. Raises the model's exceptions, or `BadTask`."""
    computation = model.task(spec, cancel)
    if not isinstance(computation, Delayed) and not is_dask_collection(computation):
        kind = type(computation).__name__
        raise BadTask(f"model {model.name!r}: task must return a Dask delayed computation, not {kind}")
    return computation


class Scheduler(Protocol):
    """One of Dask's ways to compute."""

    def compute(self, computation: Any, cancel: Cancel) -> Any:
        """The result; raises the exception of the computation."""

    def settle(self, seconds: float) -> bool:
        """Wait until nothing of the last computation runs; False if a subtask still runs, or no more can follow."""


def scheduler(setup: Mapping[str, Any], callback: Callable[..., object] | None) -> Scheduler:
    """The scheduler that `setup` selects (`name`, `scheduler`, `cores`, `cluster`), ready; raises `Unreachable`."""
    cores = int(setup["cores"])
    dask.config.set(num_workers=cores)
    if setup["scheduler"] == "threads":
        dask.config.set(scheduler="threads")
        return Threads(cores)
    if setup["scheduler"] == "processes":
        dask.config.set(scheduler="processes")
        return Processes(cores, setup["module"])
    if setup["scheduler"] == "distributed":
        return Distributed(setup["cluster"], cores, setup["name"], callback)
    dask.config.set(scheduler="synchronous")
    return Synchronous()


def _only_task(computation: Any) -> Task | None:
    """The task of a computation that is one delayed call of one function, as that of most models; None for others."""
    if not isinstance(computation, Delayed) or Callback.active:
        return None
    layers = getattr(computation.__dask_graph__(), "layers", {})
    (tasks,) = layers.values() if len(layers) == 1 else ({},)
    task = tasks.get(computation.key) if len(tasks) == 1 else None
    return task if isinstance(task, Task) and not task.dependencies else None


class Synchronous:
    """The scheduler in the host's main thread."""

    def compute(self, computation: Any, cancel: Cancel) -> Any:
        """The result; raises the exception of the computation."""
        task = _only_task(computation)
        return computation.compute(scheduler="synchronous") if task is None else task()

    def settle(self, seconds: float) -> bool:
        """Return True: no subtask is left."""
        return True


class Pooled(concurrent.futures.Executor):
    """A scheduler in a warm pool; Dask gets this as its pool, so that subtasks left running are known."""

    def __init__(self, pool: concurrent.futures.Executor, workers: int, get: Callable[..., Any]) -> None:
        """Take the pool, its size, and Dask's function for it: by a name Dask would look for a cluster each time."""
        self._pool = pool
        self._max_workers = workers  # Dask reads it
        self._get = get
        self._submitted: set[concurrent.futures.Future[Any]] = set()

    def compute(self, computation: Any, cancel: Cancel) -> Any:
        """The result; raises the exception of the computation."""
        result = computation.compute(scheduler=self._get, pool=self)
        self._submitted.clear()
        return result

    def settle(self, seconds: float) -> bool:
        """Wait for subtasks that a failure has left running."""
        running = [future for future in self._submitted if not future.cancel()]
        self._submitted.clear()
        return not concurrent.futures.wait(running, timeout=seconds).not_done

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Submit a batch of subtasks."""
        future = self._pool.submit(fn, *args, **kwargs)
        self._submitted.add(future)
        return future


class Threads(Pooled):
    """The scheduler in threads of the host."""

    def __init__(self, cores: int) -> None:
        self._before: set[threading.Thread] = set()
        self._own: set[threading.Thread] = set()
        pool = concurrent.futures.ThreadPoolExecutor(cores, initializer=self._begin)
        super().__init__(pool, cores, dask.threaded.get)

    def _begin(self) -> None:
        self._own.add(threading.current_thread())

    def compute(self, computation: Any, cancel: Cancel) -> Any:
        """The result; raises the exception of the computation."""
        self._before = set(threading.enumerate())
        task = _only_task(computation)  # a plain call takes a third of the time for a model that does nothing
        result = super().compute(computation, cancel) if task is None else task()
        self._before = set()
        return result

    def settle(self, seconds: float) -> bool:
        """Wait also for other threads that a failed task has started, such as those of nested computations."""
        deadline = time.monotonic() + seconds
        before, self._before = self._before, set()
        if not before:
            return True
        over = super().settle(seconds)
        for pool in [pool for pools in dask.threaded.pools.values() for pool in pools.values()]:
            pool.shutdown(wait=False, cancel_futures=True)
        dask.threaded.pools.clear()
        for thread in set(threading.enumerate()) - before - self._own:
            if not thread.daemon:
                thread.join(max(0.0, deadline - time.monotonic()))
                over = over and not thread.is_alive()
        return over


class Processes(Pooled):
    """The scheduler in processes that start with the host, each with Dask and the model."""

    def __init__(self, cores: int, module: str) -> None:
        resource_tracker.ensure_running()
        context = multiprocessing.get_context("spawn")
        self._untidy = context.Value("b", 0)
        pool = concurrent.futures.ProcessPoolExecutor(
            cores, mp_context=context, initializer=_begin_process, initargs=(module, self._untidy)
        )
        concurrent.futures.wait([pool.submit(abs, 0) for _ in range(cores)])
        super().__init__(pool, cores, partial(dask.multiprocessing.get, func_dumps=dumps))
        self._broken = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Submit a batch of subtasks that are checked for threads that they leave."""
        return super().submit(_watched, fn, *args, **kwargs)

    def compute(self, computation: Any, cancel: Cancel) -> Any:
        """The result; raises the exception of the computation, `BrokenExecutor` if one of the processes has died."""
        try:
            return super().compute(computation, cancel)
        except concurrent.futures.BrokenExecutor:
            self._broken = True
            raise
        except Packed as packed:
            raise packed.unpacked() from None

    def settle(self, seconds: float) -> bool:
        """Wait for the subtasks; False if the pool has lost a process, or has threads of earlier subtasks."""
        settled = super().settle(seconds)
        if self._untidy.value:
            with suppress(OSError):
                os.write(2, told(["in a process of its scheduler"]).encode())
        return settled and not self._broken and not self._untidy.value


class _Process:
    """The state of a process of the pool."""

    threads: LeftThreads
    untidy: Any


def _begin_process(module: str, untidy: Any) -> None:
    dask.multiprocessing.initialize_worker_process()  # type: ignore[no-untyped-call]
    with suppress(Exception):  # the subtasks will report the error
        importlib.import_module(module)
    _Process.threads, _Process.untidy = LeftThreads(), untidy


def _watched(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run a batch of subtasks in a process of the pool."""
    try:
        return fn(*args, **kwargs)
    finally:
        if _Process.threads.left():
            _Process.untidy.value = 1
