"""The layout of the worker's disk.

::

    <root>/<task>/<attempt>/stdout, stderr, stdin
    <root>/<task>/<attempt>/command         a line for the shell that is too long for an argument
    <root>/<task>/<attempt>/progress.json, result.json: the task's progress and result
    <root>/<task>/<attempt>/work/           the work directory, unless
    <root>/<task>/work/                     it is the task's, and survives retries

Where a task runs as another user, its progress and result are in `<attempt>/told/` instead: only that and `work` are
the user's, who can exchange nothing outside of them. Making directories is the largest cost of a short task here, so
there are as few as possible.
"""

import contextlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from banyan import beneath
from worker.account import Account
from worker.events import Grant
from worker.trash import Trash


class Layout:
    """The directories of tasks below `root` (absolute); tasks run as `account`, if that is given, with this umask."""

    def __init__(self, root: Path, account: Account | None = None, umask: int = 0o022) -> None:
        self.root = root
        self._account = account
        self._umask = umask
        self.trash = Trash(root)

    def logs(self, grant: Grant) -> str:
        """Return the directory of one attempt, which holds all except a work directory that belongs to the task."""
        return f"{self.root}/{grant.directory['logs']}"

    def told(self, grant: Grant) -> str:
        """Return the directory for the task's progress and result."""
        return self.logs(grant) if self._account is None else f"{self.logs(grant)}/told"

    def work(self, grant: Grant) -> str | None:
        """Return the work directory, if the task has one."""
        work = grant.directory["work"]
        return f"{self.root}/{work}" if work else None

    def make(self, grant: Grant) -> None:
        """Make the directories of an attempt, empty unless the task keeps its own; OSError if that fails."""
        logs, work = self.logs(grant), self.work(grant)
        task = os.path.dirname(logs)
        with contextlib.suppress(FileExistsError):
            os.mkdir(task)
        try:
            os.mkdir(logs)
        except FileExistsError:  # an earlier life of this attempt never started
            if not self.trash.take(logs):
                beneath.remove(logs)
            os.mkdir(logs)
        except PermissionError:  # an earlier attempt has removed our rights to the task's directory
            beneath.allow(task)
            os.mkdir(logs)
        if self._account is not None:
            os.mkdir(self.told(grant))
        if work is not None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(work)
        if self._account is not None:
            self._hand_over([task, logs], [self.told(grant), *([work] if work is not None else [])], self._account)

    def _hand_over(self, passages: list[str], given: list[str], account: Account) -> None:
        """Let the user pass through our directories, and own the task's."""
        mode = 0o777 & ~self._umask
        for path in passages:
            os.chmod(path, mode | 0o111)  # noqa: S103 - others may pass through, with no right beyond the umask
        for path in given:
            os.chmod(path, mode)
            os.chown(path, account.uid, account.gid, follow_symlinks=False)

    def put(self, grant: Grant, name: str, text: str) -> str:
        """Write a text that the task reads, such as its standard input; return its path."""
        path = f"{self.logs(grant)}/{name}"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            if self._account is not None:
                os.fchown(file.fileno(), self._account.uid, self._account.gid)
            file.write(text.encode(errors="surrogatepass"))
        return path

    def elsewhere(self, grant: Grant) -> list[str]:
        """Return other places of a task: the parent of its attempts, and the user's directory that it runs in."""
        directory, beside = grant.document.get("directory"), os.path.dirname(self.logs(grant))
        return [beside, os.path.join(self.work(grant) or self.logs(grant), directory)] if directory else [beside]

    def purge(self, grant: Grant, tail_bytes: int) -> None:
        """Remove the files of an ended attempt, except the last bytes of its streams, and files of no attempt."""
        logs, work = self.logs(grant), self.work(grant)
        with contextlib.suppress(OSError):
            for entry in os.scandir(logs):
                if entry.name in ("stdout", "stderr") and entry.is_file(follow_symlinks=False):
                    beneath.cut(entry.path, tail_bytes)
                else:
                    _remove(entry)
            for entry in os.scandir(os.path.dirname(logs)):
                if not entry.name.isdecimal() and entry.name != "work":
                    _remove(entry)
        if work is not None:
            beneath.remove(work)

    def clear(self, grant: Grant) -> None:
        """Discard an attempt's own directory, and the task's if it is empty then."""
        if not self.trash.take(self.logs(grant)):
            beneath.remove(self.logs(grant))  # for example a full disk has no room for another name
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(self.logs(grant)))

    def forget(self, names: Iterable[str], busy: Collection[str] = ()) -> list[str]:
        """Remove directories of tasks (`TASK`), or of their attempts up to one (`TASK/ATTEMPT`); return their names.

        With a task's last attempt its own work directory is removed. Tasks that are `busy` here stay.
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
            beneath.allow(f"{self.root}/{task}")
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


def _remove(entry: os.DirEntry[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        beneath.remove(entry.path)
    else:
        os.unlink(entry.path)
