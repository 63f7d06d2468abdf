"""Where things are on the worker's disk.

::

    <root>/<task>/<attempt>/stdout, stderr, stdin, progress.json, result.json
    <root>/<task>/<attempt>/work/           the work directory, unless
    <root>/<task>/work/                     it is the task's, and survives retries
"""

import contextlib
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from stat import S_ISREG

from worker.events import Grant
from worker.trash import Trash


class Layout:
    """The directories of tasks below `root` (absolute)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trash = Trash(root)

    def logs(self, grant: Grant) -> str:
        """The directory of one attempt, which holds all but a work directory that belongs to the task."""
        return f"{self.root}/{grant.directory['logs']}"

    def work(self, grant: Grant) -> str | None:
        """The work directory, if the task has one."""
        work = grant.directory["work"]
        return f"{self.root}/{work}" if work else None

    def make(self, grant: Grant) -> None:
        """Make the directories of an attempt, empty unless the task keeps its own; OSError if that fails."""
        logs, work = self.logs(grant), self.work(grant)
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.dirname(logs))
        try:
            os.mkdir(logs)
        except FileExistsError:  # an earlier life of this attempt was never started
            shutil.rmtree(logs)
            os.mkdir(logs)
        if work is not None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(work)

    def clear(self, grant: Grant) -> None:
        """Remove an attempt's own directory, and the task's if nothing else is left in it."""
        shutil.rmtree(self.logs(grant), ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(self.logs(grant)))

    def forget(self, names: Iterable[str], busy: Collection[str] = ()) -> list[str]:
        """Remove what there is of tasks (`TASK`), or of their attempts up to one (`TASK/ATTEMPT`); the names of those.

        With a task's last attempt its own work directory goes. Nothing goes of tasks that are `busy` here.
        """
        return [name for name in names if self._forget(name, busy)]

    def _forget(self, name: str, busy: Collection[str]) -> bool:
        task, _, last = name.partition("/")
        if task in busy or task.startswith(".") or not task:
            return False
        if not last:
            return self.trash.take(f"{self.root}/{task}")
        if not last.isdecimal():
            return False
        try:
            there = os.listdir(self.root / task)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        attempts = {each: int(each) for each in there if each.isdecimal()}
        going = [each for each, number in attempts.items() if number <= int(last)]
        if len(going) == len(attempts):
            going.append("work")
        gone = [self.trash.take(f"{self.root}/{task}/{each}") for each in going]
        with contextlib.suppress(OSError):
            os.rmdir(self.root / task)
        return all(gone)


def regular_files(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every regular file below `directory`: its path relative to it, and its status. Links are not followed."""
    waiting = [directory]
    while waiting:
        here = waiting.pop()
        with contextlib.suppress(OSError), os.scandir(here) as entries:  # it may vanish while we look
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if S_ISREG(status.st_mode):
                        yield os.path.relpath(entry.path, directory), status
