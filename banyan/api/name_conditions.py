"""Conditions on names that no path can express, such as `{"inputs": {"$has": {"c.x": 3}}}`, as MongoDB expressions.

A path has its names between periods, so `inputs.c.x` is `x` in `c` in the inputs. `$has` takes whole names, with any
characters. Its conditions have the usual meaning of a filter, and values in lists can meet them as well.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

Expression = dict[str, Any]
Condition = Callable[[Any], Expression]

HAS = "$has"
MAX_DEPTH = 10
"""The largest depth of `$has` and `$not`."""
_MISSING = "missing"
_NOTHING = [_MISSING, "null", "undefined"]
_MAX_REGEX = 1000


def uses_names(operand: Any) -> bool:
    """Return whether an operand contains a `$has`, directly or in a `$not`."""
    return isinstance(operand, dict) and (HAS in operand or uses_names(operand.get("$not")))


def is_odd(name: str) -> bool:
    """Return whether no path can express a name."""
    return not name or "." in name or name.startswith("$")


def odd_name(value: Any) -> str | None:
    """A name within a value that no path can express."""
    if isinstance(value, list):
        return next((name for each in value if (name := odd_name(each)) is not None), None)
    if not isinstance(value, dict):
        return None
    return next(
        (name if is_odd(name) else inner for name, each in value.items() if is_odd(name) or (inner := odd_name(each))),
        None,
    )


def expression(path: str, operand: Mapping[str, Any], types: frozenset[str]) -> Expression:
    """The MongoDB expression for `{path: operand}`; ValueError names the fault."""
    if any(step.isdecimal() for step in path.split(".")):
        raise ValueError(f"{HAS} takes no items of a list by their numbers; it looks at all of them by itself")
    return _bound(f"${path}", 0, lambda value: _met(value, operand, types, 0))


def _bound(value: Any, depth: int, condition: Condition) -> Expression:
    """A condition on a value, which is written once however often the condition needs it."""
    name = f"value{depth}"
    return {"$let": {"vars": {name: value}, "in": condition(f"$${name}")}}


def _met(value: Any, operand: Any, types: frozenset[str], depth: int) -> Expression:
    """The expression for "a value meets an operand": a plain value, or an object of operators."""
    if depth > MAX_DEPTH:
        raise ValueError(f"{HAS} is nested deeper than {MAX_DEPTH} levels")
    if not isinstance(operand, dict) or not any(name.startswith("$") for name in operand):
        if isinstance(operand, dict) and (odd := odd_name(operand)) is not None:
            raise ValueError(how_to_say(odd))
        return _any(value, _equals(operand), depth)
    unknown = sorted(operand.keys() - _ALLOWED)
    if unknown:
        raise ValueError(
            f"{unknown[0]!r} is not possible beside or below {HAS}; there are {', '.join(sorted(_ALLOWED))}"
        )
    if "$options" in operand and "$regex" not in operand:
        raise ValueError("$options belongs to a $regex")
    return {"$and": [_one(value, name, operand, types, depth) for name in operand if name != "$options"]}


def _one(value: Any, name: str, operand: Mapping[str, Any], types: frozenset[str], depth: int) -> Expression:
    wanted = operand[name]
    if name == HAS:
        return _has(value, wanted, types, depth)
    if name == "$not":
        if not isinstance(wanted, dict) or not wanted:
            raise ValueError("$not takes an object of operators")
        return {"$not": [_met(value, wanted, types, depth + 1)]}
    if name == "$regex":
        return _any(value, _regex(wanted, operand.get("$options", "")), depth)
    if name == "$type":
        return _any(value, _type(wanted, types), depth)
    return _OPERATORS[name](value, wanted, depth)


def _has(value: Any, names: Any, types: frozenset[str], depth: int) -> Expression:
    """The expression for "an object, or one in a list, has all of these names with values that meet the conditions"."""
    if not isinstance(names, dict) or not names:
        raise ValueError(f'{HAS} takes an object of names and conditions, such as {{"c.x": 3}}')

    def met(each: Any) -> Expression:
        return {"$and": [_named(each, name, operand, types, depth) for name, operand in names.items()]}

    return {"$cond": [{"$isArray": [value]}, _in_list(value, met, depth), met(value)]}


def _named(value: Any, name: str, operand: Any, types: frozenset[str], depth: int) -> Expression:
    field = {"$getField": {"field": {"$literal": name}, "input": value}}
    found = {"$cond": [{"$eq": [{"$type": value}, "object"]}, field, "$$REMOVE"]}
    return _bound(found, depth + 1, lambda bound: _met(bound, operand, types, depth + 1))


def _any(value: Any, condition: Condition, depth: int) -> Expression:
    """The expression for "a value meets a condition, or an item of it does if it is a list"."""
    listed = {"$cond": [{"$isArray": [value]}, _in_list(value, condition, depth), False]}
    return {"$or": [condition(value), listed]}


def _in_list(value: Any, condition: Condition, depth: int) -> Expression:
    name = f"item{depth}"
    return {"$anyElementTrue": [{"$map": {"input": value, "as": name, "in": condition(f"$${name}")}}]}


def _equals(wanted: Any) -> Condition:
    if wanted is None:
        return lambda value: {"$in": [{"$type": value}, _NOTHING]}
    return lambda value: {"$eq": [value, {"$literal": wanted}]}


def _in(value: Any, wanted: Any, depth: int) -> Expression:
    if not isinstance(wanted, list):
        raise ValueError("$in and $nin take a list of values")
    return {"$or": [_any(value, _equals(each), depth) for each in wanted] or [False]}


def _all(value: Any, wanted: Any, depth: int) -> Expression:
    if not isinstance(wanted, list) or not wanted:
        raise ValueError("$all takes a list of values")
    return {"$and": [_any(value, _equals(each), depth) for each in wanted]}


def _compares(operator: str) -> Callable[[Any, Any, int], Expression]:
    def compared(value: Any, wanted: Any, depth: int) -> Expression:
        return _any(value, condition(wanted), depth)

    def condition(wanted: Any) -> Condition:
        """The comparison of values of the same kind only, as elsewhere in a filter."""
        how = {"$literal": wanted}
        if isinstance(wanted, (bool, str)):
            kind = "string" if isinstance(wanted, str) else "bool"
            return lambda value: {"$and": [{"$eq": [{"$type": value}, kind]}, {operator: [value, how]}]}
        if not isinstance(wanted, (int, float)) or math.isnan(wanted):
            raise ValueError(f"{operator} takes a number, a text, true or false here")
        least = {"$literal": -math.inf}  # NaN is less than that
        return lambda value: {"$and": [{"$isNumber": value}, {"$gte": [value, least]}, {operator: [value, how]}]}

    return compared


def _exists(value: Any, wanted: Any, depth: int) -> Expression:
    if not isinstance(wanted, bool):
        raise ValueError("$exists takes true or false")
    return {"$ne" if wanted else "$eq": [{"$type": value}, _MISSING]}


def _size(value: Any, wanted: Any, depth: int) -> Expression:
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 0:
        raise ValueError("$size takes the length of a list")
    return {"$cond": [{"$isArray": [value]}, {"$eq": [{"$size": value}, wanted]}, False]}


def _regex(wanted: Any, options: Any) -> Condition:
    if not isinstance(wanted, str) or "\0" in wanted or len(wanted) > _MAX_REGEX:
        raise ValueError(f"$regex takes a text of at most {_MAX_REGEX} characters without NUL bytes")
    if not isinstance(options, str) or not set(options) <= set("imsx"):
        raise ValueError("$options takes letters out of i, m, s, x")

    def found(value: Any) -> Expression:
        match = {"$regexMatch": {"input": value, "regex": {"$literal": wanted}, "options": options}}
        return {"$cond": [{"$eq": [{"$type": value}, "string"]}, match, False]}

    return found


def _type(wanted: Any, types: frozenset[str]) -> Condition:
    kinds = wanted if isinstance(wanted, list) else [wanted]
    if not kinds or not all(isinstance(kind, str) and kind in types for kind in kinds):
        raise ValueError(f"$type takes one of {', '.join(sorted(types))}, or a list of them")
    numbers: list[Any] = ["int", "long", "double", "decimal"] if "number" in kinds else []
    return lambda value: {"$in": [{"$type": value}, [*kinds, *numbers]]}


def how_to_say(name: str) -> str:
    """The advice for a name that no path can express."""
    return (
        f"the name {name[:100]!r} is no part of a path; ask for whole names with "
        f'{{"{HAS}": {{"c.x": 3}}}}, which lets there be others, or for the whole object with {{"$eq": {{..}}}}'
    )


_OPERATORS: dict[str, Callable[[Any, Any, int], Expression]] = {
    "$eq": lambda value, wanted, depth: _any(value, _equals(wanted), depth),
    "$ne": lambda value, wanted, depth: {"$not": [_any(value, _equals(wanted), depth)]},
    "$in": _in,
    "$nin": lambda value, wanted, depth: {"$not": [_in(value, wanted, depth)]},
    "$all": _all,
    **{operator: _compares(operator) for operator in ("$gt", "$gte", "$lt", "$lte")},
    "$exists": _exists,
    "$size": _size,
}
_ALLOWED = frozenset({*_OPERATORS, HAS, "$not", "$regex", "$options", "$type"})
