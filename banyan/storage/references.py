"""Objects with the names `$ref` and `$id` are users' inputs, not references as the driver takes them for."""

from collections.abc import Iterable
from typing import Any

from bson.dbref import DBRef
from pymongo.cursor import Cursor

Document = dict[str, Any]


def plain(documents: Iterable[Document] | Cursor[Document]) -> list[Document]:
    """The same documents as they were stored, changed where the driver made references of objects.

    The driver could be told to make none, but then decodes all that it reads several times as slowly.
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
