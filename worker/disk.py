"""Room on the disk of the work directory, and its use by directories and open files."""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from banyan import beneath
from banyan.config import Reserve

FULL_BYTES = 1 << 20
"""The room below which a disk counts as full."""
FULL_FILES = 16
"""The number of files that can still be made below which a disk counts as full."""
MAX_OUTSIDE = 20_000
"""The most entries that are read in a directory of the user's own."""

_FLOOR_BYTES = 1 << 30
_FLOOR_FILES = 10_000
_FLOOR_PART = 10


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes, and files (inodes): the free ones, all, or those that stay free."""

    bytes: int = 0
    files: int = 0


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system at one moment. One that does not count its files has `total.files` 0."""

    free: Space
    total: Space

    @property
    def full(self) -> bool:
        """Return whether a program that writes there fails."""
        return self.free.bytes < FULL_BYTES or (self.total.files > 0 and self.free.files < FULL_FILES)


def disk_of(directory: str | os.PathLike[str]) -> Disk | None:
    """Return the file system of a directory; None if it is gone or cannot be read."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return None
    unit = found.f_frsize
    free, total = Space(found.f_bavail * unit, found.f_favail), Space(found.f_blocks * unit, found.f_files)
    return Disk(free, total)


def floor_of(disk: Disk, reserve: Reserve) -> Space:
    """Return the room on this disk that tasks must leave free."""
    usual = Space(
        min(_FLOOR_BYTES, disk.total.bytes // _FLOOR_PART), min(_FLOOR_FILES, disk.total.files // _FLOOR_PART)
    )
    files = (reserve.disk_files or usual.files) if disk.total.files else 0
    return Space(reserve.disk_bytes or usual.bytes, files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The size of files: `size_bytes` of contents (the holes of sparse files do not count), and of the disk."""

    size_bytes: int = 0
    taken: Space = Space()


class Tally:
    """A sum of files, each counted once, however many names and openers it has."""

    def __init__(self) -> None:
        self._size = self._bytes = self._files = 0
        self._seen: set[tuple[int, int]] = set()

    def add(self, status: os.stat_result, *, opened: bool = False) -> None:
        """Count this file; one that is `opened` may be found once more by its name."""
        key = (status.st_dev, status.st_ino)
        if key in self._seen:
            return
        if opened or status.st_nlink != 1:
            self._seen.add(key)
        on_disk = status.st_blocks * 512
        self._files += 1
        self._bytes += on_disk
        if stat.S_ISREG(status.st_mode):
            self._size += min(status.st_size, on_disk)

    @property
    def usage(self) -> Usage:
        """Return the sum of all added files."""
        return Usage(size_bytes=self._size, taken=Space(self._bytes, self._files))


def used(directories: Sequence[str], pids: Iterable[int] = ()) -> Usage:
    """Return the size of files beneath directories, and of removed ones of that disk that these processes hold open."""
    tally = Tally()
    device = device_of(directories[0])
    for status in _open_files(pids):
        if status.st_nlink == 0 and status.st_dev == device:
            tally.add(status, opened=True)
    for each in directories:
        for status in beneath.statuses(each):
            tally.add(status)
    return tally.usage


def changed_elsewhere(own: Sequence[str], others: Sequence[str], pids: Sequence[int], since: float) -> Usage:
    """Return the files outside of a task's own directories, on the same disk, that changed since then (`time.time`).

    These are the files that its processes have open for writing, and those beneath other directories and those in which
    its processes are now.
    """
    tally, device = Tally(), device_of(own[0])
    inside = {(status.st_dev, status.st_ino) for each in own for status in beneath.statuses(each)}
    found = [*_open_files(pids)]
    home = os.path.realpath(own[0])
    places = {*others, *map(_current, pids)}
    for place in {os.path.realpath(each) for each in places if each is not None}:
        if device_of(place) == device and not _holds(home, place):
            depth = 0 if _holds(place, home) else beneath.MAX_DEPTH  # deeper files may be those of other tasks
            found += beneath.statuses(place, MAX_OUTSIDE, depth)
    for status in found:
        here = status.st_dev == device and (status.st_dev, status.st_ino) not in inside
        if here and status.st_nlink > 0 and status.st_ctime >= since and stat.S_ISREG(status.st_mode):
            tally.add(status, opened=True)
    return tally.usage


def _holds(directory: str, path: str) -> bool:
    return f"{path}/".startswith(f"{directory.rstrip('/')}/")


def _current(pid: int) -> str | None:
    """Return the directory in which a process is; None if it has ended."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None


def device_of(path: str) -> int | None:
    """Return the number of the file system of a path; None if the path does not exist."""
    try:
        return os.stat(path).st_dev
    except OSError:
        return None


def _open_files(pids: Iterable[int]) -> Iterator[os.stat_result]:
    """Yield the regular files that processes have open for writing, as far as we may read that."""
    for pid in pids:
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                paths = [entry.path for entry in entries]
        except OSError:
            continue  # it has ended
        for path in paths:
            with contextlib.suppress(OSError):  # closed meanwhile
                if os.lstat(path).st_mode & stat.S_IWUSR and stat.S_ISREG((status := os.stat(path)).st_mode):
                    yield status
