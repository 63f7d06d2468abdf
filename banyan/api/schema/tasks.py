"""The fields of a task."""

from banyan.api.schema.kinds import (
    MAX_LINKS,
    Rules,
    anything,
    capability,
    date,
    described,
    duration,
    flag,
    free,
    identifier,
    identifiers,
    mapping,
    names_to,
    number,
    optional,
    reference,
    shown,
    size,
    text,
    texts,
    virtual,
    whole,
    word,
)
from banyan.domain.continuations import CONDITIONS
from banyan.wire import MAX_MESSAGE

MAX_STDIN = 8 * 2**20

REQUESTED_RESOURCES = mapping(
    cores={"type": "number", "min": 0.001, "max": 1_000_000, "default": 1},
    memory=described(size(1), "bytes, or a text such as '1 GiB'"),
    gpus=whole(maximum=100_000),
    gpu_memory=described(size(), "bytes that each GPU must have"),
    gpu_compute_capability=capability(),
    scratch=described(size(), "bytes of scratch space"),
    custom=names_to("amounts"),
)

DEPENDENCIES: Rules = {
    "type": "list",
    "coerce": "dependencies",
    "maxlength": MAX_LINKS,
    "meta": {
        "items": mapping(task=identifier(), on={"type": "string", "allowed": list(CONDITIONS)}),
        "description": "parents: an id, or {'task': id, 'on': 'success'|'failure'|'any'}",
    },
}

INPUT_REFS: Rules = {
    "type": "dict",
    "coerce": "input_refs",
    "meta": {
        "free": True,
        "values": mapping(task=identifier(required=True), result={"type": "string"}),
        "description": "inputs from parents' results: {name: {'task': id, 'result': key}}; without a key the whole",
    },
}

PROGRESS = mapping(
    fraction={"type": "number", "min": 0, "max": 1, "nullable": True},
    message={"type": "string", "nullable": True, "maxlength": MAX_MESSAGE},
)

PEAK_SOURCE: Rules = described(
    {"type": "string", "allowed": ["process", "samples", "control group", "largest process"]},
    "the kind of peak_memory_bytes: the kernel's exact figure for the one process that it was; the highest sample "
    "of all processes together; the control group's figure, which includes cached files; or, of several processes that "
    "were over before the first sample, the figure of the largest: all together may have held more",
)

DOWNSTREAM: Rules = described(
    {"type": "string", "allowed": ["refuse", "rerun", "keep"], "default": "refuse"},
    "descendants that have begun: 'refuse' the retry, let them 'rerun' after it, or 'keep' them",
)

GIVEN: dict[str, Rules] = {
    "_id": identifier(),
    "name": optional(text(1000)),
    "tags": texts(100),
    "metadata": free(),
    "queue": word(default="default"),
    "priority": whole(-1_000_000_000, default=0),
    "command": described(
        optional({"type": ["string", "list"], "check_with": "command", "meta": {"items": {"type": "string"}}}),
        "a text for /bin/sh -c, or a list that is run as it is",
    ),
    "model": optional(text(200, minlength=1)),
    "inputs": optional(free()),
    "input_refs": optional(INPUT_REFS),
    "env": described(
        names_to("texts", check_with="environment"), "variables of 131,071 bytes each at most, as Linux takes them"
    ),
    "directory": described(
        optional(text(4000, minlength=1, check_with="path")), "run there instead of in the work directory"
    ),
    "stdin": optional({"type": "string", "maxlength": MAX_STDIN}),
    "result_from": described(
        optional({"type": "string", "allowed": ["file", "stdout"]}),
        "where the result of a command comes from: the file that it wrote to $BANYAN_RESULT (if nothing is said), or "
        "else the last line of its standard output, as JSON",
    ),
    "workdir": {"type": "string", "allowed": ["attempt", "task", "none"], "default": "attempt"},
    "timeout": described(optional(duration(0.001)), "seconds, or a text such as '2h'"),
    "max_shutdown_time": described(duration(default=30.0), "seconds between SIGTERM and SIGKILL, for all processes"),
    "estimated_runtime": optional(duration()),
    "not_before": optional(date()),
    "requested_resources": {**REQUESTED_RESOURCES, "default": {"cores": 1}},
    "requires": names_to("texts"),
    "continuations": virtual(identifiers(), "filter /continuations by 'parent'"),
    "dependencies": virtual(DEPENDENCIES, "filter /continuations by 'child'"),
    "max_retry_count": whole(maximum=1_000_000, default=0),
    "retry_delay": duration(default=0.0),
    "hold": flag(default=False),
    "state": {
        "type": "string",
        "allowed": ["inactive", "available", "running", "pending_cancellation", "terminated", "cancelled"],
        "default": "inactive",
    },
}

_SHOWN: dict[str, Rules] = {
    "owner": text(),
    "retry_count": whole(),
    "abandoned_count": whole(),
    "pending_dependency_count": whole(),
    "retry_at": described(date(), "the end of the delay after its last failure"),
    "exit_status": text(),
    "execution": described(reference("execution_history"), "the current attempt"),
    "progress": PROGRESS,
    "result": anything(),
    "result_file": text(),
    "cancelled_by": mapping(user=text(), task=identifier()),
    "sweep": described(reference("sweeps"), "the sweep whose point it is"),
    "index": whole(),
    "peak_memory_bytes": size(),
    "peak_memory_source": PEAK_SOURCE,
    "cpu_seconds": number(),
    "time_available": date(),
    "time_claimed": date(),
    "time_started": date(),
    "time_terminated": date(),
}

TASK: dict[str, Rules] = GIVEN | {name: shown(rules) for name, rules in _SHOWN.items()}

CONTINUATION: dict[str, Rules] = {
    "parent": shown(reference("tasks")),
    "child": shown(reference("tasks")),
    "on": shown({"type": "string", "allowed": list(CONDITIONS)}),
    "settled": shown(flag()),
    "satisfied": shown(flag()),
    "outdated": described(shown(flag()), "its parent was retried since, and the child kept as it was"),
    "parent_deleted": described(
        virtual(shown(flag()), "filter by 'parent', and look which of these are among /tasks"),
        "its parent was deleted; the edge still records how it ended",
    ),
    "owner": shown(text()),
}
