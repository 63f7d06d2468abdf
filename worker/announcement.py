"""The line in which a worker shows at its start what it offers."""

from collections.abc import Mapping, Sequence
from typing import Any

from banyan.wire import format_size
from worker.events import Document

MOST_NAMED = 10
"""The most models that the line names."""


def offer_text(registration: Document) -> str:
    """The resources, queues, labels and models of a registration, in one line."""
    labels = [f"{name}={value}" for name, value in registration["labels"].items()]
    lists = {
        "queues": registration["queues"] or ["all"],
        "labels": labels,
        "models": _some(sorted(str(model["name"]) for model in registration["models"])),
    }
    texts = [_resources(registration["resources"])]
    texts += [f"{kind}: {', '.join(names)}" for kind, names in lists.items() if names]
    return _printable(f"offers {'; '.join(texts)}")


def _resources(amounts: Mapping[str, Any]) -> str:
    cores, gpus = amounts.get("cores", 0), amounts.get("gpus", 0)
    texts = [f"{cores:g} {'core' if cores == 1 else 'cores'}"]
    texts += [f"{format_size(amounts[name])} of {name}" for name in ("memory", "scratch") if amounts.get(name)]
    if gpus:
        each = f" of {format_size(amounts['gpu_memory'])}" if amounts.get("gpu_memory") else ""
        texts.append(f"{gpus} {'GPU' if gpus == 1 else 'GPUs'}{each}")
    texts += [f"{amount:g} {name}" for name, amount in (amounts.get("custom") or {}).items()]
    return ", ".join(texts)


def _some(names: Sequence[str]) -> list[str]:
    more = len(names) - MOST_NAMED
    return [*names[:MOST_NAMED], *([f"{more} more"] if more > 0 else [])]


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)
