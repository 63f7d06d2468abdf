"""The parser of `where`: MongoDB's syntax in JSON, documented fields only, no operator that runs code.

Values are converted to the stored form of the field that they are compared with: ids, dates, sizes, durations.
"""

from collections.abc import Callable, Mapping
from typing import Any

from banyan.api.bodies import read_json
from banyan.api.coercion import to_capability, to_date, to_id
from banyan.api.field_names import unknown_path
from banyan.api.name_conditions import HAS, expression, how_to_say, odd_name, uses_names
from banyan.api.schema import RESOURCES
from banyan.api.schema.kinds import Rules
from banyan.domain.task import STATE_WORDS
from banyan.errors import BadRequest
from banyan.spelling import suggestion, unknown
from banyan.wire import parse_duration, parse_size, unstorable

Filter = dict[str, Any]

MAX_DEPTH = 20
_MAX_REGEX = 1000
_MAX_PATH = 1000
_MAX_STEPS = 100

AUTOMATIC: dict[str, Rules] = {
    "_created": {"type": "datetime", "coerce": "date"},
    "_updated": {"type": "datetime", "coerce": "date"},
    "_etag": {"type": "string"},
}
"""Fields of every document that no schema names."""

_FREE: Rules = {"meta": {"free": True}}
_CONVERSIONS: dict[str, Callable[[object], Any]] = {
    "id": to_id,
    "ids": to_id,
    "date": to_date,
    "capability": to_capability,
    "size": lambda value: parse_size(value) if isinstance(value, str) else value,
    "duration": lambda value: parse_duration(value) if isinstance(value, str) else value,
}
_NUMBER = (int, float)
_VALUES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": _NUMBER,
    "number": _NUMBER,
    "float": _NUMBER,
    "boolean": bool,
}
_KINDS = {
    "string": "a text, which stands in quotes",
    "integer": "a number, which stands without quotes",
    "number": "a number, which stands without quotes",
    "float": "a number, which stands without quotes",
    "boolean": "true or false",
}
_TYPES = frozenset(
    "double string object array binData objectId bool date null regex int timestamp long decimal number".split()
)


def parse_where(resource: str, text: str | None) -> Filter:
    """The filter for MongoDB; BadRequest names a fault: malformed, unknown, hidden or not allowed."""
    if not text:
        return {}
    value = read_json(text, "where")
    if not isinstance(value, dict):
        raise BadRequest('where must be an object such as {"state": "running"}')
    fault = unstorable(value)
    if fault:
        raise BadRequest(f"where: {fault}")
    return _filter(_Scope(resource, RESOURCES[resource]), value, 0)


def field_rules(resource: str, path: str, place: str) -> Rules:
    """The rules of a documented field; BadRequest for any other field; `place` is the part of the query with it."""
    return _Scope(resource, RESOURCES[resource], place).rules(path)


class _Scope:
    """The fields that may be named: a resource's, or those of the items in an `$elemMatch`."""

    def __init__(
        self, resource: str, schema: Mapping[str, Rules] | None, place: str = "where", outermost: bool = True
    ) -> None:
        self.resource = resource
        self.place = place
        self.outermost = outermost
        self._schema = schema

    def inside(self, item: Rules) -> "_Scope":
        """The scope of an item's own fields; a free-form item has any."""
        free = item.get("meta", {}).get("free") or "type" not in item
        return _Scope(self.resource, None if free else item.get("schema", {}), self.place, outermost=False)

    def rules(self, path: str) -> Rules:
        """The rules of the field at a dotted path."""
        if len(path) > _MAX_PATH or path.count(".") >= _MAX_STEPS:
            reason = f"a path has at most {_MAX_PATH} characters and {_MAX_STEPS} names"
            raise self.refusal(f"{path[:50]}...", reason)
        first, *rest = path.split(".")
        if "" in (first, *rest) or any(step.startswith("$") for step in rest):
            reason = f"a path is made of names with single dots between them; other names need {HAS}"
            raise self.refusal(path, reason)
        if self._schema is None:
            return _FREE
        rules = self._schema.get(first) or AUTOMATIC.get(first)
        if rules is None:
            raise self.refusal(path, self._unknown(path))
        if "virtual" in rules.get("meta", {}):
            raise self.refusal(path, f"it is put together when it is read; {rules['meta']['virtual']}")
        for step in rest:
            rules = self._step(rules, step, path)
        return rules

    def _step(self, rules: Rules, step: str, path: str) -> Rules:
        meta = rules.get("meta", {})
        if meta.get("free"):
            return dict(meta["values"]) if "values" in meta else _FREE
        if "items" in meta:
            return meta["items"] if step.isdecimal() else self._step(meta["items"], step, path)
        inner = rules.get("schema", {}).get(step)
        if inner is None:
            raise self.refusal(path, self._unknown(path))
        return dict(inner)

    def _unknown(self, path: str) -> str:
        return f"{self.resource} has no such field{unknown_path(path, self._schema or {})}"

    def refusal(self, path: str, reason: str) -> BadRequest:
        """The error that names the field."""
        return BadRequest(f"{self.place}: {path!r}: {reason}")


def _filter(scope: _Scope, value: Any, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise BadRequest(f"{scope.place}: it is nested deeper than {MAX_DEPTH} levels")
    if not isinstance(value, dict):
        raise BadRequest(f'{scope.place}: a condition must be an object such as {{"state": "running"}}')
    result: Filter = {}
    by_names: list[Filter] = []
    for name, operand in value.items():
        if uses_names(operand):
            by_names.append({"$expr": _expression(scope, name, operand)})
        elif not name.startswith("$"):
            result[name] = _operand(scope, scope.rules(name), operand, name, depth)
        elif name in ("$and", "$or", "$nor"):
            if not isinstance(operand, list) or not operand:
                raise BadRequest(f"{scope.place}: {name} takes a list of conditions")
            result[name] = [_filter(scope, each, depth + 1) for each in operand]
        else:
            raise BadRequest(f"{scope.place}: {name} is not allowed here; there are $and, $or, $nor")
    if not by_names:
        return result
    return {"$and": [result, *by_names]} if result else {"$and": by_names}


def _expression(scope: _Scope, path: str, operand: Mapping[str, Any]) -> Filter:
    """A condition on names that no path can express; MongoDB accepts such an expression only outside `$elemMatch`."""
    if not scope.outermost:
        raise scope.refusal(path, f"{HAS} is not possible within $elemMatch; it looks into lists by itself")
    if not scope.rules(path).get("meta", {}).get("free"):
        raise scope.refusal(path, f"{HAS} asks for names within fields that take any name, such as inputs")
    try:
        return expression(path, operand, _TYPES)
    except ValueError as error:
        raise scope.refusal(path, str(error)) from error


def _operand(scope: _Scope, rules: Rules, value: Any, path: str, depth: int) -> Any:
    if not isinstance(value, dict) or not any(name.startswith("$") for name in value):
        odd = odd_name(value) if isinstance(value, dict) else None
        if odd is not None:  # such a condition would match only equal objects, which is seldom meant
            raise scope.refusal(path, how_to_say(odd))
        return _literal(scope, rules, value, path)
    return _operators(scope, rules, value, path, depth)


def _operators(scope: _Scope, rules: Rules, value: Mapping[str, Any], path: str, depth: int) -> Filter:
    result: Filter = {}
    for name, operand in value.items():
        if name in _COMPARISONS:
            result[name] = _literal(scope, rules, operand, path)
        elif name in _OPERATORS:
            try:
                result[name] = _OPERATORS[name](scope, rules, operand, path, depth + 1)
            except ValueError as error:
                raise scope.refusal(path, f"{name} {error}") from error
        else:
            known = sorted([*_COMPARISONS, *_OPERATORS])
            near = suggestion(name, known)
            reason = f"{name!r} is not an operator that is allowed here{near or ';'} there are {', '.join(known)}, and "
            reason += f"{HAS} for names with any characters"
            raise scope.refusal(path, reason)
    if "$options" in result and "$regex" not in result:
        raise scope.refusal(path, "$options belongs to a $regex")
    return result


def _literal(scope: _Scope, rules: Rules, value: Any, path: str) -> Any:
    if value is None:
        return None
    meta = rules.get("meta", {})
    if isinstance(value, list):
        return [_literal(scope, meta.get("items", rules), each, path) for each in value]
    if isinstance(value, dict):
        return _literal_object(scope, rules, value, path)
    convert = _CONVERSIONS.get(meta.get("items", rules).get("coerce", rules.get("coerce", "")))
    try:
        if convert is not None:
            value = convert(value)
        _check_kind(meta.get("items", rules), value)
    except ValueError as error:
        raise scope.refusal(path, str(error)) from error
    _check_allowed(scope, meta.get("items", rules), value, path)
    return value


def _check_kind(rules: Rules, value: Any) -> None:
    """Raise ValueError for a value of another kind than the field's, which would silently match nothing."""
    kinds = _kinds(rules)
    if not kinds or any(_is_a(kind, value) for kind in kinds):
        return
    raise ValueError(f"the field is {' or '.join(_KINDS[kind] for kind in kinds)}, and {value!r} never is")


def _is_a(kind: str, value: Any) -> bool:
    return isinstance(value, _VALUES[kind]) and isinstance(value, bool) == (kind == "boolean")


def _kinds(rules: Rules) -> list[str]:
    """The kinds of the single values of a field, as far as they are known."""
    kinds = rules.get("type", [])
    known = [kinds] if isinstance(kinds, str) else list(kinds)
    return known if all(kind in _VALUES for kind in known) else []


def _check_allowed(scope: _Scope, rules: Rules, value: Any, path: str) -> None:
    """Refuse a word that the field never has, as in `{"state": "runing"}`, which would match nothing."""
    allowed = rules.get("allowed")
    if allowed is not None and isinstance(value, str) and value not in allowed:
        raise scope.refusal(path, unknown(path.rpartition(".")[2], value, allowed, STATE_WORDS))


def _literal_object(scope: _Scope, rules: Rules, value: dict[str, Any], path: str) -> dict[str, Any]:
    if rules.get("meta", {}).get("free") or "type" not in rules:
        return value
    inner = scope.inside(rules)
    return {name: _literal(inner, inner.rules(name), each, f"{path}.{name}") for name, each in value.items()}


def _in(scope: _Scope, rules: Rules, value: Any, path: str, depth: int) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("takes a list of values")
    return [_literal(scope, rules, each, path) for each in value]


def _not(scope: _Scope, rules: Rules, value: Any, path: str, depth: int) -> Filter:
    if depth > MAX_DEPTH or not isinstance(value, dict) or not value:
        raise ValueError("takes an object of operators")
    return _operators(scope, rules, value, path, depth)


def _elem_match(scope: _Scope, rules: Rules, value: Any, path: str, depth: int) -> Filter:
    if not isinstance(value, dict) or not value:
        raise ValueError("takes a condition on the items of a list")
    item = rules.get("meta", {}).get("items", _FREE)
    if any(name.startswith("$") and name not in ("$and", "$or", "$nor") for name in value):
        return _operators(scope, item, value, path, depth)
    return _filter(scope.inside(item), value, depth)


def _exists(scope: _Scope, rules: Rules, value: Any, path: str, depth: int) -> bool:
    if not isinstance(value, bool):
        raise ValueError("takes true or false")
    return value


def _regex(scope: _Scope, rules: Rules, value: Any, path: str, depth: int) -> str:
    _check_text(rules)
    if not isinstance(value, str) or "\0" in value or len(value) > _MAX_REGEX:
        raise ValueError(f"takes a text of at most {_MAX_REGEX} characters without NUL bytes")
    return value


def _check_text(rules: Rules) -> None:
    """Raise ValueError unless the field may have a text, which a pattern can match."""
    kinds = rules.get("meta", {}).get("items", rules).get("type", "string")
    if "string" not in ([kinds] if isinstance(kinds, str) else kinds):
        raise ValueError(f"looks into texts, and the field is {_KINDS.get(str(kinds), 'none')}")


def _options(scope: _Scope, rules: Rules, value: Any, path: str, depth: int) -> str:
    if not isinstance(value, str) or not set(value) <= set("imsx"):
        raise ValueError("takes letters out of i, m, s, x")
    return value


def _size(scope: _Scope, rules: Rules, value: Any, path: str, depth: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("takes the length of a list")
    return value


def _type(scope: _Scope, rules: Rules, value: Any, path: str, depth: int) -> Any:
    wanted = value if isinstance(value, list) else [value]
    if not wanted or not all(isinstance(each, str) and each in _TYPES for each in wanted):
        raise ValueError(f"takes one of {', '.join(sorted(_TYPES))}, or a list of them")
    return value


def _mod(scope: _Scope, rules: Rules, value: Any, path: str, depth: int) -> list[int]:
    numbers = [each for each in value if isinstance(each, int) and not isinstance(each, bool)] if _pair(value) else []
    if len(numbers) != 2 or numbers[0] == 0:
        raise ValueError("takes a list of a divisor (not 0) and a remainder, both whole")
    return numbers


def _pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


_COMPARISONS = frozenset({"$eq", "$ne", "$gt", "$gte", "$lt", "$lte"})
_OPERATORS: dict[str, Callable[[_Scope, Rules, Any, str, int], Any]] = {
    "$in": _in,
    "$nin": _in,
    "$all": _in,
    "$not": _not,
    "$elemMatch": _elem_match,
    "$exists": _exists,
    "$regex": _regex,
    "$options": _options,
    "$size": _size,
    "$type": _type,
    "$mod": _mod,
}
