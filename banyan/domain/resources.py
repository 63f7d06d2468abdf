"""The resources that a task needs and a worker has: integers inside, allocate all or nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

CAPABILITY = "gpu_compute_capability"
_CAPABILITY_DIGITS = 4
MILLI = 1000
"""Cores and custom amounts are kept in thousandths, so that fractions add up exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Amounts that a task requests, or that a worker has in total or free.

    `gpu_memory_bytes` and `gpu_compute_capability` describe each single GPU (a worker states its weakest); they are
    properties that must be met, not amounts that are used up.
    """

    millicores: int = 0
    memory_bytes: int = 0
    gpus: int = 0
    gpu_memory_bytes: int = 0
    gpu_compute_capability: tuple[int, int] = (0, 0)
    scratch_bytes: int = 0
    custom: Mapping[str, int] = field(default_factory=dict)
    """Name to thousandths."""

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Resources":
        """Read `requested_resources` or a worker's `resources`, as stored and as sent (sizes in bytes)."""
        return cls(
            millicores=round(document.get("cores", 0) * MILLI),
            memory_bytes=int(document.get("memory", 0)),
            gpus=int(document.get("gpus", 0)),
            gpu_memory_bytes=int(document.get("gpu_memory", 0)),
            gpu_compute_capability=parse_capability(document.get("gpu_compute_capability", "0.0")),
            scratch_bytes=int(document.get("scratch", 0)),
            custom={name: round(amount * MILLI) for name, amount in document.get("custom", {}).items()},
        )

    def to_document(self) -> dict[str, Any]:
        """The same as JSON, naming only what is not zero (and always the cores)."""
        document: dict[str, Any] = {"cores": _plain(self.millicores)}
        amounts = {
            "memory": self.memory_bytes,
            "gpus": self.gpus,
            "gpu_memory": self.gpu_memory_bytes,
            "scratch": self.scratch_bytes,
        }
        document |= {name: amount for name, amount in amounts.items() if amount}
        if self.gpu_compute_capability != (0, 0):
            document["gpu_compute_capability"] = "{}.{}".format(*self.gpu_compute_capability)
        if self.custom:
            document["custom"] = {name: _plain(amount) for name, amount in self.custom.items()}
        return document

    def fits(self, free: "Resources") -> bool:
        """Return whether `free` holds all of this."""
        return not self.missing(free)

    def missing(self, free: "Resources") -> dict[str, tuple[Any, Any]]:
        """The amounts that `free` lacks: name to (wanted, there), in the units of `to_document`; empty if all fit."""
        lacks: dict[str, tuple[Any, Any]] = {}
        if self.millicores > free.millicores:
            lacks["cores"] = (_plain(self.millicores), _plain(free.millicores))
        for name, wanted, there in (
            ("memory", self.memory_bytes, free.memory_bytes),
            ("gpus", self.gpus, free.gpus),
            ("scratch", self.scratch_bytes, free.scratch_bytes),
        ):
            if wanted > there:
                lacks[name] = (wanted, there)
        if self.gpu_memory_bytes > free.gpu_memory_bytes:
            lacks["gpu_memory"] = (self.gpu_memory_bytes, free.gpu_memory_bytes)
        if self.gpu_compute_capability > free.gpu_compute_capability:
            lacks["gpu_compute_capability"] = (
                "{}.{}".format(*self.gpu_compute_capability),
                "{}.{}".format(*free.gpu_compute_capability),
            )
        for name, amount in self.custom.items():
            if amount > free.custom.get(name, 0):
                lacks[f"custom.{name}"] = (_plain(amount), _plain(free.custom.get(name, 0)))
        return lacks

    def minus(self, taken: "Resources") -> "Resources":
        """The rest after `taken` is subtracted; amounts go below zero when a capacity has shrunk."""
        return self._combined(taken, -1)

    def plus(self, given: "Resources") -> "Resources":
        """The sum after `given` is returned."""
        return self._combined(given, 1)

    def _combined(self, other: "Resources", sign: int) -> "Resources":
        names = self.custom.keys() | other.custom.keys()
        return Resources(
            millicores=self.millicores + sign * other.millicores,
            memory_bytes=self.memory_bytes + sign * other.memory_bytes,
            gpus=self.gpus + sign * other.gpus,
            gpu_memory_bytes=self.gpu_memory_bytes,
            gpu_compute_capability=self.gpu_compute_capability,
            scratch_bytes=self.scratch_bytes + sign * other.scratch_bytes,
            custom={name: self.custom.get(name, 0) + sign * other.custom.get(name, 0) for name in sorted(names)},
        )


def rounded_up(amounts: Resources) -> Resources:
    """The largest similar request: amounts rounded up to eight steps an octave, other values unchanged.

    Requests that are rounded to the same amounts share a class (see `matching`), so that a user who gives every task
    its own memory request does not make as many classes as tasks.
    """
    return _each_amount(amounts, _step_up)


def rounded_down(amounts: Resources) -> Resources:
    """The smallest request that `rounded_up` makes equal to this one."""
    return _each_amount(amounts, lambda amount: _least_of_step(_step_up(amount)))


def _each_amount(amounts: Resources, change: Callable[[int], int]) -> Resources:
    return replace(
        amounts,
        millicores=change(amounts.millicores),
        memory_bytes=change(amounts.memory_bytes),
        gpu_memory_bytes=change(amounts.gpu_memory_bytes),
        scratch_bytes=change(amounts.scratch_bytes),
        custom={name: change(amount) for name, amount in amounts.custom.items()},
    )


def _step_up(amount: int) -> int:
    step = 1 << max(0, amount.bit_length() - 4)
    return -(-amount // step) * step


def _least_of_step(rounded: int) -> int:
    step = 1 << max(0, (rounded - 1).bit_length() - 4)
    return rounded - step + 1


@runtime_checkable
class StoredCapability(Protocol):
    """A compute capability as MongoDB stores it: a BSON timestamp, two numbers compared one after the other."""

    @property
    def time(self) -> int:
        """The first number."""

    @property
    def inc(self) -> int:
        """The second number."""


def parse_capability(value: object) -> tuple[int, int]:
    """The two numbers of a CUDA compute capability such as `"8.0"`, or of its stored form; ValueError otherwise."""
    if isinstance(value, str | int | float):
        major, dot, minor = str(value).partition(".")
        if major.isdecimal() and (minor.isdecimal() or not dot) and max(len(major), len(minor)) <= _CAPABILITY_DIGITS:
            return int(major), int(minor or 0)
    elif isinstance(value, StoredCapability):
        return value.time, value.inc
    raise ValueError(f"{value!r} is not a compute capability; write it as '8.0'")


def capability_text(value: object) -> str:
    """A compute capability as text, such as `8.0`."""
    return "{}.{}".format(*parse_capability(value))


def _plain(milli: int) -> float | int:
    whole, rest = divmod(milli, MILLI)
    return whole if not rest else milli / MILLI
