"""The fields of an attempt and of a memory sample."""

from banyan.api.schema.kinds import (
    Rules,
    anything,
    capability,
    date,
    free,
    mapping,
    names_to,
    number,
    optional,
    reference,
    shown,
    size,
    text,
    whole,
)
from banyan.api.schema.tasks import PEAK_SOURCE, PROGRESS

GRANTED_RESOURCES = mapping(
    cores=number(),
    memory=size(),
    gpus=whole(),
    gpu_memory=size(),
    gpu_compute_capability=capability(),
    scratch=size(),
    custom=names_to("amounts"),
    gpu_indexes={"type": "list", "meta": {"items": {"type": "integer"}}},
)

_EXECUTION: dict[str, Rules] = {
    "task": reference("tasks"),
    "attempt": whole(),
    "owner": text(),
    "worker": reference("workers"),
    "host": text(),
    "pid": whole(),
    "granted_resources": GRANTED_RESOURCES,
    "directory": mapping(logs=text(), work=text()),
    "time_claimed": date(),
    "time_started": date(),
    "time_terminated": date(),
    "last_update": date(),
    "exit_status": text(),
    "exit_code": whole(),
    "signal": text(),
    "error": text(),
    "progress": PROGRESS,
    "result": anything(),
    "result_file": text(),
    "peak_memory_bytes": size(),
    "peak_memory_source": PEAK_SOURCE,
    "cpu_seconds": number(),
    "stdout_tail": text(),
    "stderr_tail": text(),
    "stdout_bytes": size(),
    "stderr_bytes": size(),
    "files_bytes": size(),
    "excess": free(),
}

EXECUTION: dict[str, Rules] = {name: shown(rules) for name, rules in _EXECUTION.items()}

MEMORY_SAMPLE: dict[str, Rules] = {
    "task": reference("tasks", required=True),
    "execution": reference("execution_history"),
    "time": date(required=True),
    "resident_memory_bytes": size(required=True),
    "virtual_memory_bytes": optional(size()),
    "cpu_percent": optional(number()),
    "gpu_memory_bytes": optional(size()),
    "owner": shown(text()),
}
