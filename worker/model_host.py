"""The program of a host process: warm, with Dask and one model imported, it runs one task at a time.

It is told what to do over a socket (`banyan.frames`), and leaves when that is closed or when its parent dies. It
answers in JSON, for whoever hears it must not trust the model that runs here:

- `("setup", {..})`, once: `name`, `module`, `attribute`, `directory` of the model, `dask` (configuration), `scheduler`,
  `cluster`, `cores`. Answers: `("ready", pid)`; `("unfit", exception, text)`, the model's fault, and it ends; or
  `("broken", text)`, the machine's fault, and it ends.
- `("run", number, {..})`: `inputs`, `fault` (why they are not complete, or None), `jobid`, `workdir`, `cwd`, `env`,
  `stdin`, `stdout`, `stderr`, `grace_seconds`. It answers `("ended", number, outcome, peak_bytes, exact, cpu_seconds,
  leaving)`. The outcome has `result` (JSON) or `result_file`, or `exception` and `error`, or `broken` (the machine's
  fault). `leaving` says that something of the task could not be ended, and the host therefore ends itself.
- `("check", number, {..})`: `inputs`, `jobid`, `workdir`. Calls `model.task` alone, and answers `("checked", number,
  None)`, or with `exception`, `error` (one line) and `traceback` in the place of None.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from banyan import frames
from banyan.models.cancel import Cancel, Memory
from banyan.models.computing import BadTask, Scheduler, Unreachable, prepare, scheduler
from banyan.models.loading import Model, Unfit, load
from banyan.models.results import BadResult, encode, keep
from banyan.models.task_spec import Task_spec
from banyan.models.traces import last_line, name_of, text_of
from worker.offspring import PR_SET_CHILD_SUBREAPER, descendants, kill

END_SECONDS = 2.0
"""How long killed processes may take to go before the host itself goes."""
_PR_SET_PDEATHSIG = 1
_NOTES = {
    "CancelledError": "the model raised CancelledError, but nobody has cancelled the task: this counts as a failure",
    "TimeoutError": "a model must not raise TimeoutError (the queue limits their time): this counts as a failure",
}
"""What is said of exceptions that models are asked not to raise."""

Document = dict[str, Any]
Answer = Callable[..., None]


class Host:
    """One model and its scheduler; `answer` tells whoever asks."""

    def __init__(self, answer: Answer, memory: Memory | None, model: Model, scheduler: Scheduler) -> None:
        self._answer = answer
        self._memory = memory
        self._model = model
        self._scheduler = scheduler
        self._kept = descendants(os.getpid())
        self._variables: list[str] = []

    def serve(self, messages: Callable[[], list[tuple[Any, ...]]]) -> None:
        """Do what is asked until nobody asks any more."""
        while asked := messages():
            for kind, number, what in asked:
                if kind == "check":
                    self._answer("checked", number, self._check(what))
                elif not self._run(number, what):
                    return

    def _check(self, what: Document) -> Document | None:
        os.chdir(what["workdir"] or tempfile.gettempdir())
        spec = Task_spec(what["inputs"], what["workdir"], what["jobid"])
        try:
            prepare(self._model, spec, Cancel([0], 1, name=what["jobid"]))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the post is refused for it
            return {"exception": name_of(error), "error": last_line(error), "traceback": text_of(error)}
        return None

    def _run(self, number: int, what: Document) -> bool:
        """Run a task and tell its end; whether the host is as good as new."""
        exact, cpu = reset_peak(), _cpu_seconds()
        cancel = Cancel([0], number) if self._memory is None else self._memory.flag(number, what["jobid"])
        outcome = self._enter(what) or self._outcome(what, cancel)
        cancel.set(True)  # whoever of this task still runs is to stop
        settled = self._scheduler.settle(what["grace_seconds"])
        tidy = self._leave() and settled
        peak = peak_bytes()
        self._answer("ended", number, outcome, peak, exact, max(0.0, _cpu_seconds() - cpu), not tidy)
        return tidy

    def _outcome(self, what: Document, cancel: Cancel) -> Document:
        if what["fault"] is not None:
            return {"exception": "KeyError", "error": what["fault"]}
        spec = Task_spec(what["inputs"], what["workdir"], what["jobid"])
        try:
            result = self._scheduler.compute(prepare(self._model, spec, cancel), cancel)
            return dict(keep(encode(result), what["workdir"]))
        except (BadTask, BadResult) as error:
            return {"exception": name_of(error), "error": str(error)}
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the end of the task, not ours
            note = "" if cancel.get() else _NOTES.get(name_of(error), "")
            return {"exception": name_of(error), "error": text_of(error, note)}

    def _enter(self, what: Document) -> Document | None:
        """Make the process the task's: its streams, its directory, its variables; the outcome where that fails."""
        os.environ.update(what["env"])
        self._variables = list(what["env"])
        try:
            _redirect(what["stdin"] or os.devnull, os.O_RDONLY, 0)
            _redirect(what["stdout"], _APPEND, 1)
            _redirect(what["stderr"], _APPEND, 2)
        except OSError as error:
            return {"broken": f"output: {error}"}
        try:
            os.chdir(what["cwd"])
        except OSError as error:
            return {"exception": name_of(error), "error": str(error)}
        return None

    def _leave(self) -> bool:
        """Make the process nobody's again; whether nothing of the task is left in it."""
        with suppress(OSError):  # a full disk is noticed by whoever reads what the task left
            sys.stdout.flush()
            sys.stderr.flush()
        for number in range(3):
            _redirect(os.devnull, os.O_RDWR, number)
        os.chdir("/")
        for name in self._variables:
            os.environ.pop(name, None)
        return _end_children(self._kept | self._scheduler.processes())


_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def _redirect(path: str, flags: int, number: int) -> None:
    descriptor = os.open(path, flags, 0o644)
    os.dup2(descriptor, number)
    os.close(descriptor)


def _end_children(kept: set[int]) -> bool:
    """Kill the processes that a task has left, but not those that are `kept`; whether they are gone."""
    deadline = time.monotonic() + END_SECONDS
    while _has_children() and (left := descendants(os.getpid()) - kept):
        for pid in left:
            kill(pid)
            with suppress(ChildProcessError):  # a grandchild: it comes to us once its parent is gone
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def reset_peak() -> bool:
    """Let the kernel begin anew with the largest resident size of this process; whether it can."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def peak_bytes() -> int:
    """The largest resident size since `reset_peak`, in bytes; of the whole life of this process if that has failed."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _cpu_seconds() -> float:
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def _ignore_signals() -> None:
    """A host is ended by SIGKILL alone. Handlers that do nothing, for what is ignored stays ignored in subprocesses."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)


def _set_up(answer: Answer, memory: Memory | None, setup: Mapping[str, Any]) -> Host | None:
    try:
        model = load(setup)
        host = Host(answer, memory, model, scheduler(setup, model.worker_callback))
        if model.worker_callback is not None:
            _call_back(model.worker_callback)
    except Unfit as error:
        answer("unfit", error.exception, str(error))
    except Unreachable as error:
        answer("broken", str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the callback is the model's
        answer("unfit", name_of(error), text_of(error, "worker_callback failed"))
    else:
        return host
    return None


def _call_back(callback: Callable[..., object]) -> None:
    """As Dask calls it in its workers: with the worker if it asks for one, and here there is none."""
    names = callback.__code__.co_varnames if hasattr(callback, "__code__") else ()
    callback(dask_worker=None) if "dask_worker" in names else callback()


def main(line: int, memory: int | None = None) -> None:
    """Serve until the socket with the descriptor `line` is closed at its other end; `memory` is that of `cancel`."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _ignore_signals()
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
        answer("ready", os.getpid())
        host.serve(messages)
    os._exit(0)  # threads of the model that do not end must not keep us
