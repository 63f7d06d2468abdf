"""Validation of bodies against the schemas: all faults of a body are listed at once, nothing is changed.

Eve's validator (Cerberus) with our kinds of fields decides. A schema is checked once, when its `Checker` is made, not
again for every document, and defaults are filled in by the checker. Documents that are right beyond doubt do not reach
Cerberus: `banyan.api.compiled` recognizes them, many times as fast.
"""

import copy
from collections.abc import Callable, Mapping, Sized
from functools import cache, cached_property
from itertools import islice
from typing import Any

import cerberus.schema

from banyan.api.compiled import Compiled
from banyan.api.faults import explain, shortened
from banyan.api.schema import RESOURCES
from banyan.api.validator import MAX_FAULTS, Validator
from banyan.domain.programs import bytes_of_environment, total_faults
from banyan.errors import Invalid, TooLarge
from banyan.wire import bad_name, unstorable

Document = dict[str, Any]
Issues = dict[str, object]


class Checker:
    """Checks documents against one schema; safe to be shared by threads. Without `quick`, Cerberus checks each."""

    def __init__(
        self,
        schema: Mapping[str, Any],
        together: Callable[[Document], Issues] | None = None,
        *,
        quick: bool = True,
    ) -> None:
        checked = cerberus.schema.DefinitionSchema(Validator(), copy.deepcopy(dict(schema))).schema
        self._defaults = _take_defaults(checked)
        self._inner_defaults = {
            name: inner for name, rules in checked.items() if (inner := _take_defaults(rules.get("schema", {})))
        }
        self._droppable = {n for n, rules in checked.items() if rules.get("nullable") and not rules.get("readonly")}
        self._rules = checked
        self._required = {name: rules for name, rules in checked.items() if rules.get("required")}
        self._together = together
        self._compiled = Compiled(checked, self._inner_defaults, self._droppable) if quick else None

    def new(self, documents: list[Any]) -> tuple[list[Document], list[Issues]]:
        """Documents as they are to be stored, defaults filled in, and the faults of each (empty for none)."""
        stored, faults = [], []
        slow = _Slow()
        for document in documents:
            value = self.sure(document)
            value, issues = (value, {}) if value is not None else self._check(document, slow, update=False)
            if not issues:
                value = self._completed(value)
            if not issues and self._together is not None:
                issues = self._together(value)
            stored.append(value)
            faults.append(issues)
        return stored, faults

    def changes(self, document: Any) -> Document:
        """The fields of an update as they are to be stored, without defaults; raises `Invalid`."""
        value = self.sure(document, update=True)
        if value is not None:
            return value
        value, issues = self._check(document, _Slow(), update=True)
        if issues:
            raise Invalid(issues)
        return value

    def sure(self, document: Any, *, update: bool = False) -> Document | None:
        """A document that is right beyond doubt, without defaults; None when Cerberus has to decide."""
        if self._compiled is None:
            return None
        return self._compiled.changes(document) if update else self._compiled.new(document)

    def _check(self, document: Any, slow: "_Slow", *, update: bool) -> tuple[Document, Issues]:
        if not isinstance(document, dict):
            return {}, {"_body": 'must be an object such as {"name": "value"}'}
        unfit = ((name, bad_name(name) or unstorable(value)) for name, value in document.items())
        faults = dict(islice(((name, fault) for name, fault in unfit if fault), MAX_FAULTS))
        given = {name: value for name, value in document.items() if name not in faults}
        if not update:
            given = {n: value for n, value in given.items() if value is not None or n not in self._droppable}
        known = slow.recall(given)
        new = given = {name: value for name, value in given.items() if name not in known}
        for name, defaults in self._inner_defaults.items():
            if isinstance(given.get(name), dict):
                given = {**given, name: {**defaults, **given[name]}}
        named = {name: self._rules[name] for name in given if name in self._rules}
        required = {} if update else {name: rules for name, rules in self._required.items() if name not in known}
        validator = slow.validator
        validator.schema = {**required, **named}  # the fewer rules, the faster
        valid = validator.validate(given, update=update)
        if faults or not valid:
            return {}, shortened({**faults, **explain(validator, self._rules, suggest=slow.may_suggest())})
        slow.remember(new, validator.document)
        return {**validator.document, **known}, {}

    def _completed(self, document: Document) -> Document:
        defaults = {n: dict(v) if isinstance(v, dict) else v for n, v in self._defaults.items() if n not in document}
        return {**defaults, **document}


class _Slow:
    """The state of Cerberus for one list: its validator, and the objects that it found right in earlier items.

    The items of one campaign have mostly equal objects.
    """

    _MOST = 1000
    _SUGGESTIONS = 20

    def __init__(self) -> None:
        self._checked: dict[tuple[str, str], Document] = {}
        self._explained = 0

    def may_suggest(self) -> bool:
        """Return whether there is time for suggestions for a misspelt name: in the first faulty items only."""
        self._explained += 1
        return self._explained <= self._SUGGESTIONS

    @cached_property
    def validator(self) -> Validator:
        """The validator, made when the first document needs it."""
        return Validator(schema={})

    def recall(self, document: Document) -> Document:
        """The fields whose values were checked before, as they are to be stored."""
        if not self._checked:
            return {}
        keys = {name: (name, repr(value)) for name, value in document.items() if isinstance(value, dict)}
        return {name: dict(self._checked[key]) for name, key in keys.items() if key in self._checked}

    def remember(self, given: Document, checked: Document) -> None:
        """Record values that were just found right."""
        for name, value in given.items():
            if isinstance(value, dict) and len(self._checked) < self._MOST:
                self._checked[name, repr(value)] = checked[name]


def _take_defaults(schema: dict[str, Any]) -> Document:
    """Remove the defaults from a compiled schema, where Cerberus would fill them in slowly, and return them."""
    return {name: rules.pop("default") for name, rules in schema.items() if "default" in rules}


def check_task(task: Mapping[str, Any]) -> Issues:
    """The faults of a whole task whose single fields are right."""
    issues: Issues = {}
    if task.get("command") is not None and task.get("model") is not None:
        issues["model"] = "a task has either 'command' or 'model', not both"
    if task.get("result_from") is not None and task.get("command") is None:
        issues["result_from"] = "it needs a 'command'; a model gives its result itself, and a group has none"
    if task.get("model") is None:
        if task.get("inputs") is not None and task.get("sweep") is None:
            issues["inputs"] = "inputs need a 'model' to go to; a command takes 'stdin' or 'env'"
        if task.get("input_refs"):
            issues["input_refs"] = "they need a 'model' to go to; a command reads its parents' results by HTTP"
    elif both := sorted((task.get("inputs") or {}).keys() & (task.get("input_refs") or {}).keys()):
        issues["input_refs"] = f"{both[0]!r} is given in 'inputs' too; give it once"
    if task.get("env") or isinstance(task.get("command"), list):
        issues |= total_faults(task.get("command"), bytes_of_environment(task.get("env")))
    return issues


def _check_new_task(task: Document) -> Issues:
    issues = check_task(task)
    if task["state"] not in ("inactive", "available"):
        issues["state"] = f"a task begins inactive or available, not {task['state']}"
    return issues


_TOGETHER = {"tasks": _check_new_task}


@cache
def checker(resource: str) -> Checker:
    """The checker of a resource's documents."""
    return Checker(RESOURCES[resource], _TOGETHER.get(resource))


def validated_new(resource: str, body: Any, max_items: int = 10_000) -> list[Document]:
    """The documents of a POST (one object, or a list of them), defaults filled in.

    Raises `Invalid` with the faults of the object or of all items, `TooLarge` for a list of more than `max_items`.
    """
    if not isinstance(body, list):
        documents, faults = checker(resource).new([body])
        if faults[0]:
            raise Invalid(faults[0])
        return documents
    if not body:
        raise Invalid({"_body": "the list is empty"})
    check_count(body, max_items)
    documents, faults = checker(resource).new(body)
    if any(faults):
        raise Invalid(items=list(faults))
    return documents


def check_count(items: Sized, max_items: int) -> None:
    """Raise `TooLarge` for a list of more than `max_items`."""
    if len(items) > max_items:
        raise TooLarge(f"the list has {len(items)} items; send at most {max_items} at once (limits.max_list_items)")


def validated_changes(resource: str, body: Any) -> Document:
    """The fields of a PATCH as they are to be stored; read-only ones are refused, defaults are not filled in."""
    changes = checker(resource).changes(body)
    if "_id" in changes:
        raise Invalid({"_id": "an id never changes"})
    return changes


_own: dict[int, tuple[Mapping[str, Any], Checker]] = {}


def validated(schema: Mapping[str, Any], body: Any) -> Document:
    """The checked body of a call that is no resource's document; `schema` is a constant of a module."""
    known = _own.get(id(schema))
    if known is None:
        known = _own[id(schema)] = (schema, Checker(schema))
    documents, faults = known[1].new([body])
    if faults[0]:
        raise Invalid(faults[0])
    return documents[0]
