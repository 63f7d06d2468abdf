"""Repair of objects with the names `$ref` and `$id`: users' inputs that the driver reads as references."""

from collections.abc import Iterable
from typing import Any

from bson.dbref import DBRef
from pymongo.cursor import Cursor

Document = dict[str, Any]


def plain(documents: Iterable[Document] | Cursor[Document]) -> list[Document]:
    """The documents as they were stored, with the references that the driver made changed back to objects.

    An option of the driver turns these references off, but decoding is then several times as slow.
    """
    found = documents.to_list() if isinstance(documents, Cursor) else list(documents)
    for document in found:
        _restore_in(document)
    return found


def _restore_in(value: Document) -> None:
    for name, inner in value.items():
        if type(inner) in _NESTED:
            value[name] = _restored(inner)


def _restored(value: Any) -> Any:
    if type(value) is DBRef:
        value = dict(value.as_doc())
    if type(value) is dict:
        _restore_in(value)
    elif type(value) is list:
        for place, inner in enumerate(value):
            if type(inner) in _NESTED:
                value[place] = _restored(inner)
    return value


_NESTED = frozenset({dict, list, DBRef})
