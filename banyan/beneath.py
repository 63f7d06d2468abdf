"""Files beneath a directory in which others may write: no link, no `..`, no pipe and no device leads out of it.

Names are resolved step by step from a descriptor, so nothing can be exchanged on the way. A file in a directory of
another user must belong to that user: otherwise a hard link would give our rights on the file to that user.
"""

import contextlib
import math
import os
import secrets
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

MAX_DEPTH = 100
"""The deepest directories that are read."""
MAX_REMOVED = 1_000_000
"""The most directories that are removed at once."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def directory(path: str) -> Iterator[int]:
    """Open the directory itself, until the end of the block; OSError if it is none, or a link."""
    descriptor = os.open(path, _DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def descended(top: int, steps: Sequence[str]) -> Iterator[int]:
    """Open the directory at the end of these steps; OSError if one is missing, a link or another user's."""
    descriptor = os.dup(top)
    try:
        for step in steps:
            inner = os.open(step, _DIRECTORY, dir_fd=descriptor)
            outer, descriptor = descriptor, inner
            try:
                _check(os.fstat(inner), os.fstat(outer), step)
            finally:
                os.close(outer)
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(top: int, steps: Sequence[str]) -> int:
    """Open a regular file for reading; OSError if there is none that may be read."""
    with descended(top, steps[:-1]) as inner:
        descriptor = os.open(steps[-1], _FILE, dir_fd=inner)
        try:
            status = os.fstat(descriptor)
            _check(status, os.fstat(inner), steps[-1])
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(f"{steps[-1]} is no regular file")
        except OSError:
            os.close(descriptor)
            raise
        return descriptor


def open_at(path: str) -> int:
    """Open a file like `open_file`, for a path whose directory we trust."""
    parent, name = os.path.split(path)
    with directory(parent) as top:
        return open_file(top, [name])


def regular_files(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every regular file beneath the directory `path`: its path relative to it, and its status."""
    with contextlib.suppress(OSError), directory(path) as top:
        yield from files_of(top)


def files_of(top: int, max_entries: float = math.inf) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the same as `regular_files`, for the descriptor of a directory; at most so many entries are read."""
    for steps, status in _walk(top, max_entries, MAX_DEPTH):
        if stat.S_ISREG(status.st_mode):
            yield "/".join(steps), status


def statuses(path: str, max_entries: float = math.inf, max_depth: int = MAX_DEPTH) -> Iterator[os.stat_result]:
    """Yield the status of everything beneath the directory `path`, of any kind; at most so many entries are read."""
    with contextlib.suppress(OSError), directory(path) as top:
        for _, status in _walk(top, max_entries, max_depth):
            yield status


def _walk(top: int, max_entries: float, max_depth: int) -> Iterator[tuple[tuple[str, ...], os.stat_result]]:
    """Yield everything beneath the descriptor of a directory: the steps to it, and its status."""
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        steps = waiting.pop()
        with contextlib.suppress(OSError), descended(top, steps) as here:  # it may vanish meanwhile
            for name, status in _entries(here):
                max_entries -= 1
                if max_entries < 0:
                    return
                yield (*steps, name), status
                if stat.S_ISDIR(status.st_mode) and len(steps) < max_depth:
                    waiting.append((*steps, name))


def is_empty(path: str) -> bool:
    """Return whether this is an empty directory."""
    try:
        return not os.listdir(path)
    except OSError:
        return False


def allow(path: str, top: int | None = None) -> None:
    """Let us read, change and enter a directory of ours, whatever its mode; OSError if there is none, or a link."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        if os.fstat(descriptor).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            with contextlib.suppress(PermissionError):  # another user's
                os.chmod(f"/proc/self/fd/{descriptor}", stat.S_IRWXU)
    finally:
        os.close(descriptor)


def remove(path: str) -> None:
    """Remove a directory with all its contents, however deep and whatever its modes, as far as possible."""
    with contextlib.suppress(OSError):
        allow(path)
        with directory(path) as top:
            waiting = deque(_emptied(top, top))
            for _ in range(MAX_REMOVED):
                if not waiting:
                    break
                name = waiting.popleft()
                with contextlib.suppress(OSError):
                    allow(name, top)
                    inner = os.open(name, _DIRECTORY, dir_fd=top)
                    try:
                        waiting.extend(_emptied(inner, top))
                    finally:
                        os.close(inner)
                    os.rmdir(name, dir_fd=top)
        os.rmdir(path)


def cut(path: str, keep_bytes: int) -> None:
    """Remove all except the last bytes of a regular file that has no other name; OSError if that fails."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_size > keep_bytes:
            end = os.pread(descriptor, keep_bytes, status.st_size - keep_bytes)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, end, 0)
    finally:
        os.close(descriptor)


def _emptied(here: int, top: int) -> list[str]:
    """Remove the files in a directory, and move its directories to `top`, so that none is deep; return new names."""
    moved: list[str] = []
    with os.scandir(here) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        with contextlib.suppress(OSError):
            if not is_directory:
                os.unlink(name, dir_fd=here)
            elif here == top:
                moved.append(name)
            else:
                higher = f".removed-{secrets.token_hex(8)}"
                allow(name, here)  # else it cannot be moved to another directory
                os.rename(name, higher, src_dir_fd=here, dst_dir_fd=top)
                moved.append(higher)
    return moved


def _entries(here: int) -> Iterator[tuple[str, os.stat_result]]:
    own = os.fstat(here)
    with os.scandir(here) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                _check(status, own, entry.name)
                yield entry.name, status


def _check(found: os.stat_result, parent: os.stat_result, name: str) -> None:
    """Raise PermissionError for a file in another user's directory that is not that user's."""
    if found.st_uid != parent.st_uid and parent.st_uid != os.geteuid():
        raise PermissionError(f"{name} does not belong to the user in whose directory it is")
