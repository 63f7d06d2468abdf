"""The program of a host process: warm, with Dask and one model imported, it runs one task at a time.

It receives messages over a socket (`banyan.frames`), and ends when that is closed or when its parent dies. It
answers in JSON, for the receiver must not trust the model that runs here:

- `("setup", {..})`, once: `name`, `module`, `attribute`, `directory` of the model, `dask` (configuration), `scheduler`,
  `cluster`, `cores`. Answers: `("ready", pid, cpu_seconds)`; `("unfit", exception, text)`, the model's fault, and it
  ends; or `("broken", text)`, the machine's fault, and it ends.
- `("run", number, {..})`: `inputs`, `fault` (why they are not complete, or None), `jobid`, `workdir`, `cwd`, `env`,
  `stdin`, `grace_seconds`, `memory_limit_bytes`; the outputs that it was started with lead to the task's files. It
  answers `("ended", number, outcome, peak_bytes, exact, cpu_seconds, leaving)`. The outcome has `result` (JSON) or
  `result_file`, or `exception` and `error` (and `died` if a process of the scheduler has), or `no_directory` (why it
  cannot go to `cwd`), or `broken` (the machine's fault). `leaving` means that something of the task could not be ended,
  and the host therefore ends itself.
- where the setup has `progress`, it only checks tasks for the server instead (`worker.model_checks`).
"""

import asyncio
import ctypes
import inspect
import json
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from typing import Any

from banyan import frames
from banyan.models.cancel import Cancel, Memory
from banyan.models.check_progress import Progress
from banyan.models.cluster import Unreachable
from banyan.models.computing import BadTask, Scheduler, prepare, scheduler
from banyan.models.left_threads import LeftThreads, told
from banyan.models.loading import Model, Unfit, callback_arguments, load
from banyan.models.results import BadResult, encode, keep
from banyan.models.task_spec import Task_spec
from banyan.models.traces import name_of, shortened, text_of
from worker.host_place import Place, end_copies, ignore_signals, let_forks_be_ordinary
from worker.host_usage import Usage, cpu_seconds
from worker.model_checks import Checks
from worker.offspring import PR_SET_CHILD_SUBREAPER

_PR_SET_PDEATHSIG = 1
_NOTES = {
    "CancelledError": "the model raised CancelledError, but nobody has cancelled the task: this counts as a failure",
    "TimeoutError": "a model must not raise TimeoutError (the queue limits their time): this counts as a failure",
}
"""The notes on exceptions that models should not raise."""
_NO_CLUSTER = "get_worker, get_client and worker_client work with models.scheduler = 'distributed' alone"
_OF_NO_CLUSTER = ("No worker found", "No global client found", "No clients found")
"""The beginnings of the errors that Dask raises where there is no cluster."""

Document = dict[str, Any]
Answer = Callable[..., None]


class Host:
    """One model and its scheduler; `answer` sends to the other end."""

    def __init__(
        self, answer: Answer, memory: Memory | None, outputs: tuple[int, int], model: Model, scheduler: Scheduler
    ) -> None:
        self._answer = answer
        self._memory = memory
        self._model = model
        self._scheduler = scheduler
        self._place = Place(outputs)
        self._threads = LeftThreads()
        self._pid = os.getpid()

    def serve(self, messages: Callable[[], list[tuple[Any, ...]]]) -> None:
        """Run the tasks of each message, until there are no more messages."""
        while asked := messages():
            for _, number, what in asked:
                if not self._run(number, what):
                    return

    def _run(self, number: int, what: Document) -> bool:
        """Run a task and report its end; return whether the host is as good as new."""
        usage = Usage(self._place.kept)
        cancel = Cancel([0], number) if self._memory is None else self._memory.flag(number, what["jobid"])
        outcome = self._place.enter(what) or self._outcome(what, cancel)
        end_copies(self._pid)
        cancel.set(True)  # threads of this task that still run must stop
        settled = self._scheduler.settle(what["grace_seconds"])
        if left := self._threads.left():
            with suppress(OSError):
                os.write(2, told(left).encode())
        asked = self._memory is not None and self._memory.asked(number)
        tidy = self._place.leave(what["grace_seconds"] if asked else 0.0) and settled and not left
        self._answer("ended", number, outcome, *usage.end(), not tidy)
        return tidy

    def _outcome(self, what: Document, cancel: Cancel) -> Document:
        if what["fault"] is not None:
            return {"exception": "KeyError", "error": what["fault"]}
        spec = Task_spec(what["inputs"], what["workdir"], what["jobid"])
        try:
            result = self._scheduler.compute(prepare(self._model, spec, cancel), cancel)
            return dict(keep(encode(result), what["workdir"]))
        except (BadTask, BadResult) as error:
            return {"exception": name_of(error), "error": shortened(str(error))}
        except BrokenExecutor as error:
            return {"died": True, "exception": name_of(error), "error": text_of(error)}
        except BaseException as error:  # noqa: BLE001 - whatever it is, it ends the task and not the host
            return {"exception": name_of(error), "error": text_of(error, "" if cancel.get() else _note(error))}


def _note(error: BaseException) -> str:
    """Return the note on the error."""
    if isinstance(error, ValueError) and str(error).startswith(_OF_NO_CLUSTER):
        return _NO_CLUSTER
    return _NOTES.get(name_of(error), "")


def _set_up(answer: Answer, memory: Memory | None, setup: Mapping[str, Any]) -> Host | Checks | None:
    outputs = (os.dup(1), os.dup(2)) if memory is not None else (1, 2)  # before the model can close or replace them
    try:
        model = load(setup)
        ready = scheduler(setup, model.worker_callback)
        if model.worker_callback is not None:
            _call_back(model.worker_callback, getattr(ready, "dask_worker", None))
        if "progress" in setup:
            return Checks(answer, model, Progress(setup["progress"]))
        return Host(answer, memory, outputs, model, ready)
    except Unfit as error:
        answer("unfit", error.exception, str(error))
    except Unreachable as error:
        answer("broken", str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the callback is the model's
        answer("unfit", name_of(error), text_of(error, "worker_callback failed"))
    return None


def _call_back(callback: Callable[..., object], worker: Any) -> None:
    """Call it as Dask's workers do: with the worker if it has a parameter for one, which is None without a cluster."""
    done = callback(**callback_arguments(callback, worker))
    if inspect.isawaitable(done):
        asyncio.run(_awaited(done))


async def _awaited(done: Awaitable[object]) -> None:
    await done


def main(line: int, memory: int | None = None) -> None:
    """Serve until the socket with the descriptor `line` is closed at its other end; `memory` is that of `cancel`."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ignore_signals()
    let_forks_be_ordinary()
    if memory is None:  # a worker's supervisor has set its own limit
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what a model prints is read while it runs
    for descriptor in (line, memory):
        if descriptor is not None:
            os.set_inheritable(descriptor, False)
    unpacker = frames.Unpacker()

    def messages() -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        while not found and (data := os.read(line, frames.READ_BYTES)):
            found = unpacker.feed(data)
        return found

    def answer(*message: Any) -> None:
        body = json.dumps([message]).encode()
        left = memoryview(len(body).to_bytes(4, "little") + body)
        while left:
            left = left[os.write(line, left) :]

    first = messages()
    host = _set_up(answer, Memory(memory) if memory is not None else None, first[0][1]) if first else None
    if host is not None:
        answer("ready", os.getpid(), cpu_seconds())
        host.serve(messages)
    os._exit(0)  # threads of the model that do not end must not keep the process
