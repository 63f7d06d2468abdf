"""Eve's validator with Banyan's kinds of fields."""

from collections.abc import Mapping
from typing import Any

import cerberus.errors
from cerberus import TypeDefinition
from eve.io.mongo.validation import Validator as EveValidator
from eve.validation import Validator as EveBaseValidator

from banyan.api import coercion
from banyan.wire import parse_duration, parse_size

_SILENT = cerberus.errors.BaseErrorHandler()
_MAX_NAMES = 1000
_MAX_COMMAND = 1_000_000
_MAX_TEXT = 1000


class Validator(EveValidator):
    """Checks one document after another against rules that `Checker` has compiled; not safe for threads."""

    types_mapping = EveValidator.types_mapping | {
        "integer": TypeDefinition("integer", (int,), (bool,)),
        "float": TypeDefinition("float", (int, float), (bool,)),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.is_update_operation = False
        kwargs["error_handler"] = _SILENT
        super(EveBaseValidator, self).__init__(*args, **kwargs)  # Eve's own needs a running app

    @property
    def schema(self) -> Any:
        """The rules, taken as they are."""
        return self._schema

    @schema.setter
    def schema(self, schema: Any) -> None:
        self._schema = schema

    _normalize_coerce_id = staticmethod(coercion.to_id)
    _normalize_coerce_ids = staticmethod(coercion.to_ids)
    _normalize_coerce_dependencies = staticmethod(coercion.to_dependencies)
    _normalize_coerce_date = staticmethod(coercion.to_date)
    _normalize_coerce_capability = staticmethod(coercion.to_capability)
    _normalize_coerce_size = staticmethod(parse_size)
    _normalize_coerce_duration = staticmethod(parse_duration)

    def _validate_readonly(self, readonly: bool, field: str, value: object) -> None:
        """{'type': 'boolean'}"""
        super(EveBaseValidator, self)._validate_readonly(readonly, field, value)

    def _validate_data_relation(self, data_relation: Mapping[str, Any], field: str, value: object) -> None:
        """{'type': 'dict'}"""
        # Whether the other document exists is decided by the use case, in its transaction.

    def _validate_min(self, minimum: float, field: str, value: object) -> None:
        """{'nullable': False}"""
        if isinstance(value, (int, float)) and not value >= minimum:  # NaN is not either
            self._error(field, cerberus.errors.MIN_VALUE)

    def _check_with_no_nul(self, field: str, value: object) -> None:
        if isinstance(value, str) and "\0" in value:
            self._error(field, "must not contain NUL bytes")

    def _check_with_command(self, field: str, value: Any) -> None:
        words = value if isinstance(value, list) else [value]
        if not all(isinstance(word, str) for word in words):
            self._error(field, "must be a text or a list of texts")
        elif not words or not words[0].strip():
            self._error(field, "must not be empty; leave it out for a task that only groups others")
        elif any("\0" in word for word in words):
            self._error(field, "must not contain NUL bytes")
        elif sum(map(len, words)) > _MAX_COMMAND:
            self._error(field, f"is longer than {_MAX_COMMAND} characters; put the data into 'stdin' or into a file")

    def _check_with_texts(self, field: str, value: object) -> None:
        if isinstance(value, list) and not all(_is_text(each) for each in value):
            self._error(field, f"must be a list of texts of 1 to {_MAX_TEXT} characters without NUL bytes")

    def _check_with_names_to_texts(self, field: str, value: object) -> None:
        for name, each in self._checked_names(field, value).items():
            if not isinstance(each, str) or "\0" in each:
                self._error(field, f"the value of {name!r} must be a text without NUL bytes")

    def _check_with_names_to_amounts(self, field: str, value: object) -> None:
        for name, each in self._checked_names(field, value).items():
            if isinstance(each, bool) or not isinstance(each, (int, float)) or not 0 <= each <= 1e9:
                self._error(field, f"the amount of {name!r} must be a number from 0 to 1,000,000,000")

    def _checked_names(self, field: str, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {}
        if len(value) > _MAX_NAMES:
            self._error(field, f"must have at most {_MAX_NAMES} names")
        if any(not _is_text(name) or "=" in name for name in value):
            self._error(field, f"a name must have 1 to {_MAX_TEXT} characters, and neither '=' nor NUL bytes")
        return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and "\0" not in value
