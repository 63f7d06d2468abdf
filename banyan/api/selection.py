"""The parser of `sort`, `projection`, `embedded`, `max_results`, `page`: documents, their order, their fields."""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from werkzeug.datastructures import MultiDict

from banyan.api.bodies import read_json
from banyan.api.query import AUTOMATIC, field_rules
from banyan.api.schema import RESOURCES
from banyan.errors import BadRequest
from banyan.spelling import suggestion

LISTING = ("where", "projection", "sort", "max_results", "page", "embedded")
"""The query parameters of a list of documents."""

ITEM = ("projection", "embedded")
"""The query parameters of one document."""

_MAX_SORT_FIELDS = 10
MAX_PAGE = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The selected fields: stored ones as MongoDB's projection, virtual ones by name, paths to leave out of both."""

    stored: Mapping[str, int]
    virtual: frozenset[str]
    without: tuple[str, ...] = ()


def parse_sort(resource: str, text: str | None) -> list[tuple[str, int]]:
    """Fields and directions of `-priority,name` or `[("priority", -1)]`, with the id last so that pages are stable."""
    if not text:
        return [("_id", 1)]
    pairs = _sort_list(text) if text.lstrip().startswith("[") else _sort_words(text)
    if len({field for field, _ in pairs}) < len(pairs):
        raise BadRequest("sort: a field appears twice")
    if len(pairs) > _MAX_SORT_FIELDS:
        raise BadRequest(f"sort: at most {_MAX_SORT_FIELDS} fields")
    for field, _ in pairs:
        field_rules(resource, field, "sort")
    return pairs if any(field == "_id" for field, _ in pairs) else [*pairs, ("_id", 1)]


def _sort_words(text: str) -> list[tuple[str, int]]:
    words = [word.strip() for word in text.split(",")]
    return [(word[1:], -1) if word.startswith("-") else (word, 1) for word in words]


def _sort_list(text: str) -> list[tuple[str, int]]:
    problem = 'sort: write fields such as -priority,name or a list such as [("priority", -1)]'
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise BadRequest(problem) from error
    pairs = [(pair[0], pair[1]) for pair in value if isinstance(pair, (list, tuple)) and len(pair) == 2]
    wrong = [p for p in pairs if not isinstance(p[0], str) or isinstance(p[1], bool) or p[1] not in (1, -1)]
    if not pairs or wrong or len(pairs) < len(value):
        raise BadRequest(problem)
    return pairs


def parse_projection(resource: str, text: str | None, *, listed: bool = False) -> Selection:
    """The fields of `{"name": 1}` (these, and those of every document) or `{"metadata": 0}` (all but these).

    In a list (`listed`) costly virtual fields are included only if they are named.
    """
    schema = RESOURCES[resource]
    virtual = frozenset(name for name, rules in schema.items() if "virtual" in rules.get("meta", {}))
    everything = dict.fromkeys((name for name in [*schema, *AUTOMATIC] if name not in virtual), 1)
    wanted = _wanted(text)
    for field in wanted:
        if field not in virtual:
            field_rules(resource, field, "projection")
    included = [field for field, value in wanted.items() if value]
    excluded = tuple(field for field, value in wanted.items() if not value and field != "_id")
    if included and excluded:
        raise BadRequest("projection: name either the fields to show (1) or those to leave out (0), not both")
    if not included:
        kept = {name: 1 for name in everything if name not in excluded}
        costly = {name for name in virtual if listed and "costly" in schema[name]["meta"]}
        return Selection(stored=kept, virtual=virtual - costly - set(excluded), without=excluded)
    return Selection(stored=_shortest(included, virtual), virtual=virtual & set(included))


def _wanted(text: str | None) -> dict[str, bool]:
    value = read_json(text, "projection") if text else {}
    if not isinstance(value, dict) or not all(each in (0, 1) for each in value.values() if _is_number(each)):
        raise BadRequest('projection must be an object such as {"name": 1} or {"metadata": 0}')
    if not all(_is_number(each) for each in value.values()):
        raise BadRequest("projection: the value of each field is 1 or 0")
    return {field: bool(each) for field, each in value.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


def _shortest(fields: Iterable[str], virtual: frozenset[str]) -> dict[str, int]:
    """The projection without paths that another one includes already, which MongoDB refuses."""
    named = {field for field in fields if field not in virtual}
    kept = {f for f in named if not any(f.startswith(f"{other}.") for other in named)}
    return dict.fromkeys([*sorted(kept), "_id", *AUTOMATIC], 1)


def leave_out(document: dict[str, Any], paths: Iterable[str]) -> None:
    """Remove nested fields that a projection excludes."""
    for path in paths:
        *steps, last = path.split(".")
        inner: Any = document
        for step in steps:
            inner = inner.get(step) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.pop(last, None)


def check_parameters(resource: str, args: MultiDict[str, str], known: Iterable[str]) -> None:
    """Refuse unknown and repeated parameters, and meaningless numbers and embedded fields."""
    refuse_unknown(args, known)
    for name in ("max_results", "page"):
        text = args.get(name)
        if text is not None and not _is_count(text):
            raise BadRequest(f"{name} is {text!r}; it must be a whole number from 1 to {MAX_PAGE}")
    if "embedded" in args:
        _check_embedded(resource, args["embedded"])


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PAGE)) and 0 < int(text) <= MAX_PAGE


def refuse_unknown(args: MultiDict[str, str], known: Iterable[str]) -> None:
    """Raise BadRequest for a query parameter that does not exist here, or that is given twice."""
    names = list(known)
    for name, values in args.lists():
        if name not in names:
            there = f"there are {', '.join(names)}" if names else "there are none"
            near = suggestion(name, names) or ";"
            raise BadRequest(f"unknown query parameter {name!r}{near} {there}")
        if len(values) > 1:
            raise BadRequest(f"the query parameter {name!r} is given twice")


def _check_embedded(resource: str, text: str) -> None:
    value = read_json(text, "embedded")
    if not isinstance(value, dict) or not all(_is_number(each) and each in (0, 1) for each in value.values()):
        raise BadRequest('embedded must be an object such as {"task": 1}')
    possible = [name for name, rules in RESOURCES[resource].items() if "data_relation" in rules]
    for field in value:
        if field not in possible:
            there = f"there are {', '.join(possible)}" if possible else f"{resource} has none"
            near = suggestion(field, possible) or ";"
            raise BadRequest(f"embedded: {field!r} cannot be embedded{near} {there}")
