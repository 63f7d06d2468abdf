"""The parser of the body of `POST /sweeps`: its points, and the fields that their tasks share, all of it checked."""

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from banyan.api.context import context
from banyan.api.placeholders import check_placeholders
from banyan.api.validation import checker
from banyan.domain.programs import bytes_of_environment, command_faults, total_faults
from banyan.domain.sampling import MAX_SEED, Range, sample
from banyan.domain.sweeps import Command, Point, Template, grid_points, grid_size, names_of
from banyan.errors import Invalid, TooLarge
from banyan.queue.sweep import Plan

Document = dict[str, Any]

_SOURCES = ("grid", "points", "samples")
_OWN = frozenset({*_SOURCES, "barrier"})
_NOT_KEPT = frozenset({"points", "barrier", "state", "dependencies", "continuations"})
"""Fields of the body that a sweep's document lacks, or that it has in another form."""
_INHERITED = ("queue", "priority")
"""The fields that a barrier takes from its sweep unless it has its own."""
_LINKS = ("dependencies", "continuations", "input_refs")
MAX_EDGES = 500_000
"""The most parents and children of all tasks of a sweep together, without the barrier."""
_LEAST_BYTES = 7
"""The smallest size of any value in a stored document besides its name."""


def plan_of(body: Document) -> Plan:
    """The sweep that a validated body describes. Raises `Invalid` with all faults, `TooLarge` for too many points."""
    _check(body)
    kept = {name: value for name, value in body.items() if name not in _NOT_KEPT}
    if "samples" in kept:
        seed = kept["samples"].get("seed")
        kept["samples"] = {**kept["samples"], "seed": secrets.randbelow(MAX_SEED) if seed is None else seed}
    inputs: Point = body.get("inputs") or {}
    points = _points({**body, **kept}, inputs)
    _check_edges(len(points), sum(len(body.get(name) or ()) for name in _LINKS))
    names = names_of([*points, inputs])
    if taken := sorted(set(names) & (body.get("input_refs") or {}).keys()):
        raise Invalid({"input_refs": f"{taken[0]!r} is given by the points or in 'inputs' too; give it once"})
    template: Command | None = body.get("command")
    shared, barrier = _validated(body, template, {**inputs, **points[0]}, names)
    return Plan(
        kept=kept,
        shared=shared,
        template=template,
        inputs=inputs,
        points=points,
        names=names,
        barrier=barrier,
        check_command=_command_check(body.get("env")),
    )


def _command_check(environment: dict[str, str] | None) -> Callable[[Any], Iterator[str]]:
    """The function that yields the faults of a point's command, alone and together with the environment."""
    environment_bytes = bytes_of_environment(environment)

    def faults(command: Any) -> Iterator[str]:
        found = list(command_faults(command))
        yield from found or total_faults(command, environment_bytes).values()

    return faults


def _check(body: Document) -> None:
    issues: dict[str, object] = {}
    if (body.get("command") is None) == (body.get("model") is None):
        issues["command"] = "a sweep has either a 'command' or a 'model'"
    given = [name for name in _SOURCES if name in body]
    if len(given) != 1:
        there = f"not {' and '.join(repr(name) for name in given)}" if given else "and there is none of them"
        issues[given[0] if given else "grid"] = f"a sweep has one of 'grid', 'points' and 'samples', {there}"
    if issues:
        raise Invalid(issues)


def _points(body: Document, inputs: Point) -> Sequence[Point]:
    if "points" in body:
        _check_count(len(body["points"]))
        return list(body["points"])
    if "grid" in body:
        _check_count(grid_size(body["grid"]), [*inputs, *body["grid"]])
        return list(grid_points(body["grid"]))
    samples = body["samples"]
    _check_count(samples["count"], [*inputs, *samples["inputs"]])
    ranges = {name: Range.of(each) for name, each in samples["inputs"].items()}
    return sample(samples["method"], samples["count"], samples["seed"], ranges)


def _check_count(count: int, names: Collection[str] = ()) -> None:
    """Refuse points that would be too many or too large, before they are made."""
    limits = context().settings.limits
    if count > limits.max_sweep_points:
        raise TooLarge(f"the sweep has {count} points, at most {limits.max_sweep_points} (limits.max_sweep_points)")
    least = count * sum(len(name) + _LEAST_BYTES for name in names)
    if least > limits.max_submission_bytes:
        limit = f"{limits.max_submission_bytes} (limits.max_submission_bytes)"
        raise TooLarge(f"the inputs of {count} points have {least} bytes or more, at most {limit}")


def _check_edges(count: int, links: int) -> None:
    if count * links > MAX_EDGES:
        text = f"{count} points with {links} parents or children each have {count * links} edges, at most {MAX_EDGES}"
        raise TooLarge(f"{text}; put one group between the points and the others")


def _validated(
    body: Document, template: Command | None, first: Point, names: Collection[str]
) -> tuple[Document, Document | None]:
    """The fields that all tasks share, as they are in the first of them, and the barrier, both checked as tasks."""
    task = {name: value for name, value in body.items() if name not in _OWN}
    if template is not None:
        task.pop("inputs", None)
        try:
            parsed = Template(template, names)
            if issues := check_placeholders(body, parsed, names):
                raise Invalid(issues)
            task["command"] = parsed.fill(first, 0)
        except ValueError as error:
            raise Invalid({"points": {"0": {"command": str(error)}}}) from error
    barrier = body.get("barrier")
    wanted = [task]
    if barrier is not None:
        title = body.get("name") or body.get("model")
        name = f"{title}[barrier]" if title else "barrier"
        inherited = {field: body[field] for field in _INHERITED}
        wanted.append({"name": name, **inherited, "state": "available", **barrier})
    documents, (faults, *others) = checker("tasks").new(wanted)
    issues = {**faults, "barrier": others[0]} if any(others) else faults
    if issues:
        raise Invalid(issues)
    return documents[0], documents[1] if barrier is not None else None
