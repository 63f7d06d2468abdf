"""The posting check in a host process: it calls `model.task` alone, for one task after another.

It receives `("check", number, [(inputs, jobid, workdir), ..])`: these tasks have numbers from `number` on, and their
inputs are JSON. It writes the number of the task that it begins into memory (`banyan.models.check_progress`), for a
message would wake the server. It sends `("fault", number, {..})` at once for each at fault, with `exception`, `error`
(one line) and `traceback`, and `("checked", number, tidy)` with the number of the last one, and whether no threads were
left behind; if some were, the process is of no more use. It checks at least one task, and goes on as long as their
directory stays empty and others do not wait for long.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from banyan.beneath import is_empty
from banyan.models.cancel import Cancel
from banyan.models.check_progress import Progress
from banyan.models.computing import prepare
from banyan.models.left_threads import LeftThreads
from banyan.models.loading import Model
from banyan.models.task_spec import Task_spec
from banyan.models.traces import last_line, name_of, text_of
from worker.host_place import end_copies

TURN_SECONDS = 0.1
"""The time after which it begins no further task, because others may wait."""


class Checks:
    """The check of tasks by one model; `answer` sends to the server."""

    def __init__(self, answer: Callable[..., None], model: Model, progress: Progress) -> None:
        self._answer = answer
        self._model = model
        self._progress = progress
        self._pid = os.getpid()
        self._threads = LeftThreads()

    def serve(self, messages: Callable[[], list[tuple[Any, ...]]]) -> None:
        """Check the tasks of each message, until there are no more messages."""
        while asked := messages():
            for _, number, tasks in asked:
                self._answer("checked", self._check(number, tasks), not self._threads.left())

    def _check(self, first: int, tasks: Sequence[tuple[bytes, str, str | None]]) -> int:
        """Return the number of the last task that was checked; the first one's directory is empty."""
        until = time.monotonic() + TURN_SECONDS
        for number, (inputs, jobid, workdir) in enumerate(tasks, first):
            fit = workdir is None or is_empty(workdir)
            if number > first and (not fit or time.monotonic() > until):
                return number - 1
            self._progress.begin(number)
            fault = self._fault(Task_spec(json.loads(inputs), workdir, jobid))
            if fault is not None:
                self._answer("fault", number, fault)
        return first + len(tasks) - 1

    def _fault(self, spec: Task_spec) -> dict[str, str] | None:
        os.chdir(spec.workdir or tempfile.gettempdir())
        try:
            prepare(self._model, spec, Cancel([0], 1, name=spec.jobid or ""))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the post is refused for it
            return {"exception": name_of(error), "error": last_line(error), "traceback": text_of(error)}
        finally:
            end_copies(self._pid)
        return None
