"""Databases with many tasks, made quickly: copies of what the server itself has stored.

A task is posted (and run) through HTTP, and what MongoDB then holds of it is copied byte by byte but for the ids and
the revision, which have a fixed length. So each copy is exactly a document as the server would have stored it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from bson import CodecOptions, ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import WriteConcern
from pymongo.database import Database

from banyan.storage.mongo import Storage

Document = dict[str, Any]

_BATCH = 2000
_ID_BYTES, _REVISION_BYTES = 12, 24
_ID, _TEXT = b"\x07", b"\x02"


@dataclass(frozen=True, slots=True)
class Template:
    """A stored document cut where its copies differ: each of `names` follows the piece of the same place."""

    pieces: tuple[bytes, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, document: bytes, names: Sequence[str]) -> "Template":
        """Cut a document at these fields; ValueError if one is not there exactly once."""
        cuts = sorted((*_place(document, name), name) for name in names)
        starts = [0, *(end for _, end, _ in cuts)]
        ends = [*(begin for begin, _, _ in cuts), len(document)]
        return cls(tuple(document[a:b] for a, b in zip(starts, ends, strict=True)), tuple(name for *_, name in cuts))

    def copy(self, fresh: Mapping[str, bytes]) -> RawBSONDocument:
        """The document with other values in these fields."""
        parts = [self.pieces[0]]
        for piece, name in zip(self.pieces[1:], self.names, strict=True):
            parts += (fresh[name], piece)
        return RawBSONDocument(b"".join(parts))


def _place(document: bytes, name: str) -> tuple[int, int]:
    """Where the bytes of an id, or of a revision, begin and end."""
    header, size = _ID + name.encode() + b"\0", _ID_BYTES
    if name == "_etag":
        header, size = _TEXT + b"_etag\0" + (_REVISION_BYTES + 1).to_bytes(4, "little"), _REVISION_BYTES
    if document.count(header) != 1:
        raise ValueError(f"the field {name} is in the stored document {document.count(header)} times")
    begin = document.index(header) + len(header)
    return begin, begin + size


def fill_available(storage: Storage, posted: Sequence[ObjectId], count: int) -> None:
    """Add `count` copies of available tasks, as many of each."""
    templates = [Template.of(_stored(storage, "tasks", id), ("_id", "order", "_etag")) for id in posted]

    def copies() -> Iterator[RawBSONDocument]:
        for number in range(count):
            yield templates[number % len(templates)].copy(_fresh("_id", "order"))

    _insert(storage.db, "tasks", copies())
    storage.meta.catch_up()


def fill_ended(storage: Storage, posted: ObjectId, count: int) -> None:
    """Add `count` copies of a task that has ended, each with its attempt."""
    execution = storage.tasks.documents([posted])[posted]["execution"]
    task = Template.of(_stored(storage, "tasks", posted), ("_id", "order", "_etag", "execution"))
    attempt = Template.of(_stored(storage, "executions", execution), ("_id", "task"))
    left = count
    while left:
        batch = [_fresh("_id", "order", "execution") for _ in range(min(left, _BATCH))]
        _insert(storage.db, "tasks", (task.copy(fresh) for fresh in batch))
        attempts = (attempt.copy({"_id": fresh["execution"], "task": fresh["_id"]}) for fresh in batch)
        _insert(storage.db, "executions", attempts)
        left -= len(batch)
    storage.meta.catch_up()


def _fresh(*names: str) -> dict[str, bytes]:
    return {name: ObjectId().binary for name in names} | {"_etag": str(ObjectId()).encode()}


def _stored(storage: Storage, collection: str, id: ObjectId) -> bytes:
    for batch in cast(Iterable[bytes], storage.db[collection].find_raw_batches({"_id": id})):
        return batch
    raise LookupError(f"there is no document {id} in {collection}")


def _insert(db: Database[Document], collection: str, documents: Iterator[RawBSONDocument]) -> None:
    """Not waiting for the disk each time: `catch_up` does once, when all is there."""
    fast = db.get_collection(
        collection, CodecOptions(document_class=RawBSONDocument), write_concern=WriteConcern(w=1, j=False)
    )
    while batch := list(islice(documents, _BATCH)):
        fast.insert_many(batch, ordered=False)


def check_copies(storage: Storage, posted: Sequence[ObjectId]) -> None:
    """Raise `ValueError` if copies of these tasks differ from what the server stored in more than they must."""
    own = {"_id", "order", "_etag"}
    for task in storage.tasks.documents(posted).values():
        copy = storage.db["tasks"].find_one({"class_key": task["class_key"], "_id": {"$nin": list(posted)}})
        different = {name for name in task.keys() | (copy or {}).keys() if task.get(name) != (copy or {}).get(name)}
        if different != own:
            raise ValueError(f"a copy of task {task['_id']} differs from it in {sorted(different)}")
