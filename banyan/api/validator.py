"""Eve's validator with Banyan's kinds of fields."""

from collections.abc import Iterable, Mapping
from typing import Any

import cerberus.errors
from bson.timestamp import Timestamp
from cerberus import TypeDefinition
from eve.io.mongo.validation import Validator as EveValidator
from eve.validation import Validator as EveBaseValidator

from banyan.api import checks, coercion
from banyan.domain.programs import command_faults, environment_faults
from banyan.wire import parse_duration, parse_size

MAX_FAULTS = 25
"""The most reported faults of one object; Cerberus sorts them again for each, so that thousands would take minutes."""

_SILENT = cerberus.errors.BaseErrorHandler()


class Validator(EveValidator):
    """Checks one document after another against rules that `Checker` has compiled; not safe for threads."""

    types_mapping = EveValidator.types_mapping | {
        "integer": TypeDefinition("integer", (int,), (bool,)),
        "capability": TypeDefinition("capability", (Timestamp,), ()),
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
    _normalize_coerce_input_refs = staticmethod(coercion.to_input_refs)
    _normalize_coerce_date = staticmethod(coercion.to_date)
    _normalize_coerce_expiry = staticmethod(coercion.to_expiry)
    _normalize_coerce_capability = staticmethod(coercion.to_capability)
    _normalize_coerce_exit_status = staticmethod(coercion.to_exit_status)
    _normalize_coerce_size = staticmethod(parse_size)
    _normalize_coerce_duration = staticmethod(parse_duration)

    def _error(self, *args: Any) -> None:
        if len(self._errors) < MAX_FAULTS:
            super()._error(*args)

    def _validate_readonly(self, readonly: bool, field: str, value: object) -> None:
        """{'type': 'boolean'}"""
        super(EveBaseValidator, self)._validate_readonly(readonly, field, value)

    def _validate_data_relation(self, data_relation: Mapping[str, Any], field: str, value: object) -> None:
        """{'type': 'dict'}"""
        # The use case decides in its transaction whether the other document exists.

    def _validate_min(self, minimum: float, field: str, value: object) -> None:
        """{'nullable': False}"""
        if isinstance(value, (int, float)) and not value >= minimum:  # NaN fails this too
            self._error(field, cerberus.errors.MIN_VALUE)

    def _check_with_no_nul(self, field: str, value: object) -> None:
        self._tell(field, checks.no_nul(value))

    def _check_with_command(self, field: str, value: object) -> None:
        self._tell(field, command_faults(value))

    def _check_with_environment(self, field: str, value: object) -> None:
        self._tell(field, environment_faults(value))

    def _check_with_path(self, field: str, value: object) -> None:
        self._tell(field, checks.path(value))

    def _check_with_texts(self, field: str, value: object) -> None:
        self._tell(field, checks.texts(value))

    def _check_with_names_to_texts(self, field: str, value: object) -> None:
        self._tell(field, checks.names_to_texts(value))

    def _check_with_names_to_amounts(self, field: str, value: object) -> None:
        self._tell(field, checks.names_to_amounts(value))

    def _check_with_names_to_turns(self, field: str, value: object) -> None:
        self._tell(field, checks.names_to_turns(value))

    def _check_with_waiting(self, field: str, value: object) -> None:
        self._tell(field, checks.waiting(value))

    def _check_with_grid(self, field: str, value: object) -> None:
        self._tell(field, checks.grid(value))

    def _check_with_points(self, field: str, value: object) -> None:
        self._tell(field, checks.points(value))

    def _check_with_ranges(self, field: str, value: object) -> None:
        self._tell(field, checks.ranges(value))

    def _check_with_models(self, field: str, value: object) -> None:
        self._tell(field, checks.models(value))

    def _tell(self, field: str, faults: Iterable[str]) -> None:
        for fault in faults:
            self._error(field, fault)
