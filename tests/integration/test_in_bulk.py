"""Many guarded writes at once: as strict as one by one, whatever is written, and repeated when the primary goes."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from bson import ObjectId
from pymongo import UpdateMany
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect, BulkWriteError, ServerSelectionTimeoutError

from banyan.storage.in_bulk import MANY, UPDATE_BYTES, Write, change_each
from banyan.storage.mongo import Storage

Document = dict[str, Any]


@pytest.fixture
def documents(mongo_uri: str, database_name: str) -> Iterator[Collection[Document]]:
    storage = Storage.open(mongo_uri, database_name)
    yield storage.db["documents"]
    storage.close()


class Recorded:
    """A collection of which the updates are noted; `faults` are raised one after the other, after that was done."""

    def __init__(self, collection: Collection[Document], *faults: Exception, done: bool = True) -> None:
        self.collection = collection
        self.sent: list[list[type]] = []
        self._faults = list(faults)
        self._done = done

    def bulk_write(self, operations: Sequence[Any], **options: Any) -> Any:
        self.sent.append([type(each) for each in operations])
        if self._faults and not self._done:
            raise self._faults.pop(0)
        result = self.collection.bulk_write(operations, **options)
        if self._faults:
            raise self._faults.pop(0)
        return result


def change(collection: Any, writes: Sequence[Write]) -> int:
    return change_each(collection, writes)


def filled(collection: Collection[Document], count: int = 2 * MANY, **fields: Any) -> list[ObjectId]:
    ids = [ObjectId() for _ in range(count)]
    collection.insert_many([{"_id": id, "_etag": "old", **fields} for id in ids])
    return ids


def written(ids: Sequence[ObjectId], guard: str = "old", **fields: Any) -> list[Write]:
    return [
        Write(id=id, guard=("_etag", guard), fields={"number": number, "_etag": "new", **fields}, cleared=("gone",))
        for number, id in enumerate(ids)
    ]


def stored(collection: Collection[Document]) -> dict[ObjectId, Document]:
    return {each.pop("_id"): each for each in collection.find()}


def test_each_document_gets_its_own_values_by_one_update(documents: Collection[Document]) -> None:
    ids = filled(documents, kept=1, gone=2)
    recorded = Recorded(documents)
    assert change(recorded, written(ids)) == len(ids)
    assert stored(documents) == {id: {"_etag": "new", "kept": 1, "number": n} for n, id in enumerate(ids)}
    assert recorded.sent == [[UpdateMany]]


def test_what_was_changed_meanwhile_stays_even_if_its_revision_is_that_of_another(
    documents: Collection[Document],
) -> None:
    first, second = filled(documents), filled(documents)
    documents.update_many({"_id": {"$in": [*first[:3], *second]}}, {"$set": {"_etag": "later"}})
    assert change(documents, [*written(first), *written(second, "later")]) == len(first) - 3 + len(second)
    found = stored(documents)
    assert [id for id in (*first, *second) if found[id]["_etag"] != "new"] == first[:3]


def test_a_missing_field_is_a_guard_too(documents: Collection[Document]) -> None:
    ids = filled(documents)
    documents.update_one({"_id": ids[0]}, {"$set": {"end": 1}})
    writes = [Write(id=id, guard=("end", None), fields={"end": 2}) for id in ids]
    assert change(documents, writes) == len(ids) - 1
    assert [each["end"] for each in stored(documents).values()] == [1, *[2] * (len(ids) - 1)]


@pytest.mark.parametrize("count", [1, 2 * MANY])
def test_values_are_kept_as_they_are_whatever_they_look_like(documents: Collection[Document], count: int) -> None:
    ids = filled(documents, count, value={"old": 1})
    value = {"$set": {"a.b": "$_id"}, "text": "$number", "list": [{"$literal": None}], "empty": {}}
    assert change(documents, written(ids, value=value, text="$_etag", nothing=None)) == count
    found = stored(documents)
    assert [found[id] for id in ids] == [
        {"_etag": "new", "value": value, "text": "$_etag", "nothing": None, "number": n} for n in range(count)
    ]


def test_large_values_are_spread_over_several_updates(documents: Collection[Document]) -> None:
    ids = filled(documents)
    recorded = Recorded(documents)
    assert change(recorded, written(ids, text="x" * (UPDATE_BYTES // 5))) == len(ids)
    assert recorded.sent == [[UpdateMany] * (len(ids) // 4)]


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize(
    "fault", [AutoReconnect("gone"), BulkWriteError({"writeConcernErrors": [{"code": 189}], "writeErrors": []})]
)
def test_when_the_primary_goes_the_writes_are_done_one_by_one(
    documents: Collection[Document], fault: Exception, done: bool
) -> None:
    ids = filled(documents)
    recorded = Recorded(documents, fault, done=done)
    assert change(recorded, written(ids)) == (0 if done else len(ids))
    assert {each["_etag"] for each in stored(documents).values()} == {"new"}
    assert [len(each) for each in recorded.sent] == [1, len(ids)]


@pytest.mark.parametrize(
    "fault",
    [
        ServerSelectionTimeoutError("no primary"),
        BulkWriteError({"writeConcernErrors": [{"code": 64}], "writeErrors": []}),
        BulkWriteError({"writeConcernErrors": [], "writeErrors": [{"code": 17419}]}),
    ],
)
def test_what_repeating_would_not_help_is_raised(documents: Collection[Document], fault: Exception) -> None:
    recorded = Recorded(documents, fault, done=False)
    with pytest.raises(type(fault)):
        change(recorded, written(filled(documents)))
    assert len(recorded.sent) == 1


def test_what_the_driver_has_repeated_already_is_not_repeated(documents: Collection[Document]) -> None:
    recorded = Recorded(documents, AutoReconnect("gone"), done=False)
    with pytest.raises(AutoReconnect):
        change(recorded, written(filled(documents, MANY - 1)))
    assert len(recorded.sent) == 1


def test_equal_changes_are_one_plain_update_and_guarded_as_strictly(documents: Collection[Document]) -> None:
    ids = filled(documents, 5 * MANY, gone=1)
    documents.update_one({"_id": ids[0]}, {"$set": {"_etag": "another"}})
    fields = {"_etag": "new", "odd": {"$ref": 1, "a.b": [None]}}
    writes = [Write(id=id, guard=("_etag", "old"), fields=fields, cleared=("gone",)) for id in ids]
    recorded = Recorded(documents)
    assert change(recorded, writes) == len(ids) - 1
    assert recorded.sent == [[UpdateMany]]
    assert documents.find_one({"_id": ids[0]}) == {"_id": ids[0], "_etag": "another", "gone": 1}
    assert documents.find_one({"_id": ids[1]}) == {"_id": ids[1], **fields}
