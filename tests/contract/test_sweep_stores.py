"""Sweeps, and submissions in parts: what each store promises."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database

from banyan.domain.continuations import Edge
from banyan.errors import Conflict
from banyan.storage.parts import Part, PartStore
from banyan.storage.sweeps import SweepStore, points_of
from banyan.storage.tasks import TaskStore, encoded

NOW = datetime(2024, 5, 1, tzinfo=UTC)

Db = Database[dict[str, Any]]


@pytest.fixture
def parts(db: Db) -> PartStore:
    store = PartStore(db)
    store.prepare()
    return store


@pytest.fixture
def sweeps(db: Db) -> SweepStore:
    store = SweepStore(db)
    store.prepare()
    return store


def aside(parts: PartStore, count: int) -> tuple[ObjectId, list[Part]]:
    """A submission that was put aside."""
    submission = ObjectId()
    made = [
        Part(
            tasks=[encoded({"_id": ObjectId(), "name": f"task {number}", "inputs": {"c.x": number, "": None}})],
            edges=[Edge(parent=ObjectId(), child=ObjectId(), on="any", owner="alice")],
            parents=[ObjectId()],
            claimable={"k": 1},
            ended=[ObjectId()],
            unpromoted=[ObjectId()],
            given=[ObjectId()],
        )
        for number in range(count)
    ]
    for number, part in enumerate(made):
        parts.put_aside(submission, number, part)
    return submission, made


def test_parts_are_taken_in_order_and_each_once(parts: PartStore) -> None:
    submission, made = aside(parts, 3)
    children = [ObjectId()]
    parts.accept(submission, 3, children, NOW)
    taken: list[Part | None] = []
    while (found := parts.find(submission)) is not None:
        assert (found["next"], found["count"], found["children"]) == (len(taken), 3, children)
        taken.append(parts.take(found, NOW))
        assert parts.take(found, NOW) is None
    assert taken == made
    assert parts.pending([submission]) == set()


def test_ids_are_promised_from_the_acceptance_on_until_their_tasks_are_made(parts: PartStore) -> None:
    submission, made = aside(parts, 2)
    ids = [id for part in made for id in part.given]
    assert parts.promised(ids) == set()
    parts.accept(submission, 2, [], NOW)
    assert parts.promised([*ids, ObjectId()]) == set(ids)
    parts.take(parts.find(submission) or {}, NOW)
    assert parts.promised(ids) == {ids[1]}
    parts.take(parts.find(submission) or {}, NOW)
    assert parts.promised(ids) == set()


def test_a_submission_is_not_accepted_without_all_its_parts(parts: PartStore) -> None:
    submission, _ = aside(parts, 2)
    with pytest.raises(Conflict, match="send it again"):
        parts.accept(submission, 3, [], NOW)
    assert parts.find(submission) is None


def test_what_was_accepted_and_rests_is_interrupted_and_what_never_was_is_remains(parts: PartStore) -> None:
    accepted, _ = aside(parts, 2)
    parts.accept(accepted, 2, [], NOW)
    never, _ = aside(parts, 1)
    later = datetime.now(UTC) + timedelta(hours=1)
    assert parts.interrupted(NOW) == []
    assert parts.interrupted(NOW + timedelta(seconds=1)) == [accepted]
    assert parts.remains(NOW) == []
    assert parts.remains(later) == [never]
    parts.drop([never])
    assert parts.remains(later) == []
    found = parts.find(accepted)
    assert found is not None
    parts.take(found, NOW + timedelta(hours=1))
    assert parts.interrupted(NOW + timedelta(seconds=1)) == []


def store_points(db: Db, sweep: ObjectId, count: int) -> None:
    points = [{"_id": ObjectId(), "sweep": sweep, "index": index, "state": "available"} for index in range(count)]
    TaskStore(db).insert([encoded(point) for point in points])


def test_tasks_of_a_sweep_are_read_in_batches_by_index(db: Db, sweeps: SweepStore) -> None:
    sweep, other = ObjectId(), ObjectId()
    store_points(db, sweep, 1500)
    store_points(db, other, 1)
    db["tasks"].insert_one({"_id": ObjectId()})
    ended = list(sweeps.indexes(each["_id"] for each in db["tasks"].find(points_of(sweep)).sort("_id")))[::2]
    db["tasks"].update_many({"_id": {"$in": ended}}, {"$set": {"state": "terminated"}})
    batches = list(sweeps.batches(sweep, {}))
    assert [len(batch) for batch in batches] == [1000, 500]
    found = [id for batch in batches for id in batch]
    indexes = sweeps.indexes(found)
    assert [indexes[id] for id in found] == list(range(1500))
    assert sorted(id for batch in sweeps.batches(sweep, {"state": "terminated"}) for id in batch) == sorted(ended)
    assert sweeps.count(sweep, {"state": "terminated"}) == 750
    assert sweeps.count(sweep, {}) == 1500


def test_a_batch_may_be_changed_before_the_next_is_read(db: Db, sweeps: SweepStore) -> None:
    sweep = ObjectId()
    store_points(db, sweep, 1500)
    seen = 0
    for batch in sweeps.batches(sweep, {"state": "available"}):
        db["tasks"].update_many({"_id": {"$in": batch}}, {"$set": {"state": "b"}})
        seen += len(batch)
    assert seen == 1500


def test_a_sweep_is_retried_by_one_at_a_time(sweeps: SweepStore) -> None:
    sweep = ObjectId()
    sweeps.insert({"_id": sweep, "count": 1})
    assert sweeps.begin_retry(sweep, NOW)
    assert not sweeps.begin_retry(sweep, NOW)
    assert sweeps.interrupted_retries(NOW) == []
    assert [each["_id"] for each in sweeps.interrupted_retries(NOW + timedelta(seconds=1))] == [sweep]
    sweeps.go_on_retrying(sweep, NOW + timedelta(seconds=2))
    assert sweeps.interrupted_retries(NOW + timedelta(seconds=1)) == []
    sweeps.end_retry(sweep)
    sweeps.go_on_retrying(sweep, NOW)
    assert sweeps.interrupted_retries(NOW + timedelta(seconds=9)) == []
    assert sweeps.begin_retry(sweep, NOW)
    sweeps.delete(sweep)
    assert sweeps.load(sweep) is None
    assert not sweeps.begin_retry(sweep, NOW)
