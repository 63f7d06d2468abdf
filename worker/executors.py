"""The execution of tasks: an executor turns a grant into a job for the supervisor, and reads the task's output.

`ShellExecutor` runs commands, `worker.model_executor` models; `Executors.of` chooses. `Workplace` is common to them.
"""

import errno
import os
import shlex
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Protocol

from banyan.child import default_environment
from banyan.domain.matching import SHELL
from banyan.domain.programs import TOO_LONG, too_long
from worker.account import Account
from worker.cgroups import ControlGroups
from worker.collect import Malformed, printed_result, progress, result, tail, total_bytes
from worker.disk_guard import DiskGuard
from worker.events import Allocation, Document, Grant
from worker.layout import Layout
from worker.outcome import no_directory
from worker.spawner import Job

NOT_FOUND = 127
NOT_EXECUTABLE = 126
NO_DIRECTORY_HINT = (
    "a command runs in the directory where it was submitted: `--dir` names another one, `--fresh` takes an empty one"
)
_SHELL = "/bin/sh"


class CannotStart(Exception):
    """A task cannot be started: the program's own fault if there is an `exit_code`, else the machine's.

    `exit_status` is given where these do not suffice.
    """

    def __init__(self, reason: str, exit_code: int | None = None, exit_status: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code
        self.exit_status = exit_status

    @classmethod
    def too_long(cls, number: int) -> "CannotStart | None":
        """Return the fault of a task with arguments and variables too long for the kernel, if `errno` means that."""
        text = "the command and its environment are longer than the kernel of this worker takes"
        return cls(text, NOT_EXECUTABLE, TOO_LONG) if number == errno.E2BIG else None

    @classmethod
    def no_directory(cls, path: str, why: str) -> "CannotStart":
        """Return the fault of a task whose directory this machine lacks; another one may have it."""
        text = f"no directory {path} on {socket.gethostname()} ({why}); {NO_DIRECTORY_HINT}"
        return cls(text, exit_status=no_directory(path))


class Executor(Protocol):
    """The executor of one kind of task."""

    @property
    def capabilities(self) -> Sequence[str]:
        """Return the capabilities that the worker offers with it."""

    def runs(self, grant: Grant) -> bool:
        """Return whether this is such a task."""

    def prepare(self, grant: Grant, allocation: Allocation) -> Job:
        """Make the directories and return the job to spawn; CannotStart."""

    def refused(self, grant: Grant, stage: str, number: int, text: str) -> CannotStart:
        """Return the fault of a job that could not be spawned, by `errno` and text, and the stage of the failure."""

    def release(self, grant: Grant) -> None:
        """Remove the surroundings of a task that did not run."""

    def collect(self, grant: Grant, outcome: Document | None = None) -> Document:
        """Return an ended task's output, as fields of its report, and marks (`worker.outcome.MARKS`).

        `outcome` is the report of a host.
        """


class Workplace:
    """The surroundings of tasks of every kind: their directories, their environment, their logs."""

    def __init__(
        self,
        layout: Layout,
        tail_bytes: int,
        disk: DiskGuard,
        account: Account | None = None,
        gpu_name: Callable[[int], str] = str,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._gpu_name = gpu_name
        self.layout = layout
        self._disk = disk
        self.account = account
        self._tail_bytes = tail_bytes
        self._environment = default_environment((account.name, account.home) if account else None) | dict(variables)

    def make(self, grant: Grant) -> str | None:
        """Make the directories of an attempt; return the file of its standard input, if it has any. CannotStart."""
        try:
            self.layout.make(grant)
            if not grant.document.get("stdin"):
                return None
            return self.layout.put(grant, "stdin", grant.document["stdin"])
        except OSError as error:
            raise CannotStart(f"no work directory: {error}") from error

    def line_from_file(self, grant: Grant, line: str) -> str:
        """Return a line for the shell that runs this `line`, which is too long for an argument; CannotStart."""
        try:
            return f". {shlex.quote(self.layout.put(grant, 'command', line))}"
        except OSError as error:
            raise CannotStart(f"no work directory: {error}") from error

    def cwd(self, grant: Grant) -> str:
        """Return the directory in which the task runs."""
        work, directory = self.layout.work(grant) or tempfile.gettempdir(), grant.document.get("directory")
        return os.path.join(work, directory) if directory else work

    def environment(self, grant: Grant, allocation: Allocation) -> dict[str, str]:
        """Return the variables that do not name this very attempt."""
        return {
            **self._environment,
            "OMP_NUM_THREADS": str(allocation.threads),
            **({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if allocation.gpu_indexes else {}),  # by NVML's numbers
            "CUDA_VISIBLE_DEVICES": ",".join(map(self._gpu_name, allocation.gpu_indexes)),
            **(grant.document.get("env") or {}),
        }

    def names(self, grant: Grant) -> dict[str, str]:
        """Return the variables that name this attempt and the files for its progress and result."""
        told, work = self.layout.told(grant), self.layout.work(grant)
        names = {
            "BANYAN_TASK_ID": grant.task,
            "BANYAN_EXECUTION_ID": grant.execution,
            "BANYAN_PROGRESS": f"{told}/progress.json",
            "BANYAN_RESULT": f"{told}/result.json",
        }
        if grant.document.get("sweep") is not None:
            names["BANYAN_SWEEP_ID"] = str(grant.document["sweep"])
            names["BANYAN_SWEEP_INDEX"] = str(grant.document.get("index", ""))
        return names if work is None else names | {"BANYAN_WORKDIR": work}

    def collect(self, grant: Grant) -> Document:
        """Return tails and sizes of the streams, the size of the files, the progress; faults of these as `error`."""
        logs, work = self.layout.logs(grant), self.layout.work(grant)
        left: Document = {}
        for stream in ("stdout", "stderr"):
            left[f"{stream}_tail"], left[f"{stream}_bytes"] = tail(f"{logs}/{stream}", self._tail_bytes)
        try:
            said = progress(f"{self.layout.told(grant)}/progress.json")
            left |= {"progress": said} if said is not None else {}
        except Malformed as error:
            left["error"] = str(error)
        files = total_bytes(work) if work else 0
        left |= {"files_bytes": files} if files is not None else {}
        return left | self._disk.ended(grant)


class ShellExecutor:
    """The executor of commands: a text by `/bin/sh -c`, a list as it is."""

    capabilities = (SHELL,)

    def __init__(self, place: Workplace, groups: ControlGroups | None = None) -> None:
        self._place = place
        self._groups = groups

    def runs(self, grant: Grant) -> bool:
        """Return whether the task has a command."""
        return grant.document.get("command") is not None

    def prepare(self, grant: Grant, allocation: Allocation) -> Job:
        """Make the directories and return the job to spawn; CannotStart."""
        stdin = self._place.make(grant)
        logs = self._place.layout.logs(grant)
        variables = self._place.environment(grant, allocation) | self._place.names(grant)
        argv, procs = self._argv(grant)
        return Job(
            argv=argv,
            env=[f"{name}={value}" for name, value in variables.items()],
            cwd=self._place.cwd(grant),
            stdin=stdin,
            stdout=f"{logs}/stdout",
            stderr=f"{logs}/stderr",
            procs=procs,
        )

    def _argv(self, grant: Grant) -> tuple[list[str], str | None]:
        """Return the command, and the control group that the supervisor must enter where the task may not do that."""
        command = grant.document["command"]
        if isinstance(command, str):
            line = self._place.line_from_file(grant, command) if too_long(command) else command
            argv = [_SHELL, "-c", line]
        else:
            argv = list(command)
        if self._groups is None:
            return argv, None
        try:
            if self._place.account is not None:
                return argv, self._groups.make(grant.execution, grant.memory_limit_bytes)
            return self._groups.enter(grant.execution, grant.memory_limit_bytes, argv), None
        except OSError as error:
            raise CannotStart(f"no control group: {error}") from error

    def refused(self, grant: Grant, stage: str, number: int, text: str) -> CannotStart:
        """Return the fault: the task's for a missing program, neither's for a missing directory, else the machine's."""
        if self._groups is not None:
            self._groups.leave(grant.execution)
        document = grant.document
        by_shell = isinstance(document["command"], str)
        fault = CannotStart.too_long(number)
        if fault is None and stage == "directory" and os.path.isabs(document.get("directory") or ""):
            fault = CannotStart.no_directory(document["directory"], os.strerror(number))
        if fault is not None:
            reason = fault.reason
        elif stage == "directory" and document.get("directory"):
            reason, code = f"{document['directory']}: {os.strerror(number)}", NOT_EXECUTABLE
        elif stage == "command" and number in (errno.ENOENT, errno.ENOTDIR) and not by_shell:
            reason, code = f"{document['command'][0]}: command not found", NOT_FOUND
        elif stage == "command" and (number == errno.EINVAL or (number in _UNFIT and not by_shell)):
            reason, code = f"{_SHELL if by_shell else document['command'][0]}: {os.strerror(number)}", NOT_EXECUTABLE
        else:
            return CannotStart(f"no shell: {text}" if stage == "command" and by_shell else f"{stage}: {text}")
        with (
            suppress(OSError),  # a full disk; the reason is in the report, too
            open(f"{self._place.layout.logs(grant)}/stderr", "a", encoding="utf-8", errors="replace") as file,
        ):
            file.write(f"banyan: {reason}\n")
        return fault or CannotStart(reason, code)

    def release(self, grant: Grant) -> None:
        """Remove its control group."""
        if self._groups is not None:
            self._groups.leave(grant.execution)

    def collect(self, grant: Grant, outcome: Document | None = None) -> Document:
        """Return the output of every task, the result that it wrote, and whether the kernel enforced its memory."""
        left = self._place.collect(grant)
        logs, work = self._place.layout.logs(grant), self._place.layout.work(grant)
        try:
            left |= result(f"{self._place.layout.told(grant)}/result.json", work)
            if grant.document.get("result_from") == "stdout" and not left.keys() & {"result", "result_file"}:
                left |= _printed(f"{logs}/stdout", work, f"{logs}/printed.json")
        except (Malformed, OSError) as error:
            left["error"] = "; ".join([left["error"], str(error)] if "error" in left else [str(error)])
        if self._groups is not None:
            group = self._groups.leave(grant.execution)
            left |= {"out_of_memory": True} if group.out_of_memory else {}
            left |= {"group_peak_bytes": group.peak_bytes} if group.peak_bytes is not None else {}
        return left


def _printed(stdout: str, work: str | None, spare: str) -> Document:
    """Read the result that a program printed, or the fault in it; the output of a failed program is no result."""
    try:
        return printed_result(stdout, work, spare)
    except Malformed as error:
        return {"no_result": str(error)}


_UNFIT = (errno.EACCES, errno.ENOEXEC, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)


class Executors:
    """The kinds of tasks that this worker can run."""

    def __init__(self, executors: Sequence[Executor]) -> None:
        self._executors = executors

    @property
    def capabilities(self) -> list[str]:
        """Return the capabilities that the worker offers."""
        return [name for executor in self._executors for name in executor.capabilities]

    def of(self, grant: Grant) -> Executor:
        """Return the executor of this task; CannotStart if there is none."""
        for executor in self._executors:
            if executor.runs(grant):
                return executor
        raise CannotStart("this worker cannot run such a task")

    def release(self, grant: Grant) -> None:
        """Remove the surroundings of a task that did not run."""
        for executor in self._executors:
            if executor.runs(grant):
                executor.release(grant)
