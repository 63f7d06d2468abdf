"""The fields of a sweep: as it is posted, and as it is read."""

from banyan.api.schema.kinds import (
    Rules,
    costly,
    described,
    free,
    mapping,
    number,
    optional,
    reference,
    shown,
    text,
    virtual,
    whole,
)
from banyan.api.schema.tasks import GIVEN
from banyan.domain.sampling import MAX_SEED, METHODS

_BEGINNINGS: Rules = {"type": "string", "allowed": ["inactive", "available"], "default": "available"}

_SHARED: dict[str, Rules] = {name: rules for name, rules in GIVEN.items() if name != "_id"} | {
    "name": described(optional(text(900)), "the tasks are called NAME[0], NAME[1] and so on"),
    "command": described(
        GIVEN["command"], "a template: {name} stands for the value of an input, {index} for the number"
    ),
    "inputs": described(optional(free()), "inputs that all points have, below their own"),
    "state": described(_BEGINNINGS, "the first state of the tasks"),
}
"""The fields that all tasks of a sweep share, by the rules for tasks."""

_GRID = described(
    optional({"type": "dict", "check_with": "grid", "meta": {"free": True}}),
    "{name: [value, ..]}: every combination, the last name varies fastest",
)
_POINTS = described(
    optional({"type": "list", "check_with": "points", "meta": {"items": {"type": "dict", "meta": {"free": True}}}}),
    "[{name: value}, ..]",
)
_SAMPLES = mapping(
    method={"type": "string", "allowed": list(METHODS), "required": True},
    count=whole(1, required=True),
    seed=described(optional(whole(maximum=MAX_SEED)), "chosen and kept if it is not given"),
    inputs=described(
        {"type": "dict", "check_with": "ranges", "meta": {"free": True}, "required": True},
        "{name: [low, high]} or {name: {'low': .., 'high': .., 'scale': 'linear' or 'log'}}",
    ),
)

NEW_SWEEP: dict[str, Rules] = _SHARED | {
    "grid": _GRID,
    "points": _POINTS,
    "samples": optional(_SAMPLES),
    "barrier": described(optional(free()), "fields of one more task that starts when all points have ended"),
}
"""The body of `POST /sweeps`."""

_PROGRESS = mapping(
    count=whole(),
    states=free(),
    assigned=whole(),
    succeeded=whole(),
    failed=whole(),
    cancelled=whole(),
    deleted=whole(),
    fraction=number(maximum=1),
    barrier=text(),
)

_READ_ELSEWHERE: dict[str, Rules] = {
    "points": virtual(_POINTS, "filter /tasks by 'sweep' and 'inputs'"),
    "state": virtual(_BEGINNINGS, "filter /tasks by 'sweep' and 'state'"),
    "progress": costly(virtual(_PROGRESS, "filter /tasks by 'sweep' and 'state'")),
}
_KEPT: dict[str, Rules] = _SHARED | {
    "grid": _GRID,
    "samples": _SAMPLES,
    "owner": text(),
    "count": described(whole(), "the number of points that it was made with"),
    "barrier": described(reference("tasks"), "the task that starts when all points have ended"),
    "input_names": {"type": "list", "meta": {"items": {"type": "string"}}},
}

SWEEP: dict[str, Rules] = {
    name: shown({rule: argument for rule, argument in rules.items() if rule not in ("default", "required")})
    for name, rules in (_KEPT | _READ_ELSEWHERE).items()
    if name not in ("dependencies", "continuations")
}
