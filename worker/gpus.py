"""The NVIDIA GPUs of this machine, by NVML. No driver, no GPUs: that is normal."""

from collections.abc import Set
from dataclasses import dataclass
from functools import cache

import pynvml


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU."""

    index: int
    memory_bytes: int
    compute_capability: tuple[int, int]


@cache
def available() -> bool:
    """Whether NVML works here; asked once."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    return True


def gpus() -> list[Gpu]:
    """All GPUs that this process may use, in the order of their indexes."""
    if not available():
        return []
    found: list[Gpu] = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
        found.append(Gpu(index=index, memory_bytes=memory, compute_capability=(int(major), int(minor))))
    return found


def gpu_memory(pids: Set[int]) -> int | None:
    """The GPU memory that these processes hold, in bytes; None where NVML does not tell."""
    if not available():
        return None
    total = 0
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
                if process.pid in pids:
                    total += int(process.usedGpuMemory or 0)
    except pynvml.NVMLError:
        return None
    return total
