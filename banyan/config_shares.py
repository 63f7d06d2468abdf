"""A settings file for several programs, and the owners of its keys."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

Path = tuple[str, ...]
Model = type[BaseModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of a file, and whether this program and others have it; `stray` if none has, in a section of others."""

    path: Path
    value: Any
    ours: bool
    others: bool
    stray: bool = False

    @property
    def name(self) -> str:
        """Return the key as users write it."""
        return ".".join(self.path)


def keys_of(model: Model, others: Sequence[Model], values: Mapping[str, Any]) -> list[Key]:
    """Return the keys of a file with these `values`: those of `model`, of the `others`, of both, and of none."""
    return list(_keys(model, others, values, ()))


def part_of(keys: Sequence[Key]) -> dict[str, Any]:
    """Return the part of the file for this program, or for none, nested as the file is."""
    part: dict[str, Any] = {}
    for key in keys:
        if key.ours or not key.others:
            table = part
            for section in key.path[:-1]:
                table = table.setdefault(section, {})
            table[key.path[-1]] = key.value
    return part


def told(keys: Sequence[Key], ours: str, theirs: str) -> str:
    """Describe in one line which part of a file is for which program."""
    kinds = {
        ours: [key.name for key in keys if key.ours and not key.others],
        "both": [key.name for key in keys if key.ours and key.others],
        theirs: [key.name for key in keys if key.others and not key.ours],
    }
    return "; ".join(f"for {who}: {', '.join(names)}" for who, names in kinds.items() if names)


def _keys(model: Model | None, others: Sequence[Model], values: Mapping[str, Any], above: Path) -> Iterator[Key]:
    for name, value in values.items():
        has = model is not None and name in model.model_fields
        having = [other for other in others if name in other.model_fields]
        section = _section(model, name) if model is not None and has else None
        sections = [each for other in having if (each := _section(other, name)) is not None]
        if isinstance(value, dict) and (section is not None or (sections and not has)):
            yield from _keys(section, sections, value, (*above, name))
        else:
            stray = model is None and not having
            yield Key(path=(*above, name), value=value, ours=has, others=bool(having), stray=stray)


def _section(model: Model, name: str) -> Model | None:
    annotation = model.model_fields[name].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
