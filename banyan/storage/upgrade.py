"""The version of the database's schema, and the steps from an older version to this program's.

Servers run them when they start, possibly several at once. A step is therefore written so that it may run in many
places at the same time, again after it was killed half-way, and once more in a slow server while others already work:
it changes only data in the old form. The version is raised after the step, so that no server skips one.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from bson import ObjectId
from bson.timestamp import Timestamp
from pymongo import UpdateOne
from pymongo.database import Database
from pymongo.errors import OperationFailure

from banyan.domain.resources import CAPABILITY, parse_capability
from banyan.errors import SetupError
from banyan.storage.forget import NEVER

Document = dict[str, Any]

log = logging.getLogger("banyan.server")

_PAGE = 1000

RESTORING = "restoring"
"""The document in `meta` that exists while a restore is incomplete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step from the version before to `version`."""

    version: int
    what: str
    act: Callable[[Database[Document]], None]


def _date_notes(db: Database[Document]) -> None:
    """Date the notes for workers, which are now kept until they are acknowledged."""
    undated = {"at": {"$exists": False}}
    db["forget"].update_many(undated, {"$set": {"up_to": None, "told": NEVER, "at": datetime.now(UTC)}})


def _to_2(db: Database[Document]) -> None:
    _date_notes(db)
    _drop_index(db, "forget", "worker", [("worker", 1)])
    _drop_index(db, "tasks", "sweep", [("sweep", 1), ("index", 1)])


def _drop_index(db: Database[Document], collection: str, name: str, keys: list[tuple[str, int]]) -> None:
    """Drop an index with an older definition; this version's own is created afterwards."""
    if db[collection].index_information().get(name, {}).get("key") == keys:
        with suppress(OperationFailure):  # another server was first
            db[collection].drop_index(name)


def _to_3(db: Database[Document]) -> None:
    _drop_index(db, "tasks", "held", [("worker", 1), ("execution", 1)])


def _to_4(db: Database[Document]) -> None:
    """Move the delay of a retry from `not_before`, the user's date, to `retry_at`; drop an index without `recalled`."""
    delayed = {"retry_count": {"$gt": 0}, "retry_delay": {"$gt": 0}, "not_before": {"$type": "date"}}
    moved: list[Document] = [{"$set": {"retry_at": "$not_before", "_etag": str(ObjectId())}}, {"$unset": "not_before"}]
    db["tasks"].update_many({**delayed, "retry_at": {"$exists": False}}, moved)
    _drop_index(db, "tasks", "held", [("worker", 1), ("state", 1), ("execution", 1), ("claim_request", 1)])


_CAPABILITIES = {
    "tasks": "requested_resources",
    "sweeps": "requested_resources",
    "workers": "resources",
    "executions": "granted_resources",
}
"""The field with amounts of resources in each collection."""


def _to_5(db: Database[Document]) -> None:
    """Convert compute capabilities from texts, of which "10.0" is less than "9.0", to pairs of numbers."""
    for collection, place in _CAPABILITIES.items():
        path = f"{place}.{CAPABILITY}"
        for text in db[collection].distinct(path, {path: {"$type": "string"}}):
            with suppress(ValueError):  # a worker may have reported any text
                kept = Timestamp(*parse_capability(text))
                db[collection].update_many({path: text}, {"$set": {path: kept}})


def _to_6(db: Database[Document]) -> None:
    """Give tasks that avoid workers for ever a date from which one of these may get the task again."""
    avoiding = {"class_key": {"$exists": True}, "avoid": {"$exists": True}, "avoid_until": {"$exists": False}}
    db["tasks"].update_many(avoiding, {"$set": {"avoid_until": datetime.now(UTC), "_etag": str(ObjectId())}})


def _to_7(db: Database[Document]) -> None:
    """Restore the edges of cancelled tasks to the deleted parent that caused it, which the tasks still name."""
    blaming = {"state": "cancelled", "cancelled_by.task": {"$exists": True}}
    for page in _pages(db["tasks"].find(blaming, {"cancelled_by": 1, "owner": 1}).sort("_id")):
        causes = {task["_id"]: task["cancelled_by"]["task"] for task in page}
        there = set(db["tasks"].distinct("_id", {"_id": {"$in": list(set(causes.values()))}}))
        lost = {"on": "success", "settled": True, "satisfied": False, "life": 0}
        writes = [
            UpdateOne(
                {"parent": causes[task["_id"]], "child": task["_id"]},
                {"$setOnInsert": {**lost, "owner": task.get("owner", "")}},
                upsert=True,
            )
            for task in page
            if causes[task["_id"]] not in there
        ]
        if writes:
            db["continuations"].bulk_write(writes, ordered=False)


def _pages(documents: Iterable[Document]) -> Iterator[list[Document]]:
    rest = iter(documents)
    while page := list(islice(rest, _PAGE)):
        yield page


STEPS = (
    Step(version=2, what="notes of what workers may remove are dated", act=_to_2),
    Step(version=3, what="the index of held tasks has more fields", act=_to_3),
    Step(version=4, what="a retry's delay has a date of its own, and an index covers recalls", act=_to_4),
    Step(version=5, what="compute capabilities are compared by number", act=_to_5),
    Step(version=6, what="workers that were avoided for a task may be tried again", act=_to_6),
    Step(version=7, what="cancelled tasks keep what they know of deleted parents", act=_to_7),
)
FIRST_VERSION = 1
SCHEMA_VERSION = STEPS[-1].version


def upgrade(db: Database[Document], steps: Sequence[Step] = STEPS) -> None:
    """Upgrade the database to the newest version; a new database starts with it.

    Raises `SetupError` when a newer program has used it, or when a restore into it was interrupted.
    """
    _refuse_half_restored(db)
    newest = steps[-1].version if steps else FIRST_VERSION
    db["meta"].update_one({"_id": "schema"}, {"$setOnInsert": {"version": newest}}, upsert=True)
    version = version_of(db)
    check_version(version, "the database", newest)
    for step in steps:
        if step.version > version:
            log.info("schema %s: %s", step.version, step.what)
            step.act(db)
            db["meta"].update_one({"_id": "schema", "version": step.version - 1}, {"$set": {"version": step.version}})


def version_of(db: Database[Document]) -> int:
    """The schema's version; the first one if none is recorded."""
    stored = db["meta"].find_one({"_id": "schema"})
    return int(stored["version"]) if stored else FIRST_VERSION


def check_version(version: int, what: str, newest: int = SCHEMA_VERSION) -> None:
    """Raise `SetupError` if `what` is of a version that this program does not know."""
    if version > newest:
        raise SetupError(
            f"{what} is of schema {version}, and this Banyan knows schemas up to {newest}: a newer Banyan has written "
            "it; run that one, or restore a backup that this one has made"
        )


def _refuse_half_restored(db: Database[Document]) -> None:
    if db["meta"].find_one({"_id": RESTORING}) is not None:
        raise SetupError(
            "a restore into this database was begun and is not complete; when it is not running any more, repeat it: "
            "banyan restore FILE --force"
        )
