"""Reading beneath a directory that a worker shares with this server: no link and no `..` leads out of it.

What tasks leave there is theirs to shape, also while it is read: each step of a path is opened from the one before it
and follows no link, and what was opened is looked at, not what had the name.
"""

import hmac
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK_BYTES = 256 * 1024
_MIN_PROBE, _MAX_PROBE = 16, 1000
MAX_DEPTH = 100
"""Directories that are nested deeper are not looked into."""
_LAST_SECOND = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
_ENTRIES_PER_FILE = 10
"""So many entries are looked at for each file that may be listed, so that empty directories do not take for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A directory that a worker shares with this server, and the user who proved that it may write there.

    A directory of another user in its place (the worker may have put a link there) is not read.
    """

    path: str
    owner: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFile:
    """A regular file as it is now."""

    path: str
    size: int
    modified: datetime


class OpenFile:
    """An open regular file; `close` it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self.size = status.st_size
        self.owner = status.st_uid
        self.modified = _modified(status)

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` to before `stop`; fewer when the file was cut meanwhile."""
        while start < stop:
            data = os.pread(self._descriptor, min(_BLOCK_BYTES, stop - start), start)
            if not data:
                return
            start += len(data)
            yield data

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def shared_root(path: str, probe_name: str, probe: str) -> Root | None:
    """The directory at `path`, if the worker's secret text is in a file there that its own user has written."""
    if not os.path.isabs(path) or len(probe) < _MIN_PROBE:
        return None
    try:
        owner = os.stat(path).st_uid
    except (OSError, ValueError):
        return None
    root = Root(path=path, owner=owner)
    file = open_beneath(root, probe_name)
    if file is None:
        return None
    text = b"".join(file.read(0, _MAX_PROBE)).strip()
    file.close()
    return root if file.owner == owner and hmac.compare_digest(text, probe.encode()) else None


def open_beneath(root: Root, path: str) -> OpenFile | None:
    """The regular file at a relative path beneath `root`; None when there is none or a link is on the way."""
    steps = steps_of(path)
    if not steps:
        return None
    try:
        with _directory(root, steps[:-1]) as directory:
            descriptor = os.open(steps[-1], _FILE, dir_fd=directory)
            if not _is_its_own(os.fstat(descriptor), os.fstat(directory)):
                os.close(descriptor)
                return None
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
    return OpenFile(descriptor)


def _modified(status: os.stat_result) -> datetime:
    """When a file was changed, as its owner says: any number, of which a date can show those up to the year 9999."""
    return datetime.fromtimestamp(min(max(status.st_mtime, 0.0), _LAST_SECOND), UTC)


def _is_its_own(file: os.stat_result, directory: os.stat_result) -> bool:
    """Whether it is a regular file that belongs here.

    A file with several names may be anybody's, linked to by a task that could not read it: it counts only where it
    belongs to the user to whom the directory does.
    """
    return stat.S_ISREG(file.st_mode) and (file.st_nlink == 1 or file.st_uid == directory.st_uid)


def list_beneath(root: Root, path: str, limit: int) -> list[DiskFile] | None:
    """The regular files in a directory beneath `root` and below it, by path, at most `limit`; None if it is missing."""
    steps = steps_of(path)
    if steps is None:
        return None
    try:
        with _directory(root, steps) as directory:
            found = _Listing(limit).of(directory, "", len(steps))
    except (OSError, ValueError):
        return None
    return sorted(found, key=lambda file: file.path)


def steps_of(path: str) -> list[str] | None:
    """The names in a relative path; None when it is absolute, leads upwards or could not be a file's."""
    steps = path.split("/") if path else []
    if len(steps) > MAX_DEPTH or any(step in ("", ".", "..") or "\0" in step for step in steps):
        return None
    return steps


@contextmanager
def _directory(root: Root, steps: list[str]) -> Iterator[int]:
    descriptor = os.open(root.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != root.owner:
            raise PermissionError(f"{root.path} is not the directory that the worker had")
        for step in steps:
            inner = os.open(step, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


class _Listing:
    """Regular files below a directory, as many as are wanted and can be found in a reasonable time."""

    def __init__(self, limit: int) -> None:
        self._files_left = limit
        self._entries_left = max(1000, limit * _ENTRIES_PER_FILE)

    def of(self, directory: int, prefix: str, depth: int) -> list[DiskFile]:
        """The files of an open directory; what vanishes meanwhile or cannot be read is left out."""
        owner, found = os.fstat(directory), []
        with os.scandir(directory) as entries:
            for entry in entries:
                self._entries_left -= 1
                if self._files_left <= 0 or self._entries_left < 0:
                    break
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        found += self._inside(directory, entry.name, prefix, depth)
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if _is_its_own(status, owner):
                        self._files_left -= 1
                        path = f"{prefix}{entry.name}"
                        found.append(DiskFile(path=path, size=status.st_size, modified=_modified(status)))
        return found

    def _inside(self, directory: int, name: str, prefix: str, depth: int) -> list[DiskFile]:
        if depth >= MAX_DEPTH:
            return []
        inner = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            return self.of(inner, f"{prefix}{name}/", depth + 1)
        finally:
            os.close(inner)
