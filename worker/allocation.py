"""Concrete resources: the cores, bytes and GPUs that each task holds. A task gets all that it asks for, or nothing."""

from dataclasses import replace

from banyan.domain.resources import MILLI, Resources
from worker.events import Allocation


def offered(amounts: Resources, capacity: Resources) -> Resources:
    """Return the amounts to report: a worker with less than one core offers one, as long as all of it is free."""
    whole = 0 < capacity.millicores < MILLI and amounts.millicores == capacity.millicores
    return replace(amounts, millicores=MILLI) if whole else amounts


def share(wanted: Resources, capacity: Resources) -> Resources:
    """Return a task's resources: the whole capacity of cores where that is less than the one core that it wants."""
    too_small = 0 < capacity.millicores < wanted.millicores <= MILLI
    return replace(wanted, millicores=capacity.millicores) if too_small else wanted


class Allocator:
    """Parts of a capacity, which may change meanwhile, held by tasks."""

    def __init__(self, capacity: Resources, gpu_indexes: tuple[int, ...] = ()) -> None:
        self.capacity = capacity
        self.free = capacity
        self._free_gpus = list(gpu_indexes)
        self._gpus = tuple(gpu_indexes)

    def take(self, wanted: Resources) -> Allocation | None:
        """Allocate all that is wanted, or return None if it does not fit now."""
        if not wanted.fits(self.free) or wanted.gpus > len(self._free_gpus):
            return None
        self.free = self.free.minus(wanted)
        indexes = tuple(self._free_gpus[: wanted.gpus])
        del self._free_gpus[: wanted.gpus]
        return Allocation(resources=wanted, gpu_indexes=indexes)

    def give(self, allocation: Allocation) -> None:
        """Take an allocation back."""
        self.free = self.free.plus(allocation.resources)
        back = {*self._free_gpus, *allocation.gpu_indexes}
        self._free_gpus = [index for index in self._gpus if index in back]

    def resize(self, capacity: Resources, gpu_indexes: tuple[int, ...]) -> bool:
        """Continue with another capacity; return whether it differs. Allocations stay as they are."""
        if capacity == self.capacity and gpu_indexes == self._gpus:
            return False
        taken = {index for index in self._gpus if index not in self._free_gpus}
        in_use = self.capacity.minus(self.free)
        self.capacity = capacity
        self.free = capacity.minus(in_use)
        self._gpus = gpu_indexes
        self._free_gpus = [index for index in gpu_indexes if index not in taken]
        return True

    def slots(self, wanted: Resources, within: Resources | None = None) -> int:
        """Return how many such tasks fit side by side into the whole capacity, or into a part of it."""
        whole = self.capacity if within is None else within
        if not wanted.fits(whole):
            return 0
        counts = [
            there // needed
            for needed, there in (
                (wanted.millicores, whole.millicores),
                (wanted.memory_bytes, whole.memory_bytes),
                (wanted.gpus, whole.gpus),
                (wanted.scratch_bytes, whole.scratch_bytes),
                *((amount, whole.custom.get(name, 0)) for name, amount in wanted.custom.items()),
            )
            if needed
        ]
        return max(1, min(counts, default=1))
