"""The faults that a validator found, in sentences: `{"field": "reason"}`, nested as the document is."""

from collections.abc import Iterator, Mapping
from typing import Any

import cerberus.errors as kinds

from banyan.api.field_names import unknown_field
from banyan.api.validator import Validator
from banyan.domain.task import STATE_WORDS
from banyan.spelling import suggestion

Issues = dict[str, object]

_SENTENCES = {
    kinds.REQUIRED_FIELD.code: "is required",
    kinds.READONLY_FIELD.code: "is read-only",
    kinds.NOT_NULLABLE.code: "must not be null",
    kinds.MIN_LENGTH.code: "must have at least {rule} characters",
    kinds.MAX_LENGTH.code: "is too long: {0}, at most {rule}",
    kinds.MIN_VALUE.code: "must be at least {rule}",
    kinds.MAX_VALUE.code: "must be at most {rule}",
    kinds.COERCION_FAILED.code: "{0}",
    kinds.CUSTOM.code: "{0}",
}
_TYPES = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "float": "a number",
    "boolean": "true or false",
    "list": "a list",
    "dict": "an object",
    "objectid": "an id of 24 hex digits",
    "datetime": "a date",
    "capability": "a compute capability such as '8.0'",
}


MAX_NAME = 100
MAX_SENTENCE = 1000
"""The lengths above which names and sentences, which quote received values, are cut."""


def shortened(issues: Any) -> Any:
    """Faults of a document, or of one field, with quotations cut to a readable length."""
    if isinstance(issues, str):
        return _cut(issues, MAX_SENTENCE)
    if isinstance(issues, Mapping):
        return {_cut(str(name), MAX_NAME): shortened(each) for name, each in issues.items()}
    return [shortened(each) for each in issues] if isinstance(issues, list) else issues


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 40]}... ({len(text)} characters)"


def explain(validator: Validator, schema: Mapping[str, Any], *, suggest: bool = True) -> Issues:
    """The faults of the document that was checked last; a field whose value cannot be read has that one fault.

    With `suggest`, which takes its time, known names are proposed in place of unknown ones.
    """
    by_path: dict[tuple[object, ...], list[Any]] = {}
    for error in _leaves(validator._errors):
        by_path.setdefault(tuple(error.document_path), []).append(error)
    issues: Issues = {}
    for path, errors in by_path.items():
        unreadable = [error for error in errors if error.code == kinds.COERCION_FAILED.code]
        reasons = list(dict.fromkeys(_sentence(error, schema, suggest) for error in unreadable or errors))
        _place(issues, [str(step) for step in path], reasons[0] if len(reasons) == 1 else reasons)
    return issues


def _leaves(errors: Any) -> Iterator[Any]:
    for error in errors:
        if error.is_group_error and error.child_errors:
            yield from _leaves(error.child_errors)
        else:
            yield error


def _place(issues: Issues, path: list[str], reason: object) -> None:
    for step in path[:-1]:
        inner = issues.get(step)
        if not isinstance(inner, dict):
            inner = issues[step] = {}
        issues = inner
    issues[path[-1]] = reason


def _sentence(error: Any, schema: Mapping[str, Any], suggest: bool) -> str:
    if error.code == kinds.UNKNOWN_FIELD.code:
        if not suggest:
            return "unknown field"
        return unknown_field(tuple(str(step) for step in error.document_path), error.value, schema)
    if error.code == kinds.BAD_TYPE.code:
        wanted = [error.constraint] if isinstance(error.constraint, str) else error.constraint
        return f"must be {' or '.join(_TYPES[each] for each in wanted)}"
    if error.code == kinds.REGEX_MISMATCH.code:
        return f"is {error.value!r}; it may have letters, digits and . _ - + @ : and must not begin with a dot"
    if error.code == kinds.UNALLOWED_VALUE.code:
        near = suggestion(str(error.value), error.constraint, STATE_WORDS) or ";"
        return f"is {error.value!r}{near} it must be one of {', '.join(map(str, error.constraint))}"
    rule = error.constraint
    rule = ", ".join(str(each) for each in rule) if isinstance(rule, list) else rule
    return _SENTENCES.get(error.code, "is not valid").format(*error.info, rule=rule)
