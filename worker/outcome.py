"""The end of an attempt, in the words of the contract, and the party at fault."""

import os
import signal
from datetime import datetime

from banyan.domain.task import DISK_FILLED, NO_DIRECTORY
from worker.attempts import Attempt
from worker.events import Cause, Document, Exited, Grant, NotStarted, Sample

CANCELLED = "cancelled"
MARKS = (
    "disk_full",
    "disk_filled",
    "scratch_exceeded",
    "out_of_memory",
    "exception",
    "broken",
    "no_directory",
    "group_peak_bytes",
    "no_result",
)
"""The marks of an executor on an end, beside the fields of its report.

The disk was full; the task filled it, or used more scratch space than it asked for (a sentence); the kernel enforced a
limit; the model raised this; the machine is at fault, for this reason; this directory, where the model was to run, does
not exist; the peak of its control group; the printed line is no result, for this reason.
"""
HOST_DIED = "model host died"
"""The reason of a worker failure: the process in which a model ran died, for whatever cause."""
MAX_HOST_DEATHS = 2
"""The number of such deaths for which the machine is at fault; then it is the model."""
MAX_REASON = 500
"""The most characters of a reason in an exit status, in one line; the attempt's `error` has all of it."""
SERVER_UNREACHABLE = "abandoned (server unreachable)"
DISK_FILLED_AGAIN = "failure (disk filled)"
"""The second time it is the task's own fault, and counts as such."""
SCRATCH_EXCEEDED = "failure (scratch exceeded)"
TOOK_TOO_MUCH = (DISK_FILLED, DISK_FILLED_AGAIN, SCRATCH_EXCEEDED)
"""The ends of tasks that took room on the disk that others need: their files are removed."""


def exit_status(
    wait_status: int, cause: Cause | None, marks: Document, *, host_deaths: int = 0, disk_fills: int = 0
) -> str:
    """Return the exit status of a task that ran.

    `cause` is the worker's reason for ending it, if there is one; `marks` are the executor's, `host_deaths` counts the
    hosts that died running the task before, `disk_fills` how often it filled a disk. A task that ends with success
    after a SIGTERM has succeeded, unless it was over its time or its resources.
    """
    code = os.waitstatus_to_exitcode(wait_status)
    exceeded = _exceeded(cause, marks)
    if exceeded is not None:
        return exceeded
    if code == 0 and not {"exception", "broken", "no_directory"} & marks.keys():
        return "success"
    if cause is Cause.DISK or (cause is None and "disk_filled" in marks):
        return DISK_FILLED_AGAIN if disk_fills else DISK_FILLED
    if cause in _ENDED_BY:
        return _ENDED_BY[cause]
    if "no_directory" in marks:
        return no_directory(marks["no_directory"])
    if "broken" in marks and (marks["broken"] != HOST_DIED or host_deaths < MAX_HOST_DEATHS):
        return worker_failure(marks["broken"])
    if "exception" in marks:
        return f"failure ({_in_one_line(marks['exception'])})"
    return f"failure ({signal_name(-code)})" if code < 0 else failure(code)


_ENDED_BY = {Cause.CANCEL: CANCELLED, Cause.SERVER_LOST: SERVER_UNREACHABLE}


def _exceeded(cause: Cause | None, marks: Document) -> str | None:
    """Return the exit status of a task that was over its time or its resources, however it ended then."""
    if cause is Cause.TIMEOUT:
        return "timed out"
    if cause is Cause.MEMORY or marks.get("out_of_memory"):
        return "out of memory"
    if cause is Cause.SCRATCH or (cause is None and "scratch_exceeded" in marks):
        return SCRATCH_EXCEEDED
    return None


def failure(exit_code: int) -> str:
    """Return the exit status of a program that ended with this code."""
    return f"failure (exit code {exit_code})"


def worker_failure(reason: str) -> str:
    """Return the exit status of an attempt that failed by the machine's fault, not the program's."""
    return f"failure (worker: {_in_one_line(reason)})"


def no_directory(path: str) -> str:
    """Return the exit status of an attempt whose task was to run in a directory that this machine lacks."""
    return f"{NO_DIRECTORY}{_in_one_line(path)})"


def _in_one_line(text: str) -> str:
    """Return a name or a reason in a form for an exit status: programs choose any names and paths."""
    words = " ".join(text[:MAX_REASON].split())
    return "".join(each if each.isprintable() else "?" for each in words) or "unknown"


def signal_name(number: int) -> str:
    """Return `SIGSEGV` for 11, `SIGRT40` for a signal without a name of its own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRT{number}"


def start(attempt: Attempt) -> Document:
    """Return the report of a start."""
    started = attempt.time_started.isoformat() if attempt.time_started else None
    return _report(attempt, time_started=started, pid=attempt.pid)


def peak_of(event: Exited, sampled_bytes: int, group_bytes: int | None) -> tuple[int, str]:
    """Return the peak of a task's memory in bytes, and its `peak_memory_source`.

    The kernel measures single processes exactly, so one alone is known best by that. Of several it reports the largest,
    which is less than their sum: samples, where there are any, and control groups include all of them.
    """
    own = event.peak_memory_bytes
    if event.alone and (event.peak_is_exact or not sampled_bytes):
        return max(own, sampled_bytes), "process"
    if sampled_bytes:
        return max(sampled_bytes, own if event.peak_is_exact else 0), "samples"
    if group_bytes is not None:
        return max(own, group_bytes), "control group"
    return own, "largest process"


def of_exit(attempt: Attempt, event: Exited, left: Document, peak: tuple[int, str]) -> Document:
    """Return the report of a task that ran and left this output; `peak` is that of memory, with source (`peak_of`)."""
    code = os.waitstatus_to_exitcode(event.wait_status)
    grant = attempt.grant
    status = exit_status(
        event.wait_status, attempt.cause, left, host_deaths=grant.host_deaths, disk_fills=grant.disk_fills
    )
    collected = {name: value for name, value in left.items() if name not in MARKS}
    raised = "exception" in left
    if status in TOOK_TOO_MUCH:
        why = attempt.error or left.get("disk_filled" if status != SCRATCH_EXCEEDED else "scratch_exceeded")
        collected["error"] = "; ".join(filter(None, (collected.get("error"), why)))
    elif left.get("disk_full") and status.startswith("failure"):
        status = worker_failure("disk full")
    elif status == "success" and left.get("no_result"):
        collected["error"] = "; ".join(filter(None, (collected.get("error"), left["no_result"])))
    return _report(
        attempt,
        exit_status=status,
        exit_code=code if code >= 0 and not raised else None,
        signal=signal_name(-code) if code < 0 else None,
        time_started=event.time_started.isoformat(),
        time_terminated=event.time_terminated.isoformat(),
        pid=event.pid,
        peak_memory_bytes=peak[0],
        peak_memory_source=peak[1],
        cpu_seconds=round(event.cpu_seconds, 6),
        progress=collected.pop("progress", attempt.progress),
        **collected,
    )


def of_no_start(attempt: Attempt, event: NotStarted) -> Document:
    """Return the report of a task that could not be started."""
    code = event.exit_code
    status = worker_failure(event.reason) if code is None else failure(code)
    return _report(
        attempt,
        exit_status=event.exit_status or status,
        exit_code=code,
        time_terminated=event.time_terminated.isoformat(),
        **{**event.collected, "error": event.reason},
    )


def of_never_started(attempt: Attempt, exit_status: str, error: str, now: datetime) -> Document:
    """Return the report of a task that was never tried, or whose end is unknown."""
    return _report(attempt, exit_status=exit_status, error=error, time_terminated=now.isoformat())


def _report(attempt: Attempt, **fields: object) -> Document:
    """Return the fields of every report, and `fields` as far as they are set."""
    report: Document = {"execution": attempt.grant.execution, "token": attempt.grant.token}
    if attempt.allocation is not None:
        report["granted_resources"] = attempt.allocation.to_document()
        report["directory"] = attempt.grant.directory
    return report | {name: value for name, value in fields.items() if value is not None}


def sample(grant: Grant, event: Sample) -> Document:
    """Return a sample as the server stores it."""
    document: Document = {
        "task": grant.task,
        "execution": grant.execution,
        "time": event.time.isoformat(),
        "resident_memory_bytes": event.resident_memory_bytes,
        "virtual_memory_bytes": event.virtual_memory_bytes,
        "cpu_percent": round(event.cpu_percent, 1),
    }
    if event.gpu_memory_bytes is not None:
        document["gpu_memory_bytes"] = event.gpu_memory_bytes
    return document


def only_sample(grant: Grant, event: Exited, peak: int) -> Document:
    """Return the one sample of a task that ended before its first measurement; `peak` in bytes."""
    seconds = (event.time_terminated - event.time_started).total_seconds()
    return {
        "task": grant.task,
        "execution": grant.execution,
        "time": event.time_terminated.isoformat(),
        "resident_memory_bytes": peak,
        "cpu_percent": round(100 * event.cpu_seconds / max(seconds, 0.001), 1),
    }
