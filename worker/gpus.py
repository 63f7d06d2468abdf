"""The NVIDIA GPUs of this machine, by NVML; none without a driver, which is normal. Silent GPUs are left out."""

import ctypes
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pynvml

from worker.actions import Note
from worker.background import Crew
from worker.events import Event

LOOK_SECONDS = 5.0
"""The time that the driver has to list the GPUs."""
SAMPLE_SECONDS = 1.0
"""The time that it has to report the memory of processes."""
FAULTS = (pynvml.NVMLError, OSError, ValueError, TypeError, AttributeError, ctypes.ArgumentError)
"""The errors of NVML, and of versions of it that lack a function."""

_NO_DRIVER = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)


class NoSuchGpu(Exception):
    """CUDA knows no GPU by this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU, or a part of one (MIG). `name` is its name in `CUDA_VISIBLE_DEVICES`, `index` is ours alone."""

    index: int
    memory_bytes: int
    compute_capability: tuple[int, int]
    name: str = ""


@dataclass(slots=True)
class Survey:
    """The GPUs that answer, and the faults of the others, by name."""

    gpus: list[Gpu] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)


class Gpus:
    """The GPUs that this worker may allocate; a driver that hangs blocks no caller.

    `visible` is the worker's own CUDA_VISIBLE_DEVICES (None: not set), `note` takes lines for the log.
    """

    def __init__(self, visible: str | None, note: Callable[[Note], None], tell: Callable[[Event], None]) -> None:
        self._visible = visible
        self._note = note
        self._driver = Crew("gpus", tell, most=1)
        self._hangs = threading.Event()
        """Set from a call without an answer in time until that call returns."""
        self._faults: Mapping[str, str] = {}
        self._names: dict[int, str] = {}

    def look(self) -> tuple[Gpu, ...]:
        """Return all of them, in the order of CUDA_VISIBLE_DEVICES, else of their indexes."""
        found = self._ask(partial(survey, self._visible), LOOK_SECONDS)
        if found is None:
            found = Survey(faults={"the GPUs": f"the driver does not answer within {LOOK_SECONDS:g} s"})
        self._say(found.faults)
        self._names |= {gpu.index: gpu.name for gpu in found.gpus}
        return tuple(found.gpus)

    def name(self, index: int) -> str:
        """Return the GPU's name for CUDA_VISIBLE_DEVICES."""
        return self._names.get(index, str(index))

    def memory(self, pids: Set[int]) -> int | None:
        """Return the GPU memory that these processes hold, in bytes; None where the driver does not report it."""
        held: int | None = self._ask(partial(gpu_memory, pids), SAMPLE_SECONDS)
        return held

    def _ask(self, question: Callable[[], Any], seconds: float) -> Any:
        if self._hangs.is_set():
            return None
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._driver.do(lambda: answers.put(question()))
        try:
            return answers.get(timeout=seconds)
        except queue.Empty:
            self._hangs.set()
            self._driver.do(self._hangs.clear)
            return None

    def _say(self, faults: Mapping[str, str]) -> None:
        for which, fault in faults.items():
            if self._faults.get(which) != fault:
                self._note(Note(f"{which} cannot be used: {fault}", warning=True))
        for which in self._faults.keys() - faults.keys():
            self._note(Note(f"{which} can be used again"))
        self._faults = dict(faults)


def survey(visible: str | None) -> Survey:
    """Ask NVML for the GPUs that `visible` names, a value of CUDA_VISIBLE_DEVICES; None: for all."""
    found = Survey()
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except FAULTS as error:
        if getattr(error, "value", None) not in _NO_DRIVER:
            found.faults["the GPUs"] = str(error)
        return found
    names = [str(index) for index in range(count)] if visible is None else visible.split(",")
    for place, name in enumerate(map(str.strip, names)):
        if not name:
            break
        which = f"GPU {name}"
        try:
            index, handle = _device(name, count, place)
            memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
            gpu = Gpu(index=index, memory_bytes=memory, compute_capability=_capability(handle), name=name)
        except NoSuchGpu as error:  # CUDA, too, ignores all that follows such a name
            if name != "-1":
                found.faults[which] = f"{error}; neither can what follows it in CUDA_VISIBLE_DEVICES"
            break
        except FAULTS as error:
            found.faults[which] = str(error)
        else:
            if all(each.index != gpu.index for each in found.gpus):
                found.gpus.append(gpu)
    return found


def gpu_memory(pids: Set[int]) -> int | None:
    """Return the GPU memory that these processes hold, in bytes; None where NVML does not report it."""
    try:
        handles = [*_handles(pynvml.nvmlDeviceGetCount())]
    except FAULTS:
        return None
    told = [held for _, handle in handles if (held := _held(handle, pids)) is not None]
    return sum(told) if told else None


def _held(handle: Any, pids: Set[int]) -> int | None:
    try:
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        return sum(int(each.usedGpuMemory or 0) for each in processes if each.pid in pids)
    except FAULTS:
        return None


def _handles(count: int) -> Iterator[tuple[int, Any]]:
    """Yield the GPUs by index, without lost ones."""
    for index in range(count):
        try:
            yield index, pynvml.nvmlDeviceGetHandleByIndex(index)
        except FAULTS:
            continue


def _device(name: str, count: int, place: int) -> tuple[int, Any]:
    """Return the index and the handle of the GPU with this CUDA name; NoSuchGpu if none can have it, or one of FAULTS.

    A part of a GPU (MIG) gets an index beyond those of the GPUs: `place` is its place in the list.
    """
    if name.isdecimal():
        if int(name) >= count:
            raise NoSuchGpu(f"there are {count} GPUs")
        return int(name), pynvml.nvmlDeviceGetHandleByIndex(int(name))
    if name.upper().startswith("MIG-"):
        return count + place, _part(name, count)
    if not name.upper().startswith("GPU-"):
        raise NoSuchGpu("it is neither a number nor the UUID of a GPU")
    alike = [(index, handle) for index, handle in _handles(count) if _has_name(handle, name)]
    if len(alike) != 1:
        raise ValueError(f"{len(alike) or 'no'} GPUs that answer have such a UUID")
    return alike[0]


def _part(name: str, count: int) -> Any:
    """Return the handle of a part of a GPU; ValueError if there is none."""
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(name)
    except FAULTS:
        for _, handle in _handles(count):
            for part in _parts(handle):
                if _has_name(part, name):
                    return part
    raise ValueError("no part of a GPU (MIG) has such a UUID")


def _parts(handle: Any) -> Iterator[Any]:
    try:
        most = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except FAULTS:
        return
    for number in range(most):
        try:
            yield pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except FAULTS:
            continue


def _has_name(handle: Any, name: str) -> bool:
    """Return whether its UUID begins with this name: CUDA accepts any unique beginning."""
    try:
        uuid = pynvml.nvmlDeviceGetUUID(handle)
    except FAULTS:
        return False
    text = uuid.decode(errors="replace") if isinstance(uuid, bytes) else str(uuid)
    return text.upper().startswith(name.upper())


def _capability(handle: Any) -> tuple[int, int]:
    """Return the compute capability, for a part of a GPU that of the GPU where it has none of its own."""
    try:
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    except FAULTS:
        whole = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(whole)
    return int(major), int(minor)
