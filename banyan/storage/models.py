"""The collection `models`: the default inputs of models, by name."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from banyan.storage.references import plain

Document = dict[str, Any]

NONE_YET = "none"
"""The revision of a model without stored defaults."""


class ModelStore:
    """Default inputs by the name of the model."""

    def __init__(self, db: Database[Document]) -> None:
        self._models = db["models"]

    def prepare(self) -> None:
        """Create the index on names."""
        self._models.create_index("name", unique=True, name="name")

    def load(self, names: Iterable[str] | None = None) -> dict[str, Document]:
        """The stored fields of these models, or of all: `defaults`, `_etag`."""
        where: Document = {} if names is None else {"name": {"$in": list(names)}}
        return {document["name"]: document for document in plain(self._models.find(where))}

    def set_defaults(
        self, name: str, defaults: Mapping[str, Any], now: datetime, revision: str | None = None
    ) -> Document | None:
        """Replace the default inputs of a model; return the stored document.

        None if they are not at `revision` (`NONE_YET` for a model that has none), where one is given.
        """
        where: Document = {"name": name}
        if revision == NONE_YET:
            where["_etag"] = {"$exists": False}
        elif revision is not None:
            where["_etag"] = revision
        try:
            kept = self._models.find_one_and_update(
                where,
                {
                    "$set": {"defaults": dict(defaults), "_etag": str(ObjectId()), "_updated": now},
                    "$setOnInsert": {"_created": now},
                },
                upsert=revision in (None, NONE_YET),
                return_document=ReturnDocument.AFTER,
            )
            return None if kept is None else plain([kept])[0]
        except DuplicateKeyError:
            # Another process created it meanwhile.
            return self.set_defaults(name, defaults, now) if revision is None else None
