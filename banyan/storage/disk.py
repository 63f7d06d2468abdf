"""Safe reads below a directory that a worker shares with this server: no link and no `..` leads out of it."""

import hmac
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from banyan import beneath

_BLOCK_BYTES = 256 * 1024
_LAST_SECOND = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
_LEAST_ENTRIES, _ENTRIES_PER_FILE = 1000, 10
"""The number of visited entries for each listed file, so that empty directories do not take for ever."""
_MIN_PROBE, _MAX_PROBE = 16, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A directory that a worker shares with this server, and the user who proved that it may write there.

    A directory of another user at the same path (the worker may have put a link there) is not read.
    """

    path: str
    owner: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFile:
    """A regular file at the time of the call."""

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
        """The bytes from `start` to before `stop`; fewer when the file was truncated meanwhile."""
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
    """The directory at `path`, if a file of its own user there contains the worker's secret text."""
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
    """The regular file at a relative path below `root`; None when there is none or a link is on the way."""
    steps = steps_of(path)
    if not steps:
        return None
    try:
        with _opened(root) as top:
            return OpenFile(beneath.open_file(top, steps))
    except (OSError, ValueError):  # ValueError: an impossible file name
        return None


def list_beneath(root: Root, path: str, limit: int) -> list[DiskFile] | None:
    """The regular files in and below a directory beneath `root`, by path, at most `limit`; None if it is missing."""
    steps = steps_of(path)
    if steps is None:
        return None
    try:
        with _opened(root) as top, beneath.descended(top, steps) as directory:
            files = beneath.files_of(directory, max(_LEAST_ENTRIES, limit * _ENTRIES_PER_FILE))
            found = [_described(*each) for each in islice(files, limit)]
    except (OSError, ValueError):
        return None
    return sorted(found, key=lambda file: file.path)


def steps_of(path: str) -> list[str] | None:
    """The names in a relative path; None when it is absolute, leads upwards or is impossible for a file."""
    steps = path.split("/") if path else []
    if any(step in ("", ".", "..") or "\0" in step for step in steps):
        return None
    return steps


@contextmanager
def _opened(root: Root) -> Iterator[int]:
    descriptor = os.open(root.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != root.owner:
            raise PermissionError(f"{root.path} is not the directory that the worker had")
        yield descriptor
    finally:
        os.close(descriptor)


def _described(path: str, status: os.stat_result) -> DiskFile:
    return DiskFile(path=path, size=status.st_size, modified=_modified(status))


def _modified(status: os.stat_result) -> datetime:
    """The modification time of a file, which its owner can set to any number: the nearest valid date."""
    return datetime.fromtimestamp(min(max(status.st_mtime, 0.0), _LAST_SECOND), UTC)
