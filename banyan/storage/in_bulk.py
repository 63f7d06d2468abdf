"""Bulk changes of many documents, each under its own guard, for the hot paths."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bson
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateMany, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect, BulkWriteError, PyMongoError, ServerSelectionTimeoutError

Document = dict[str, Any]

MANY = 8
"""The smallest group of documents with equal guards that is written as one update."""
UPDATE_BYTES = 1 << 20
"""The largest size of one update, unless a single document needs more."""

_MOST = 1000
"""The most documents in one update: each searches its values among all of them, so the cost is quadratic."""
_WTIMEOUT = 64
_BY_ID = {"_id": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Fields of a document to set and to clear, if the guarded field still has the guard's value."""

    id: ObjectId
    guard: tuple[str, str | None]
    fields: Mapping[str, Any]
    cleared: tuple[str, ...] = ()


def change_each(collection: Collection[Document], writes: Sequence[Write], session: ClientSession | None = None) -> int:
    """Perform each write whose guard holds, in one round trip; return their number.

    Writes with equal guards become one update that gives each document its own values: it costs MongoDB half as much as
    one update each, and is guarded as strictly. The driver never repeats such an update after the primary was lost; the
    writes are then performed one by one, and the number leaves out those that the first try had done: read the
    documents to find them.
    """
    operations = list(_operations(writes))
    try:
        return collection.bulk_write(operations, ordered=False, session=session).matched_count
    except (AutoReconnect, BulkWriteError) as error:
        repeated_by_others = session is not None or len(operations) == len(writes)
        if repeated_by_others or not _primary_lost(error):
            raise
        return _one_by_one(collection, writes)


def _one_by_one(collection: Collection[Document], writes: Sequence[Write]) -> int:
    return collection.bulk_write([_one(write) for write in writes], ordered=False).matched_count


def _primary_lost(error: PyMongoError) -> bool:
    """Return whether the primary was lost during the operation."""
    if isinstance(error, BulkWriteError):
        faults = (error.details or {}).get("writeConcernErrors", ())
        return bool(faults) and all(fault.get("code") != _WTIMEOUT for fault in faults)
    return not isinstance(error, ServerSelectionTimeoutError)


def _operations(writes: Sequence[Write]) -> Iterator[UpdateOne | UpdateMany]:
    groups: dict[tuple[tuple[str, str | None], tuple[str, ...]], list[Write]] = {}
    for write in writes:
        groups.setdefault((write.guard, write.cleared), []).append(write)
    for group in groups.values():
        if len(group) < MANY:
            yield from map(_one, group)
        elif all(write.fields == group[0].fields for write in group):
            yield _alike(group)
        else:
            yield from _together(group)


def _one(write: Write) -> UpdateOne:
    name, value = write.guard
    cleared = {"$unset": dict.fromkeys(write.cleared, 1)} if write.cleared else {}
    return UpdateOne({"_id": write.id, name: value}, {"$set": write.fields, **cleared})


def _alike(group: Sequence[Write]) -> UpdateMany:
    """One update for writes that set the same values under the same guard."""
    name, value = group[0].guard
    cleared = {"$unset": dict.fromkeys(group[0].cleared, 1)} if group[0].cleared else {}
    where = {"_id": {"$in": [write.id for write in group]}, name: value}
    return UpdateMany(where, {"$set": group[0].fields, **cleared}, hint=_BY_ID)


def _together(group: Sequence[Write]) -> Iterator[UpdateMany]:
    """Updates for writes with the same guard that clear the same fields."""
    values = bson.encode({"$literal": [write.fields for write in group]})
    if len(group) > 1 and (len(values) > UPDATE_BYTES or len(group) > _MOST):
        half = len(group) // 2
        yield from _together(group[:half])
        yield from _together(group[half:])
        return
    ids = [write.id for write in group]
    own = {"$arrayElemAt": [RawBSONDocument(values), {"$indexOfArray": [{"$literal": ids}, "$_id"]}]}
    stages: list[Mapping[str, Any]] = [{"$replaceWith": {"$mergeObjects": ["$$ROOT", own]}}]
    if group[0].cleared:
        stages.append({"$unset": list(group[0].cleared)})
    name, value = group[0].guard
    yield UpdateMany({"_id": {"$in": ids}, name: value}, stages, hint=_BY_ID)
