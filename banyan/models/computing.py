"""Running a model's computation on one of Dask's schedulers.

A `Scheduler` computes one thing at a time. When a computation fails, Dask lets its other subtasks run on; `settle`
waits until they are over, so that nothing of a task is left when its end is told.
"""

import concurrent.futures
import importlib
import multiprocessing
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing import resource_tracker
from typing import Any, Protocol

import dask
import dask.multiprocessing
import dask.threaded
from dask.base import is_dask_collection

from banyan.models.cancel import Cancel, announce
from banyan.models.loading import Model
from banyan.models.task_spec import Task_spec

NOTICE_SECONDS = 0.05
"""How often a host looks whether it is to tell a cluster of a cancellation."""
REPEAT_SECONDS = 1.0
"""How often it tells it again, for workers that joined meanwhile."""


class BadTask(Exception):
    """`model.task` did not return a Dask computation."""


class Unreachable(Exception):
    """There is no Dask cluster where the settings say."""


def prepare(model: Model, spec: Task_spec, cancel: Cancel) -> Any:
    """Call `model.task`; the Dask computation that it returned. Raises what it raises, or `BadTask`."""
    computation = model.task(spec, cancel)
    if not is_dask_collection(computation):
        kind = type(computation).__name__
        raise BadTask(f"model {model.name!r}: task must return a Dask delayed computation, not {kind}")
    return computation


class Scheduler(Protocol):
    """One of Dask's ways to compute."""

    def compute(self, computation: Any, cancel: Cancel) -> Any:
        """The result; raises what the computation raises."""

    def settle(self, seconds: float) -> bool:
        """Wait until nothing of the last computation runs any more; False if something still does."""

    def processes(self) -> set[int]:
        """Processes of its own that came later than its beginning."""


def scheduler(setup: Mapping[str, Any], callback: Callable[..., object] | None) -> Scheduler:
    """The scheduler that `setup` names (`scheduler`, `cores`, `cluster`), ready to work; raises `Unreachable`.

    `callback` is the model's `worker_callback`, to be registered where Dask has workers of its own.
    """
    cores = int(setup["cores"])
    dask.config.set(num_workers=cores)
    if setup["scheduler"] == "threads":
        dask.config.set(scheduler="threads")
        return Pooled(concurrent.futures.ThreadPoolExecutor(cores, "model"), cores, "threads")
    if setup["scheduler"] == "processes":
        dask.config.set(scheduler="processes")
        return Pooled(_processes(cores), cores, "processes")
    if setup["scheduler"] == "distributed":
        return Distributed(setup["cluster"], cores, callback)
    dask.config.set(scheduler="synchronous")
    return Synchronous()


class Synchronous:
    """In the host's main thread."""

    def compute(self, computation: Any, cancel: Cancel) -> Any:
        """The result; raises what the computation raises."""
        return computation.compute(scheduler="synchronous")

    def settle(self, seconds: float) -> bool:
        """Nothing is left."""
        return True

    def processes(self) -> set[int]:
        """None."""
        return set()


class Pooled(concurrent.futures.Executor):
    """In a warm pool of threads or processes; Dask gets this as its pool, so that what it leaves running is known."""

    def __init__(self, pool: concurrent.futures.Executor, workers: int, scheduler: str) -> None:
        self._pool = pool
        self._max_workers = workers  # Dask asks for it
        self._scheduler = scheduler
        self._submitted: set[concurrent.futures.Future[Any]] = set()

    def compute(self, computation: Any, cancel: Cancel) -> Any:
        """The result; raises what the computation raises."""
        result = computation.compute(scheduler=self._scheduler, pool=self)
        self._submitted.clear()
        return result

    def settle(self, seconds: float) -> bool:
        """Wait for subtasks that a failure has left running."""
        running = [future for future in self._submitted if not future.cancel()]
        self._submitted.clear()
        return not concurrent.futures.wait(running, timeout=seconds).not_done

    def processes(self) -> set[int]:
        """None: a pool that has lost one is of no use any more."""
        return set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Have a batch of subtasks run."""
        future = self._pool.submit(fn, *args, **kwargs)
        self._submitted.add(future)
        return future


def _processes(cores: int) -> concurrent.futures.Executor:
    """A pool whose processes have started, each with Dask."""
    resource_tracker.ensure_running()
    pool = concurrent.futures.ProcessPoolExecutor(
        cores,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=dask.multiprocessing.initialize_worker_process,
    )
    concurrent.futures.wait([pool.submit(abs, 0) for _ in range(cores)])
    return pool


class Distributed:
    """On a Dask cluster: the one at `address`, or a local one of this host's own with its cores as threads."""

    def __init__(self, address: str, cores: int, callback: Callable[..., object] | None) -> None:
        try:
            distributed: Any = importlib.import_module("distributed")
        except ImportError as error:
            text = "models.scheduler is 'distributed', which needs the package: pip install 'banyan-queue[models]'"
            raise Unreachable(text) from error
        self._cluster: Any = None
        try:
            if not address:
                self._cluster = distributed.LocalCluster(
                    n_workers=1, threads_per_worker=cores, dashboard_address=None, host="127.0.0.1"
                )
                address = self._cluster.scheduler_address
            self._client = distributed.Client(address)
        except (OSError, ValueError, TimeoutError) as error:
            raise Unreachable(f"no Dask cluster at {address or 'this host'}: {error}") from error
        if callback is not None:
            self._client.register_worker_callbacks(callback)

    def compute(self, computation: Any, cancel: Cancel) -> Any:
        """The result; raises what the computation raises."""
        future = self._client.compute(computation)
        over = threading.Event()
        herald = threading.Thread(target=self._tell, args=(cancel, over), daemon=True)
        if self._cluster is None:
            herald.start()
        try:
            return future.result()
        finally:
            over.set()
            future.cancel()
            if self._cluster is None:
                herald.join()

    def settle(self, seconds: float) -> bool:
        """Wait until the local cluster is idle; a remote one is others' too, and drops what nobody wants."""
        deadline = time.monotonic() + seconds
        while self._cluster is not None and any(self._client.processing().values()):
            if time.monotonic() > deadline:
                return False
            time.sleep(NOTICE_SECONDS)
        return True

    def processes(self) -> set[int]:
        """The workers of the local cluster, which its nannies start anew when they die."""
        return set() if self._cluster is None else {nanny.pid for nanny in self._cluster.workers.values()}

    def _tell(self, cancel: Cancel, over: threading.Event) -> None:
        """Carry a cancellation to all workers, again and again for those that join later."""
        told = 0.0
        while not over.wait(NOTICE_SECONDS):
            if cancel.get() and time.monotonic() >= told + REPEAT_SECONDS:
                told = time.monotonic()
                self._client.run(announce, *cancel.announcement(), on_error="ignore")
