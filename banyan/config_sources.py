"""The collection of settings from their sources, with all faults in one error."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ValidationError

from banyan.config_shares import Key, keys_of, part_of
from banyan.errors import SetupError
from banyan.spelling import closest

PREFIX = "BANYAN_"
FOREIGN_VARIABLES = frozenset(
    {
        *("BANYAN_CONFIG", "BANYAN_URL", "BANYAN_TOKEN", "BANYAN_TOKEN_FILE"),
        *("BANYAN_TASK_ID", "BANYAN_EXECUTION_ID", "BANYAN_WORKDIR", "BANYAN_PROGRESS", "BANYAN_RESULT"),
        *("BANYAN_SWEEP_ID", "BANYAN_SWEEP_INDEX"),
    }
)
"""Variables with our prefix that are no settings: the client's, and those of tasks."""

Model = TypeVar("Model", bound=BaseModel)
Values = dict[str, Any]


def load(
    model: type[Model],
    flags: Mapping[str, Any],
    *,
    config: Path | None,
    environ: Mapping[str, str],
    neighbours: Sequence[type[BaseModel]] = (),
    shared: Path | None = None,
) -> Model:
    """Return the settings of `model`: `flags` over the environment over the file `config` over `shared` over defaults.

    Without `config` the variable `BANYAN_CONFIG` names the file. Keys and variables of `neighbours` (other programs'
    settings) are ignored; any other unknown key or `BANYAN_*` variable is a fault. SetupError lists every fault of
    every source.
    """
    faults: list[str] = []
    values: Values = {}
    for path in (shared, config or named_file(environ)):
        _merge(values, _part(model, neighbours, _from_file(path, faults), faults))
    _merge(values, _from_environment(model, neighbours, environ, faults))
    _merge(values, flags)
    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        faults += [f"{'.'.join(map(str, each['loc']))}: {_reason(model, each)}" for each in error.errors()]
    else:
        if not faults:
            return settings
    raise SetupError("the settings are faulty:\n" + "\n".join(f"  {fault}" for fault in faults))


def variables(model: type[BaseModel], prefix: str = PREFIX) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each environment variable that sets a key of `model`, with the path of the key."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for variable, path in variables(field.annotation, f"{prefix}{name.upper()}__"):
                yield variable, (name, *path)
        else:
            yield f"{prefix}{name.upper()}", (name,)


def file_keys(model: type[BaseModel], neighbours: Sequence[type[BaseModel]], path: Path) -> list[Key]:
    """Return the keys of a readable settings file, with their owners."""
    return keys_of(model, neighbours, _from_file(path, []))


def _part(model: type[BaseModel], neighbours: Sequence[type[BaseModel]], values: Values, faults: list[str]) -> Values:
    """Return the part of a file for `model`, and for none; the latter is a fault in a section of others alone."""
    keys = keys_of(model, neighbours, values)
    known = [".".join(path) for each in neighbours for _, path in variables(each)]
    strays = [key for key in keys if key.stray]
    faults += [f"{key.name}: {_no_such_setting(key.name, known, '.')}" for key in strays]
    return part_of([key for key in keys if key not in strays])


def named_file(environ: Mapping[str, str]) -> Path | None:
    return Path(environ["BANYAN_CONFIG"]) if environ.get("BANYAN_CONFIG") else None


def _from_file(path: Path | None, faults: list[str]) -> Values:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        faults.append(f"{path} cannot be read: {error}")
        return {}


def _from_environment(
    model: type[BaseModel], neighbours: Sequence[type[BaseModel]], environ: Mapping[str, str], faults: list[str]
) -> Values:
    values: Values = {}
    own = dict(variables(model))
    known = {*own, *FOREIGN_VARIABLES, *(name for each in neighbours for name, _ in variables(each))}
    for name in sorted(environ):
        if name in own:
            *sections, key = own[name]
            _merge(values, _nested(sections, {key: _decoded(model, own[name], environ[name])}))
        elif name.startswith(PREFIX) and name not in known:
            faults.append(f"{name}: {_no_such_setting(name, sorted(known), '__')}")
    return values


def _decoded(model: type[BaseModel], path: tuple[str, ...], text: str) -> object:
    """Return the value of a variable: JSON where the key is a list or a table, else the text as it stands."""
    for name in path:
        annotation = model.model_fields[name].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    if get_origin(annotation) not in (tuple, dict):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text  # not a list or table: the validation reports it


def _nested(sections: list[str], value: Values) -> Values:
    for section in reversed(sections):
        value = {section: value}
    return value


def _merge(below: Values, above: Mapping[str, Any]) -> None:
    """Lay `above` over `below`, section by section."""
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = dict(value) if isinstance(value, Mapping) else value


def _reason(model: type[BaseModel], fault: Mapping[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        keys = [".".join(path) for _, path in variables(model)]
        return _no_such_setting(".".join(map(str, fault["loc"])), keys, ".")
    if fault["type"] == "tuple_type":
        return 'should be a list, such as ["a", "b"]; in a variable, a JSON list'
    if fault["type"] == "dict_type":
        return 'should be a table, such as {a = "b"}; in a variable, a JSON object'
    return str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")


def _no_such_setting(name: str, known: Sequence[str], separator: str) -> str:
    """Return the fault of an unknown key or variable: a similar one, or one of that name in its section."""
    key = name.removeprefix(PREFIX).rpartition(separator)[2]
    same = [each for each in known if key and each.rpartition(separator)[2] == key]
    near = closest(name, known) or (same[0] if len(same) == 1 else None)
    return "there is no such setting" + (f"; did you mean {near}?" if near else "")
