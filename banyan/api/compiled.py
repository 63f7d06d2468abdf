"""The fast check by a schema: its rules as plain functions, for documents without a fault, as nearly all are.

A compiled schema returns the document that Cerberus would store, or None for "not sure"; then Cerberus decides and
explains. Unknown rules, types and values make it not sure: it may be slow by mistake, but never wrong.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from operator import contains, ge, le
from typing import Any, NoReturn

from bson import ObjectId
from bson.timestamp import Timestamp

from banyan.api.checks import CHECKS
from banyan.api.coercion import COERCIONS
from banyan.wire import unstorable

Document = dict[str, Any]

_Take = Callable[[Any], Any]
"""A function from the received value to the stored one; raises `_Unsure`."""


class _Unsure(Exception):
    """Cerberus must check this value."""


class Compiled:
    """One schema, checked by Cerberus, as functions; safe to be shared by threads."""

    def __init__(self, schema: Mapping[str, Any], inner_defaults: Mapping[str, Document], droppable: set[str]) -> None:
        """Compile rules without defaults, the defaults inside fields, and the fields whose null means "not given"."""
        self._fields = {name: _field(rules, inner_defaults.get(name, {}), 1) for name, rules in schema.items()}
        self._awaited = _awaited(schema)
        self._droppable = droppable

    def new(self, document: object) -> Document | None:
        """A new document as it is to be stored, without defaults; None for "not sure"."""
        if type(document) is not dict:
            return None
        given = {n: value for n, value in document.items() if value is not None or n not in self._droppable}
        return self.changes(given) if self._awaited <= given.keys() else None

    def changes(self, document: object) -> Document | None:
        """The fields of an update as they are to be stored; None for "not sure"."""
        if type(document) is not dict:
            return None
        try:
            return _each(self._fields, document)
        except _Unsure:
            return None


def _each(fields: Mapping[str, _Take], document: Document) -> Document:
    return {name: fields.get(name, _refuse)(value) for name, value in document.items()}


def _refuse(_value: object) -> NoReturn:
    raise _Unsure


def _field(rules: Mapping[str, Any], defaults: Document, depth: int) -> _Take:
    """The function of one field, whose value is nested `depth` deep."""
    if not _understood(rules):
        return _refuse
    classes = frozenset[type]().union(*(_CLASSES[kind] for kind in _kinds(rules)))
    tests = [_TESTS[rule](argument) for rule, argument in rules.items() if rule in _TESTS]
    convert = _conversion(rules, defaults, depth)
    in_one_piece = "schema" not in rules  # otherwise its fields are checked one by one
    null_is_right = rules.get("nullable") and ("check_with" not in rules or _faultless(rules["check_with"])(None))

    def take(value: Any) -> Any:
        if value is None and null_is_right:
            return None
        if value is None or (in_one_piece and unstorable(value, depth) is not None):
            raise _Unsure
        if convert is not None:
            value = convert(value)
        if classes and type(value) not in classes:
            raise _Unsure
        for test in tests:
            if not test(value):
                raise _Unsure
        return value

    return take


def _conversion(rules: Mapping[str, Any], defaults: Document, depth: int) -> _Take | None:
    if "coerce" in rules:
        return partial(_coerce, COERCIONS[rules["coerce"]])
    if "schema" in rules:
        fields = {name: _field(inner, {}, depth + 1) for name, inner in rules["schema"].items()}
        return partial(_object, fields, _awaited(rules["schema"]), defaults)
    return None


def _coerce(coerce: _Take, value: object) -> Any:
    try:
        return coerce(value)
    except Exception as error:
        raise _Unsure from error


def _object(fields: Mapping[str, _Take], awaited: frozenset[str], defaults: Document, value: object) -> Document:
    if type(value) is not dict:
        raise _Unsure
    given = {**defaults, **value} if defaults else value
    if not awaited <= given.keys():
        raise _Unsure
    return _each(fields, given)


def _awaited(schema: Mapping[str, Any]) -> frozenset[str]:
    """The fields that must not be absent: Cerberus would report or fill them."""
    filled = {"default", "default_setter"}
    return frozenset(name for name, rules in schema.items() if rules.get("required") or filled & rules.keys())


def _kinds(rules: Mapping[str, Any]) -> list[str]:
    kinds = rules.get("type", [])
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _understood(rules: Mapping[str, Any]) -> bool:
    """Return whether every rule means the same here, for values of these types, as in Cerberus."""
    kinds = _kinds(rules)
    if rules.get("readonly") or not all(kind in _RULES for kind in kinds):
        return False
    known = frozenset.intersection(*(_RULES[kind] for kind in kinds)) if kinds else frozenset()
    named = {"coerce": COERCIONS, "check_with": CHECKS}
    return rules.keys() <= _ALWAYS | known and all(
        isinstance(rules[rule], str) and rules[rule] in table for rule, table in named.items() if rule in rules
    )


def _matches(pattern: str) -> _Take:
    return re.compile(pattern if pattern.endswith("$") else pattern + "$").match


def _faultless(name: str) -> _Take:
    check = CHECKS[name]
    return lambda value: not any(check(value))


_TESTS: dict[str, Callable[[Any], _Take]] = {
    "min": lambda bound: partial(le, bound),
    "max": lambda bound: partial(ge, bound),
    "minlength": lambda length: lambda value: length <= len(value),
    "maxlength": lambda length: lambda value: len(value) <= length,
    "allowed": lambda allowed: partial(contains, allowed),
    "regex": _matches,
    "check_with": _faultless,
}
"""The function from the argument of each rule to a test; NaN is within no bounds."""

_ALWAYS = frozenset({"type", "meta", "nullable", "readonly", "required", "data_relation"})
_LENGTHS = frozenset({"minlength", "maxlength"})
_BOUNDS = frozenset({"min", "max", "coerce"})
_RULES: dict[str, frozenset[str]] = {
    "string": _LENGTHS | {"regex", "allowed", "check_with", "coerce"},
    "integer": _BOUNDS,
    "number": _BOUNDS,
    "float": _BOUNDS,
    "boolean": frozenset(),
    "list": _LENGTHS | {"check_with", "coerce"},
    "dict": frozenset({"schema", "check_with", "coerce"}),
    "objectid": frozenset({"coerce"}),
    "datetime": frozenset({"coerce"}),
    "capability": frozenset({"coerce"}),
}
"""The supported rules for each type, besides those for all."""

_CLASSES: dict[str, frozenset[type]] = {
    "string": frozenset({str}),
    "integer": frozenset({int}),
    "number": frozenset({int, float}),
    "float": frozenset({int, float}),
    "boolean": frozenset({bool}),
    "list": frozenset({list}),
    "dict": frozenset({dict}),
    "objectid": frozenset({ObjectId}),
    "datetime": frozenset({datetime}),
    "capability": frozenset({Timestamp}),
}
"""The classes of each type, compared exactly: True is no integer."""
