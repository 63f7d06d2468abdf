"""A worker's report on an attempt, and the fields of `update_execution_data`."""

from banyan.api.schema.attempts import GRANTED_RESOURCES
from banyan.api.schema.kinds import Rules, anything, date, flag, free, identifier, mapping, number, optional, size, text
from banyan.api.schema.tasks import PEAK_SOURCE, PROGRESS
from banyan.domain.exit_status import PATTERN

MAX_TAIL = 2**20
_OUTPUT: Rules = {"type": "string", "maxlength": MAX_TAIL, "nullable": True}

EXECUTION_DATA: dict[str, Rules] = {
    "time_started": optional(date()),
    "time_terminated": optional(date()),
    "pid": optional({"type": "integer", "min": 0}),
    "granted_resources": optional(GRANTED_RESOURCES),
    "directory": optional(mapping(logs=optional(text(1000)), work=optional(text(1000)))),
    "exit_status": optional(text(1000, regex=PATTERN, coerce="exit_status")),
    "exit_code": optional({"type": "integer"}),
    "signal": optional(text(100)),
    "error": _OUTPUT,
    "progress": optional(PROGRESS),
    "result": anything(nullable=True),
    "result_file": optional(text(4000)),
    "peak_memory_bytes": optional(size()),
    "peak_memory_source": optional(PEAK_SOURCE),
    "cpu_seconds": optional(number()),
    "stdout_tail": _OUTPUT,
    "stderr_tail": _OUTPUT,
    "stdout_bytes": optional(size()),
    "stderr_bytes": optional(size()),
    "files_bytes": optional(size()),
    "excess": optional(free()),
}
"""The fields that may be written into the record of an attempt."""

REPORT: dict[str, Rules] = EXECUTION_DATA | {
    "execution": identifier(required=True),
    "token": text(200, required=True),
    "task": optional(identifier()),
    "given_back": flag(default=False),
}
"""One entry of `reports` in the body of `POST /workers/<id>/report`."""

SAMPLE: dict[str, Rules] = {
    "task": identifier(required=True),
    "execution": identifier(required=True),
    "time": date(required=True),
    "resident_memory_bytes": size(required=True),
    "virtual_memory_bytes": optional(size()),
    "cpu_percent": optional(number()),
    "gpu_memory_bytes": optional(size()),
}
"""One entry of `memory_usage` there."""

CURL_DATA: dict[str, Rules] = EXECUTION_DATA | {
    "token": optional(text(200)),
    "worker": optional(identifier()),
}
"""`update_execution_data`: with the attempt's `token`, or with the `worker` that claims the task."""
