"""The fields of a worker, and the bodies of its calls."""

from banyan.api.schema.kinds import (
    MAX_COUNT,
    Rules,
    capability,
    date,
    described,
    flag,
    identifier,
    identifiers,
    mapping,
    names_to,
    number,
    optional,
    shown,
    size,
    text,
    texts,
    whole,
)

RESOURCES = mapping(
    cores=number(),
    memory=size(),
    gpus=whole(maximum=100_000),
    gpu_memory=size(),
    gpu_compute_capability=capability(),
    scratch=size(),
    custom=names_to("amounts"),
)

_FIELDS: dict[str, Rules] = {
    "name": text(200, required=True, minlength=1),
    "host": optional(text(300)),
    "pid": optional(whole(maximum=2**31)),
    "resources": {**RESOURCES, "required": True},
    "labels": names_to("texts"),
    "capabilities": texts(10_000),
    "models": {
        "type": "list",
        "check_with": "models",
        "maxlength": 10_000,
        "meta": {"items": mapping(name=text(required=True), summary=text())},
    },
    "queues": texts(1000),
    "available_until": optional(date()),
    "version": optional(text(100)),
}

REGISTRATION: dict[str, Rules] = _FIELDS | {
    "replaces": optional(identifier()),
    "finished": identifiers(),
    "place": optional(text(100)),
    "files": optional(mapping(root=text(4000, required=True), probe=text(200, required=True))),
}
"""The body of `POST /workers`."""

MAX_TURN = 1e15

CLAIM: dict[str, Rules] = {
    "request": text(100, required=True, minlength=1),
    "resources": {**RESOURCES, "required": True},
    "max_tasks": whole(maximum=10_000, required=True),
    "held": identifiers(),
    "cancelling": identifiers(),
    "unanswered": texts(100),
    "number": optional(whole(maximum=2**53)),
    "draining": flag(),
    "wait": {"type": "number", "min": 0, "max": MAX_COUNT},
    "ahead": optional(
        mapping(
            seconds=number(maximum=3600, required=True),
            most=whole(maximum=10_000),
            classes=names_to("amounts"),
            other=number(),
            resources=RESOURCES,
        )
    ),
    "turn": number(maximum=MAX_TURN),
    "turns": {**names_to("amounts"), "check_with": "names_to_turns"},
    "waiting": {
        "type": "dict",
        "check_with": "waiting",
        "meta": {"free": True, "values": mapping(turn=number(), seconds=number(), tasks={"type": "list"})},
    },
    "forgotten": texts(10_000),
}
"""The body of `POST /workers/<id>/claim`."""

LEAVING: dict[str, Rules] = {"finished": identifiers()}
"""The body of `DELETE /workers/<id>`, which may be left out."""

WORKER: dict[str, Rules] = {name: shown({**rules, "required": False}) for name, rules in _FIELDS.items()} | {
    "state": {"type": "string", "allowed": ["active", "draining", "quarantined", "lost", "gone"]},
    "owner": shown(text()),
    "replaces": shown(identifier()),
    "last_seen": shown(date()),
    "free": described(shown(RESOURCES), "its free resources at its last claim"),
    "time_left": shown(date()),
    "quarantine": shown(mapping(reason=text(), since=date(), until=date())),
}

QUEUE: dict[str, Rules] = {
    "name": text(128, required=True, regex=r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]*"),
    "paused": flag(default=False),
    "max_running": optional(whole()),
    "weight": {"type": "number", "min": 0.001, "max": 1_000_000, "default": 1},
}

USER: dict[str, Rules] = {
    "name": text(64, required=True, regex=r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*"),
    "role": {"type": "string", "allowed": ["provider", "worker", "admin"], "required": True},
    "expires": described(shown(date()), "the end of the token; null if it has none"),
}

_EXPIRY = described(optional({"coerce": "expiry"}), "a duration such as '30d', a date, or null for a token without end")
NEW_USER: dict[str, Rules] = USER | {"expires": _EXPIRY}
"""The body of `POST /users`."""

ROTATION: dict[str, Rules] = {"expires": _EXPIRY}
"""The body of `POST /users/<name>/rotate`, which may be left out."""
