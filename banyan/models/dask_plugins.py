"""Plugins for the workers of a Dask cluster: failures for exceptions that Dask lets pass, and a model's callback.

Dask's workers let `SystemExit` and `KeyboardInterrupt` through, which ends the worker and leaves the computation
waiting for ever, and its clients do not receive other exceptions that are no `Exception`. `Guard` packs all of them.
"""

import concurrent.futures
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from distributed import WorkerPlugin
from distributed.core import error_message

from banyan.models.loading import callback_arguments
from banyan.models.packing import Packed, packed

_OFFLOAD = "offload"
"""Dask's own pool, for its own work."""


class Guard(WorkerPlugin):
    """Makes a subtask fail that raises `SystemExit`, or anything else that is no `Exception`."""

    name = "banyan-guard"
    idempotent = True

    def setup(self, worker: Any) -> None:
        """Wrap the functions that submit to the worker's pools."""
        for name, pool in worker.executors.items():
            if name != _OFFLOAD and "submit" not in vars(pool):
                pool.submit = partial(_submit, pool.submit)


class Callback(WorkerPlugin):
    """Calls a model's `worker_callback` once in each process of the cluster, even for several clients."""

    idempotent = True

    def __init__(self, name: str, callback: Callable[..., object]) -> None:
        self.name = name
        self._callback = callback

    def setup(self, worker: Any) -> Any:
        """Call it; its return value may have to be awaited."""
        if self.name in _called:
            return None
        _called.add(self.name)
        return self._callback(**callback_arguments(self._callback, worker))


_called: set[str] = set()


def _submit(
    submit: Callable[..., concurrent.futures.Future[Any]], fn: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> concurrent.futures.Future[Any]:
    return submit(_guarded, fn, *args, **kwargs)


def _guarded(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run a subtask as Dask does; in its result, an exception that is no `Exception` is packed."""
    begun = time.time()
    try:
        answer = fn(*args, **kwargs)
    except (SystemExit, KeyboardInterrupt) as raised:
        return _failed(raised, begun)
    error = answer.get("actual_exception") if isinstance(answer, dict) else None
    if not isinstance(error, BaseException) or isinstance(error, Exception):
        return answer
    return answer | _failed(error, begun)


def _failed(error: BaseException, begun: float) -> dict[str, Any]:
    """The result that Dask's worker returns for a failed subtask."""
    try:
        raise packed(error).with_traceback(error.__traceback__)
    except Packed as raised:
        how: dict[str, Any] = dict(error_message(raised)) | {"op": "task-erred", "actual_exception": raised}
    return how | {"start": begun, "stop": time.time(), "thread": threading.get_ident()}
