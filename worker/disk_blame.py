"""The decision which task took the last room on a disk, and the sentence about it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from banyan.wire import format_size
from worker.disk import Disk, Space, Usage
from worker.events import Grant

PART = 10
"""No task is stopped for less than this part of the floor."""
_KINDS: tuple[Literal["bytes", "files"], ...] = ("bytes", "files")


@dataclass(frozen=True, slots=True)
class Reference:
    """The free room, and the use by tasks, at a moment (as of `time.time`) from which on their growth counts."""

    free: Space
    when: float
    had: Mapping[str, Usage] = field(default_factory=dict)


def below(free: Space, floor: Space) -> bool:
    """Return whether there is too little room, in bytes or in files."""
    return free.bytes < floor.bytes or free.files < floor.files


def taker(disk: Disk, floor: Space, reference: Reference, growth: Mapping[str, Space]) -> str | None:
    """Return the task that took most of the missing room, if tasks took at least half of it; None if others did."""
    for kind in _KINDS:
        free, least = getattr(disk.free, kind), getattr(floor, kind)
        lost = getattr(reference.free, kind) - free
        if free >= least or lost * PART < least or not growth:
            continue
        grown = {execution: max(0, getattr(space, kind)) for execution, space in growth.items()}
        first = max(grown, key=lambda execution: grown[execution])
        if 2 * sum(grown.values()) >= lost and grown[first] > 0:
            return first
    return None


def growth_of(usage: Usage, base: Usage, elsewhere: Space = Space()) -> Space:  # noqa: B008 - it is frozen
    """Return by how much a task has grown."""
    return Space(
        usage.taken.bytes - base.taken.bytes + elsewhere.bytes, usage.taken.files - base.taken.files + elsewhere.files
    )


def filled_words(disk: Disk, floor: Space, grown: Space, place: str, fills: int) -> str:
    """Return the sentence for a task that took the last room; `fills` counts the disks that it had filled before."""
    again = "it filled the disk of its worker again, which counts as its own failure: " if fills else ""
    if disk.free.bytes < floor.bytes:
        took, kept = format_size(max(0, grown.bytes)), format_size(floor.bytes)
    else:
        took, kept = f"{max(0, grown.files)} files", f"room for {floor.files} files"
    return (
        f"{again}the task took {took} of the disk of {place}, on which {kept} must stay free; what it left in its work "
        "directory is removed: let it write less, or ask for scratch space, which finds a worker with enough of it"
    )


def scratch_excess(grant: Grant, usage: Usage) -> str | None:
    """Return the sentence for a task that took more scratch space than it asked for; None if it has not."""
    limit = grant.scratch_limit_bytes
    if limit is None or usage.size_bytes <= limit:
        return None
    used, asked = format_size(usage.size_bytes), format_size(limit)
    return (
        f"the task used {used} of scratch space and had asked for {asked}: let it write less, or ask for more scratch"
    )
