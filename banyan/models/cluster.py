"""The run of a model's computation on a Dask cluster: one within the host's own process, or one elsewhere."""

import hashlib
import importlib
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any

from banyan.models.cancel import Cancel, announce
from banyan.models.packing import Packed

NOTICE_SECONDS = 0.05
"""The interval at which a host checks whether it must report a cancellation to a cluster."""
REPEAT_SECONDS = 1.0
"""The interval at which it repeats the report, for workers that joined meanwhile."""


LOOK_SECONDS = 1.0
"""The interval at which it checks whether its own cluster still exists."""


class Unreachable(Exception):
    """No Dask cluster responds at the configured address."""


class Distributed:
    """A scheduler on a Dask cluster: the one at `address`, or one in this process with its cores as threads.

    `model` names the model whose `callback` must be called in each process of a cluster elsewhere.
    """

    def __init__(self, address: str, cores: int, model: str, callback: Callable[..., object] | None) -> None:
        try:
            distributed: Any = importlib.import_module("distributed")
            plugins: Any = importlib.import_module("banyan.models.dask_plugins")
        except ImportError as error:
            text = "models.scheduler is 'distributed', which needs the package: pip install 'banyan-queue[models]'"
            raise Unreachable(text) from error
        self._unsettled: Cancel | None = None
        try:
            self._own: Any = None if address else _own_cluster(distributed, cores)
            self._client = distributed.Client(self._own or address)
        except (OSError, ValueError, TimeoutError) as error:
            raise Unreachable(f"no Dask cluster at {address or 'this host'}: {error}") from error
        self._guard(plugins, address)
        if callback is not None and self._own is None:
            self._client.register_plugin(plugins.Callback(_callback_name(model, callback), callback))

    @property
    def dask_worker(self) -> Any:
        """The worker of the cluster within this process."""
        return None if self._own is None else next(iter(self._own.workers.values()))

    def _guard(self, plugins: Any, address: str) -> None:
        try:
            self._client.register_plugin(plugins.Guard())
        except ImportError as error:
            raise Unreachable(f"the workers of the Dask cluster at {address} need this package: {error}") from error

    def compute(self, computation: Any, cancel: Cancel) -> Any:
        """The result; raises the exception of the computation."""
        if self._own is not None and not self._runs():
            raise BrokenExecutor("the Dask cluster within the model's process has stopped before this task")
        self._unsettled = cancel
        future = self._client.compute(computation)
        over = threading.Event()
        herald = threading.Thread(target=self._tell, args=(cancel, over), daemon=True)
        if self._own is None:
            herald.start()
        try:
            result = self._result(future)
        except Packed as packed:
            raise packed.unpacked() from None
        finally:
            over.set()
            future.cancel()
            if self._own is None:
                herald.join()
        self._unsettled = None
        return result

    def _result(self, future: Any) -> Any:
        """The result of a future; RuntimeError once its cluster within this process has stopped."""
        while self._own is not None and not future.done():
            try:
                future.exception(timeout=LOOK_SECONDS)
            except TimeoutError:
                if not self._runs():
                    raise RuntimeError("the Dask cluster within the model's process has stopped") from None
        return future.result()

    def _runs(self) -> bool:
        """Return whether the cluster within this process can still compute."""
        running = [worker for worker in self._own.workers.values() if worker.status.name == "running"]
        return bool(running) and bool(self._client.loop.asyncio_loop.is_running())

    def settle(self, seconds: float) -> bool:
        """Stop the other subtasks after a failure, and wait for them here; a cluster elsewhere is not only ours."""
        cancel, self._unsettled = self._unsettled, None
        if self._own is not None and not self._runs():
            return False
        if cancel is None:
            return True
        if self._own is None:
            self._announce(cancel)
            return True
        deadline = time.monotonic() + seconds
        while any(self._client.run(_executing).values()):
            if time.monotonic() > deadline:
                return False
            time.sleep(NOTICE_SECONDS)
        return True

    def _tell(self, cancel: Cancel, over: threading.Event) -> None:
        """Report a cancellation to all workers, repeatedly for those that join later."""
        told = 0.0
        while not over.wait(NOTICE_SECONDS):
            if cancel.get() and time.monotonic() >= told + REPEAT_SECONDS:
                told = time.monotonic()
                self._announce(cancel)

    def _announce(self, cancel: Cancel) -> None:
        self._client.run(announce, *cancel.announcement(), on_error="ignore")


def _callback_name(model: str, callback: Callable[..., object]) -> str:
    """A name that is equal in all hosts for the same callback."""
    try:
        text = pickle.dumps(callback)
    except (pickle.PicklingError, AttributeError, TypeError):
        text = repr(callback).encode()
    return f"banyan-callback-{model}-{hashlib.sha256(text).hexdigest()[:20]}"


def _own_cluster(distributed: Any, cores: int) -> Any:
    """A cluster in this very process: killing the host kills it, and no other process can reach it."""
    return distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=cores,
        processes=False,
        memory_limit=0,  # the worker of the queue watches the memory
        dashboard_address="127.0.0.1:0",
    )


def _executing(dask_worker: Any) -> int:
    """The number of subtasks that run on a worker of a cluster."""
    return len(dask_worker.state.all_running_tasks)
