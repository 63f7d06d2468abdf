"""The capacity of this machine: the kernel's limits, less the amounts that the settings reserve for others."""

import os
from dataclasses import dataclass
from pathlib import Path

from banyan.config import Reserve, WorkerSettings
from banyan.domain.resources import MILLI, Resources
from worker.disk import disk_of, floor_of
from worker.gpus import Gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The amounts that the kernel allows this process now; `scratch_bytes` is the room on the work directory's disk."""

    cores: float
    memory_bytes: int
    scratch_bytes: int
    gpus: tuple[Gpu, ...] = ()


def machine(
    workdir: Path, root: Path = Path("/"), reserve: Reserve | None = None, gpus: tuple[Gpu, ...] = ()
) -> Machine:
    """Measure this machine; `root` is the directory of `/proc` and `/sys`, `reserve` stays free on the disk.

    `gpus` were measured elsewhere.
    """
    groups = control_groups(root)
    cores = float(len(os.sched_getaffinity(os.getpid())))  # of the main thread, whichever thread runs this
    quotas = [quota for quota in map(_cpu_quota, groups) if quota is not None]
    limits = [limit for limit in map(_memory_limit, groups) if limit is not None]
    return Machine(
        cores=min([cores, *quotas]),
        memory_bytes=min([_memory(root), *limits]),
        scratch_bytes=spare_bytes(workdir, reserve or Reserve()),
        gpus=gpus,
    )


def spare_bytes(directory: Path, reserve: Reserve) -> int:
    """Return the room for tasks on the file system of a directory; 0 if it is gone or cannot be read."""
    disk = disk_of(directory)
    return 0 if disk is None else max(0, disk.free.bytes - floor_of(disk, reserve).bytes)


def capacity(there: Machine, settings: WorkerSettings) -> tuple[Resources, tuple[int, ...]]:
    """Return the resources for tasks, and the indexes of the GPUs among them.

    Amounts that the settings name replace the measured ones (`gpus` cannot exceed it); the reserves are subtracted from
    that.
    """
    reserve = settings.reserve
    cores = (settings.cores or there.cores) - reserve.cores
    memory = settings.memory or there.memory_bytes
    if not settings.memory:
        memory -= reserve.memory_bytes + int(there.memory_bytes * reserve.memory_percent / 100)
    count = len(there.gpus) if settings.gpus < 0 else min(settings.gpus, len(there.gpus))
    given = there.gpus[: max(0, count - reserve.gpus)]
    resources = Resources(
        millicores=max(0, round(cores * MILLI)),
        memory_bytes=max(0, memory),
        gpus=len(given),
        gpu_memory_bytes=min((gpu.memory_bytes for gpu in given), default=0),
        gpu_compute_capability=min((gpu.compute_capability for gpu in given), default=(0, 0)),
        scratch_bytes=settings.scratch or _rounded(there.scratch_bytes),
        custom={name: round(amount * MILLI) for name, amount in settings.custom.items()},
    )
    return resources, tuple(gpu.index for gpu in given)


def _rounded(size: int) -> int:
    """Round free disk space, which changes all the time; whole GiB (below ten: 100 MiB) change seldom."""
    step = 2**30 if size > 10 * 2**30 else 100 * 2**20
    return size - size % step


def _memory(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return int(value.split()[0]) * 1024
    return 0


def control_groups(root: Path) -> list[Path]:
    """Return the directories of our control groups and all those above them, version 1 and 2.

    Inside a container the path that `/proc` names may not exist: its own group is then the mount point.
    """
    groups: list[Path] = []
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for mount in _mounts(root, controllers):
            group = mount / path.strip("/")
            while True:
                if group.is_dir():
                    groups.append(group)
                if group == mount:
                    break
                group = group.parent
    return groups


def _mounts(root: Path, controllers: str) -> list[Path]:
    base = root / "sys/fs/cgroup"
    if not controllers:
        return [base, base / "unified"]
    return [base / controllers, *(base / name for name in controllers.split(",") if name != controllers)]


def _cpu_quota(group: Path) -> float | None:
    """Return the cores that a control group allows; None if it sets no limit."""
    words = _words(group / "cpu.max")
    if len(words) == 2 and words[0].isdecimal():
        return int(words[0]) / int(words[1])
    quota, period = _words(group / "cpu.cfs_quota_us"), _words(group / "cpu.cfs_period_us")
    if quota and period and quota[0].isdecimal():
        return int(quota[0]) / int(period[0])
    return None


def _memory_limit(group: Path) -> int | None:
    """Return the bytes that a control group allows; None if it sets no limit."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        words = _words(group / name)
        if words and words[0].isdecimal():
            return int(words[0])
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
