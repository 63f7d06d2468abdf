"""`banyan worker --tasks FILE`: the tasks of a file, run by the same worker without a server.

Each line of the file is a task as `POST /tasks` takes it, with a `command` or a `model`. A stand-in for the server
hands them out in the order of the file, whatever their priorities, and prints one line of JSON for each that has ended.
"""

import json
import os
import re
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from banyan import wire
from banyan.config import WorkerSettings
from banyan.domain.programs import (
    TOO_LONG,
    bytes_of_environment,
    command_faults,
    environment_faults,
    total_faults,
)
from banyan.domain.resources import Resources
from banyan.domain.task import is_no_directory
from banyan.errors import SetupError
from banyan.worker_calls import Stream
from worker.actions import Note
from worker.events import Document, Drain, Event
from worker.journal import write_note

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
_KNOWN = {
    *(
        "_id",
        "name",
        "tags",
        "metadata",
        "queue",
        "priority",
        "command",
        "model",
        "inputs",
        "env",
        "directory",
        "stdin",
        "result_from",
        "workdir",
    ),
    *("timeout", "max_shutdown_time", "estimated_runtime", "requested_resources", "max_retry_count"),
}
_DURATIONS = ("timeout", "max_shutdown_time", "estimated_runtime")
_SHOWN = ("exit_code", "signal", "error", "peak_memory_bytes", "cpu_seconds", "result", "result_file", "stdout_tail")


@dataclass(slots=True)
class Line:
    """A task of the file."""

    document: Document
    resources: Resources
    task_class: str
    attempt: int = 0
    order: str = ""
    """Its place: texts are compared by characters."""


class TasksFile:
    """A stand-in for the server: `claim` hands out the tasks, `report` accepts their ends.

    `done` is called when all have ended; `show` gets one document for each.
    """

    def __init__(self, lines: list[Line], show: Callable[[Document], None]) -> None:
        self.failed = 0
        self.ended = 0
        self.done: Callable[[], None] = lambda: None
        self._show = show
        self._changed = threading.Condition()
        self._waiting: deque[Line] = deque()
        self._places = count()
        for line in lines:
            self._append(line)
        self._total = len(lines)
        self._running: dict[str, Line] = {}
        self._newest = ""
        self._capacity = Resources()

    def register_worker(self, worker: Document, /) -> Document:
        """Record the resources of the machine."""
        self._capacity = Resources.from_document(worker["resources"])
        if not self._total:
            self.done()
        return {"_id": "local", "files": "shared", "heartbeat_seconds": 20.0}

    def claim(self, worker: str, body: Document, /) -> Document:
        """Hand out the tasks that fit, or wait for one."""
        deadline = time.monotonic() + float(body["wait"])
        with self._changed:
            self._newest = body["request"]
            self._changed.notify_all()
            while self._newest == body["request"]:
                grants = self._grants(body)
                if grants or not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    return {"tasks": grants}
        return {}

    def report(self, worker: str, body: Document, /) -> Document:
        """Accept ends and returned tasks; a failed task is retried as often as its fields allow."""
        with self._changed:
            for report in body["reports"]:
                if report.get("given_back"):
                    self._waiting.appendleft(self._running.pop(report["execution"]))
                elif "exit_status" in report:
                    self._end(self._running.pop(report["execution"]), report)
            self._changed.notify_all()
        return {"accepted": [report["execution"] for report in body["reports"]]}

    def close_worker(self, worker: str, finished: Sequence[str], /) -> None:
        """Do nothing."""

    def put_log(self, execution: str, stream: Stream, offset: int, data: bytes, token: str, /) -> int:
        """Never called: the files stay where they are."""
        return offset + len(data)

    def put_file(self, execution: str, path: str, offset: int, data: bytes, token: str, /) -> int:
        """Never called: the files stay where they are."""
        return offset + len(data)

    def _grants(self, body: Mapping[str, Any]) -> list[Document]:
        free, at_once = Resources.from_document(body["resources"]), body["max_tasks"]
        ahead = _Ahead(body)
        grants: list[Document] = []
        while self._waiting:
            line = self._waiting[0]
            if not line.resources.fits(self._capacity):
                self._refuse(self._waiting.popleft())
            elif at_once and line.resources.fits(free):
                free, at_once = free.minus(line.resources), at_once - 1
                grants.append(self._grant(self._waiting.popleft()))
            elif ahead.take(line):
                grants.append(self._grant(self._waiting.popleft()))
            else:
                break
        return grants

    def _grant(self, line: Line) -> Document:
        line.attempt += 1
        execution = f"{line.document['_id']}.{line.attempt}"
        self._running[execution] = line
        attempt = {"execution": execution, "token": "", "attempt": line.attempt, "class": line.task_class}
        return line.document | attempt | {"queue": "", "priority": 0, "order": line.order}

    def _append(self, line: Line) -> None:
        line.order = f"{next(self._places):012d}"
        self._waiting.append(line)

    def _refuse(self, line: Line) -> None:
        missing = ", ".join(f"{name} {wanted} of {there}" for name, (wanted, there) in self._lacks(line).items())
        self._end(line, {"exit_status": f"failure (worker: it needs more than this machine has: {missing})"})

    def _lacks(self, line: Line) -> dict[str, tuple[Any, Any]]:
        return line.resources.missing(self._capacity)

    def _end(self, line: Line, report: Document) -> None:
        success = report["exit_status"] == "success"
        if (
            not success
            and report["exit_status"] != TOO_LONG
            and not is_no_directory(report["exit_status"])
            and 0 < line.attempt <= line.document.get("max_retry_count", 0)
        ):
            self._append(line)
            return
        self.ended += 1
        self.failed += not success
        named = {name: line.document[name] for name in ("_id", "name") if name in line.document}
        shown = {name: report[name] for name in _SHOWN if name in report}
        self._show(named | {"exit_status": report["exit_status"], "attempts": line.attempt} | shown)
        if self.ended == self._total:
            self.done()


class _Ahead:
    """The amount of further work that may wait at the worker, by its claim."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        ahead = body.get("ahead") or {"seconds": 0.0, "most": 0}
        waiting = (body.get("waiting") or {}).values()
        there = sum(each["seconds"] * count for each in waiting for _, count, _ in each["tasks"])
        self._seconds = ahead["seconds"] - there
        self._most = ahead["most"]
        self._soon = Resources.from_document(ahead.get("resources") or {})
        self._classes = ahead.get("classes") or {}
        self._other = ahead.get("other")

    def take(self, line: Line) -> bool:
        """Return whether one more task may wait there; if so, count it."""
        cost = self._classes.get(line.task_class, self._other)
        if cost is None or self._most <= 0 or self._seconds <= 0 or not line.resources.fits(self._soon):
            return False
        self._most -= 1
        self._seconds -= cost
        return True


def run_file(settings: WorkerSettings, path: Path) -> int:
    """Run the tasks of a file; return 0 if all of them succeeded, else 1. SetupError for a file that cannot be used."""
    from worker.daemon import Daemon, work_root

    lines = read(path)
    os.umask(settings.tasks.umask)
    root = work_root(settings) if settings.workdir else Path(tempfile.mkdtemp(prefix="banyan-tasks-"))
    if settings.run_as and not settings.workdir:
        root.chmod(0o755)  # the user must reach his own directories in it
    began = time.monotonic()
    tasks = TasksFile(lines, lambda document: print(json.dumps(document), file=sys.stdout))
    daemon = Daemon(settings, tasks, root)

    def done() -> None:
        event: Event = Drain("all tasks have ended")
        daemon.tell(event)

    tasks.done = done
    daemon.run()
    sys.stdout.flush()
    seconds = time.monotonic() - began
    left = len(lines) - tasks.ended
    counts = f"{tasks.ended - tasks.failed} succeeded, {tasks.failed} failed" + (f", {left} not run" if left else "")
    write_note(Note(f"{counts} in {seconds:.1f} s ({tasks.ended / max(seconds, 1e-6):.0f} per second); see {root}"))
    return 1 if tasks.failed or left else 0


def read(path: Path) -> list[Line]:
    """Return the tasks of a JSON-lines file; SetupError names every wrong line, and its fault."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise SetupError(f"cannot read {path}: {error}") from error
    lines: list[Line] = []
    faults = _Faults()
    for number, text in enumerate(texts, 1):
        if text.strip():
            try:
                lines.append(_line(json.loads(text), number))
            except (ValueError, TypeError) as error:
                faults.add(number, error)
    taken: set[str] = set()
    for line in lines:
        if line.document["_id"] in taken:
            faults.add(0, ValueError(f"the id {line.document['_id']} occurs twice"))
        taken.add(line.document["_id"])
    faults.check(path)
    return lines


@dataclass(slots=True)
class _Faults:
    texts: list[str] = field(default_factory=list)

    def add(self, number: int, error: Exception) -> None:
        self.texts.append(f"line {number}: {error}" if number else str(error))

    def check(self, path: Path) -> None:
        if self.texts:
            more = f"; and {len(self.texts) - 10} more" if len(self.texts) > 10 else ""
            raise SetupError(f"{path}: {'; '.join(self.texts[:10])}{more}")


def _line(document: Any, number: int) -> Line:
    """Return one task, its sizes and durations as numbers; ValueError names its fault."""
    if not isinstance(document, dict):
        raise ValueError("a task is a JSON object")
    unknown = sorted(document.keys() - _KNOWN)
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not known, or only with a server")
    _check_program(document)
    document.setdefault("_id", f"{number:06d}")
    if not isinstance(document["_id"], str) or not _NAME.fullmatch(document["_id"]):
        raise ValueError("_id must be letters, digits, '_', '-' and '.', at most 100")
    for name in _DURATIONS:
        if name in document:
            document[name] = wire.parse_duration(document[name])
    wanted = dict(document.get("requested_resources") or {})
    for name in ("memory", "gpu_memory", "scratch"):
        if name in wanted:
            wanted[name] = wire.parse_size(wanted[name])
    document["requested_resources"] = {"cores": 1} | wanted
    resources = Resources.from_document(document["requested_resources"])
    task_class = json.dumps([document.get("model"), document["requested_resources"]], sort_keys=True)
    return Line(document, resources, task_class)


def _check_program(document: Document) -> None:
    """Raise ValueError unless the task has a command or a model."""
    command, model = document.get("command"), document.get("model")
    if model is not None:
        if not isinstance(model, str) or command is not None:
            raise ValueError("model must be the name of a model, without a command beside it")
        if not isinstance(document.get("inputs", {}), dict):
            raise ValueError("inputs must be an object")
    elif faults := list(command_faults(command)):
        raise ValueError(f"command {faults[0]}")
    _check_environment(command, document.get("env"))


def _check_environment(command: str | list[str] | None, environment: Any) -> None:
    """Raise ValueError unless a kernel can take both."""
    if not isinstance(environment, dict | None):
        raise ValueError("env must be an object")
    if faults := list(environment_faults(environment)):
        raise ValueError(f"env: {faults[0]}")
    for name, fault in total_faults(command, bytes_of_environment(environment)).items():
        raise ValueError(f"{name}: {fault}")
