"""Room on the disk of `--data`: the needs of MongoDB, and the sentences for a lack of it.

A mongod that cannot write aborts, so it is stopped in order while it still can. A worker keeps more room than this
(`reserve.disk_bytes`) and needs a moment to stop a task that takes it; a reserve file gives MongoDB the room for an
orderly end when a task or another program was faster.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from banyan.errors import SetupError
from banyan.wire import format_size
from worker.disk import Disk, Space, disk_of

_FLOOR_BYTES, _FLOOR_FILES, _FLOOR_PART = 128 << 20, 500, 20
_JOURNAL_BYTES = 320 << 20
"""The room that a new MongoDB takes at once: its journal is three files of 100 MiB."""
_GRACE_SECONDS = 3.0
"""The time that others have to make room."""
_RECENT_SECONDS = 10.0


class Room:
    """The disk of a data directory; one for each `banyan up`."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._reserve = data / "room"
        self._short_since: float | None = None
        self._short_at: float | None = None

    def require(self, *, new: bool) -> None:
        """Raise SetupError, with a sentence, if there is too little for a start; a `new` MongoDB needs more."""
        disk = self._disk()
        if disk is None:
            return
        floor = _floor(disk)
        needed = Space(floor.bytes + (_JOURNAL_BYTES if new else 0), floor.files)
        if _below(disk.free, needed):
            free, least = _amount(disk.free, needed), _least(disk, needed)
            raise SetupError(
                f"the disk of {self._data} has {free}, and MongoDB needs {least} to start: remove files there "
                f"(what tasks wrote is in {self._data / 'work'}), or name a directory on another disk with --data"
            )

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Turn an error of the block into a SetupError that names the disk, if that is what lacks room."""
        try:
            yield
        except (SetupError, OSError):
            self.require(new=False)
            raise

    def keep_reserve(self) -> None:
        """Make the reserve file, where there is ample room for it."""
        disk = self._disk()
        if disk is None or os.path.exists(self._reserve):
            return
        floor = _floor(disk)
        if disk.free.bytes < 2 * floor.bytes:
            return
        try:
            descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, floor.bytes // 4)
            finally:
                os.close(descriptor)
        except OSError:  # the reserve file is optional
            self.give_reserve()

    def give_reserve(self) -> None:
        """Remove the reserve file, once no program fills the disk any more."""
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def shortage(self, now: float) -> str | None:
        """Return the sentence for MongoDB's stop when it is due for lack of room; None while it is not."""
        disk = self._disk()
        floor = _floor(disk) if disk is not None else Space()
        if disk is None or not _below(disk.free, floor):
            self._short_since = None
            return None
        self._short_at = now
        if self._short_since is None:
            self._short_since = now
        return self.complaint() if now - self._short_since >= _GRACE_SECONDS else None

    def was_short(self, now: float) -> bool:
        """Return whether there was too little a moment ago, so that it may have ended a process."""
        self.shortage(now)
        return self._short_at is not None and now - self._short_at < _RECENT_SECONDS

    def complaint(self) -> str:
        """Return the sentence for a MongoDB that is stopped for lack of room."""
        disk = self._disk()
        if disk is None:
            return f"the disk of {self._data} cannot be looked at: MongoDB waits until it can"
        free, least = _amount(disk.free, _floor(disk)), _least(disk, _twice(_floor(disk)))
        return (
            f"the disk of {self._data} is full ({free}): MongoDB waits, and goes on once there is room again "
            f"({least}); remove files there (what tasks wrote is in {self._data / 'work'})"
        )

    def ample(self) -> bool:
        """Return whether there is enough for MongoDB to go on."""
        disk = self._disk()
        return disk is not None and not _below(disk.free, _twice(_floor(disk)))

    def _disk(self) -> Disk | None:
        place = self._data
        while not os.path.exists(place) and place != place.parent:
            place = place.parent
        return disk_of(place)


def _floor(disk: Disk) -> Space:
    return Space(min(_FLOOR_BYTES, disk.total.bytes // _FLOOR_PART), min(_FLOOR_FILES, disk.total.files // _FLOOR_PART))


def _twice(space: Space) -> Space:
    return Space(2 * space.bytes, 2 * space.files)


def _below(free: Space, least: Space) -> bool:
    return free.bytes < least.bytes or free.files < least.files


def _amount(free: Space, least: Space) -> str:
    return f"{format_size(free.bytes)} free" if free.bytes < least.bytes else f"room for {free.files} more files"


def _least(disk: Disk, least: Space) -> str:
    return format_size(least.bytes) if disk.free.bytes < least.bytes else f"room for {least.files} files"
