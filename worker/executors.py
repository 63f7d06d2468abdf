"""How tasks are run: an executor turns a grant into a job for the supervisor, and reads what the task left.

`ShellExecutor` runs commands. Another kind of task gets an executor of its own, chosen by `Executors.of`.
"""

import errno
import os
import pwd
import sys
import tempfile
from collections.abc import Sequence
from typing import Protocol

from worker.cgroups import MemoryGroups
from worker.collect import Malformed, progress, result, tail
from worker.events import Allocation, Document, Grant
from worker.layout import Layout, regular_files
from worker.spawner import Job

NOT_FOUND = 127
NOT_EXECUTABLE = 126
DISK_FULL_BYTES = 1 << 20
_SHELL = "/bin/sh"


class CannotStart(Exception):
    """A task cannot be started: the program's own fault if there is an `exit_code`, else the machine's."""

    def __init__(self, reason: str, exit_code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code


class Executor(Protocol):
    """Knows one kind of task."""

    capability: str
    """What the worker says it can do with this."""

    def runs(self, grant: Grant) -> bool:
        """Whether this is such a task."""

    def prepare(self, grant: Grant, allocation: Allocation) -> Job:
        """Make the directories and say what to spawn; CannotStart."""

    def refused(self, grant: Grant, stage: str, number: int, text: str) -> CannotStart:
        """Who is to blame when the job could not be spawned (`errno` and text, and at which stage)."""

    def collect(self, grant: Grant) -> Document:
        """What the ended task left, as fields of its report, and marks: `disk_full`, `out_of_memory`."""


class ShellExecutor:
    """Runs commands: a text by `/bin/sh -c`, a list as it is."""

    capability = "shell"

    def __init__(self, layout: Layout, tail_bytes: int, groups: MemoryGroups | None = None) -> None:
        self._layout = layout
        self._tail_bytes = tail_bytes
        self._groups = groups
        self._environment = default_environment()

    def runs(self, grant: Grant) -> bool:
        """Whether the task has a command."""
        return grant.document.get("command") is not None

    def prepare(self, grant: Grant, allocation: Allocation) -> Job:
        """Make the directories and say what to spawn; CannotStart."""
        layout, document = self._layout, grant.document
        logs, work = layout.logs(grant), layout.work(grant)
        stdin = None
        try:
            layout.make(grant)
            if document.get("stdin"):
                stdin = f"{logs}/stdin"
                with open(stdin, "wb") as file:
                    file.write(document["stdin"].encode(errors="surrogatepass"))
        except OSError as error:
            raise CannotStart(f"no work directory: {error}") from error
        return Job(
            argv=self._argv(grant),
            env=self._variables(grant, allocation, work, logs),
            cwd=os.path.join(work or tempfile.gettempdir(), document.get("directory") or ""),
            stdin=stdin,
            stdout=f"{logs}/stdout",
            stderr=f"{logs}/stderr",
        )

    def _argv(self, grant: Grant) -> list[str]:
        command = grant.document["command"]
        argv = [_SHELL, "-c", command] if isinstance(command, str) else list(command)
        if self._groups is None or grant.memory_limit_bytes is None:
            return argv
        try:
            return self._groups.enter(grant.execution, grant.memory_limit_bytes, argv)
        except OSError as error:
            raise CannotStart(f"no control group: {error}") from error

    def _variables(self, grant: Grant, allocation: Allocation, work: str | None, logs: str) -> list[str]:
        variables = {
            **self._environment,
            "OMP_NUM_THREADS": str(max(1, allocation.resources.millicores // 1000)),
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, allocation.gpu_indexes)),
            **(grant.document.get("env") or {}),
            "BANYAN_TASK_ID": grant.task,
            "BANYAN_EXECUTION_ID": grant.execution,
            "BANYAN_PROGRESS": f"{logs}/progress.json",
            "BANYAN_RESULT": f"{logs}/result.json",
        }
        if work is not None:
            variables["BANYAN_WORKDIR"] = work
        if grant.document.get("sweep") is not None:
            variables["BANYAN_SWEEP_ID"] = str(grant.document["sweep"])
            variables["BANYAN_SWEEP_INDEX"] = str(grant.document.get("index"))
        return [f"{name}={value}" for name, value in variables.items()]

    def refused(self, grant: Grant, stage: str, number: int, text: str) -> CannotStart:
        """Who is to blame: a missing program or directory is the task's fault, the rest is the machine's."""
        document = grant.document
        by_shell = isinstance(document["command"], str)
        if stage == "directory" and document.get("directory"):
            reason, code = f"{document['directory']}: {os.strerror(number)}", NOT_EXECUTABLE
        elif stage == "command" and number in (errno.ENOENT, errno.ENOTDIR) and not by_shell:
            reason, code = f"{document['command'][0]}: command not found", NOT_FOUND
        elif stage == "command" and (number in (errno.E2BIG, errno.EINVAL) or (number in _UNFIT and not by_shell)):
            reason, code = f"{_SHELL if by_shell else document['command'][0]}: {os.strerror(number)}", NOT_EXECUTABLE
        else:
            return CannotStart(f"{stage}: {text}")
        with open(f"{self._layout.logs(grant)}/stderr", "a", encoding="utf-8", errors="replace") as file:
            file.write(f"banyan: {reason}\n")
        return CannotStart(reason, code)

    def collect(self, grant: Grant) -> Document:
        """The tails and sizes of the streams, the size of the files, progress and result."""
        logs, work = self._layout.logs(grant), self._layout.work(grant)
        left: Document = {}
        for stream in ("stdout", "stderr"):
            left[f"{stream}_tail"], left[f"{stream}_bytes"] = tail(f"{logs}/{stream}", self._tail_bytes)
        faults: list[str] = []
        try:
            said = progress(f"{logs}/progress.json")
            left |= {"progress": said} if said is not None else {}
        except Malformed as error:
            faults.append(str(error))
        try:
            left |= result(f"{logs}/result.json", work)
        except (Malformed, OSError) as error:
            faults.append(str(error))
        if faults:
            left["error"] = "; ".join(faults)
        left["files_bytes"] = sum(status.st_size for _, status in regular_files(work)) if work else 0
        if self._disk_full():
            left["disk_full"] = True
        if self._groups is not None and grant.memory_limit_bytes is not None and self._groups.leave(grant.execution):
            left["out_of_memory"] = True
        return left

    def _disk_full(self) -> bool:
        status = os.statvfs(self._layout.root)
        return status.f_bavail * status.f_frsize < DISK_FULL_BYTES


_UNFIT = (errno.EACCES, errno.ENOEXEC, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)


class Executors:
    """The kinds of tasks that this worker can run."""

    def __init__(self, executors: Sequence[Executor]) -> None:
        self._executors = executors

    @property
    def capabilities(self) -> list[str]:
        """What the worker says it can do."""
        return [executor.capability for executor in self._executors]

    def of(self, grant: Grant) -> Executor:
        """Who runs this task; CannotStart if nobody does."""
        for executor in self._executors:
            if executor.runs(grant):
                return executor
        raise CannotStart("this worker cannot run such a task")


def default_environment() -> dict[str, str]:
    """What every task finds in its environment, whatever the worker's own is.

    PATH holds the usual directories and, last, that of the worker's own Python.
    """
    try:
        user = pwd.getpwuid(os.getuid())
        name, home = user.pw_name, user.pw_dir
    except KeyError:  # a container may run as a user that nobody has named
        name, home = str(os.getuid()), "/"
    usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        "PATH": f"{usual}:{os.path.dirname(sys.executable)}",
        "HOME": home,
        "USER": name,
        "LOGNAME": name,
        "SHELL": _SHELL,
        "LANG": "C.UTF-8",
        "TMPDIR": tempfile.gettempdir(),
    }
