"""Edges, attempts, workers, queues and facts about the whole: what each store promises."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError

from banyan.domain.continuations import Edge
from banyan.storage.edges import FEW, EdgeStore
from banyan.storage.executions import ExecutionStore
from banyan.storage.forget import Directory, ForgetStore
from banyan.storage.memory import MemoryStore
from banyan.storage.meta import MetaStore
from banyan.storage.models import NONE_YET, ModelStore
from banyan.storage.queues import QueueStore
from banyan.storage.workers import DRAINING, GONE, LOST, WorkerStore

NOW = datetime(2024, 5, 1, tzinfo=UTC)
TODAY = datetime.now(UTC).replace(microsecond=0)
"""For what the database itself removes when it is old."""

Db = Database[dict[str, Any]]


@pytest.fixture
def edges(db: Db) -> EdgeStore:
    store = EdgeStore(db)
    store.prepare()
    return store


@pytest.fixture
def executions(db: Db) -> ExecutionStore:
    store = ExecutionStore(db)
    store.prepare()
    return store


@pytest.fixture
def workers(db: Db) -> WorkerStore:
    store = WorkerStore(db)
    store.prepare()
    return store


@pytest.fixture
def models(db: Db) -> ModelStore:
    store = ModelStore(db)
    store.prepare()
    return store


def test_default_inputs_are_replaced_whole_and_have_any_names(models: ModelStore) -> None:
    assert models.load() == {}
    models.set_defaults("sum", {"x": 1, "y": 2}, NOW)
    odd = {"c.x": 1, "$ref": {"$id": [None]}, "": float("inf"), "🌳": {}}
    models.set_defaults("sum", odd, NOW)
    models.set_defaults("a.b/c", {"z": 3}, NOW)
    assert models.load(["sum"])["sum"]["defaults"] == odd
    assert models.load(["sum", "none"]).keys() == {"sum"}
    assert models.load().keys() == {"sum", "a.b/c"}


def test_default_inputs_change_only_at_the_revision_that_is_named(models: ModelStore) -> None:
    first = models.set_defaults("sum", {"x": 1}, NOW, NONE_YET)
    assert first is not None
    assert models.set_defaults("sum", {"x": 2}, NOW, NONE_YET) is None
    second = models.set_defaults("sum", {"x": 3}, NOW, first["_etag"])
    assert second is not None
    assert models.set_defaults("sum", {"x": 4}, NOW, first["_etag"]) is None
    assert models.set_defaults("other", {"x": 5}, NOW, first["_etag"]) is None
    kept = models.load()
    assert {name: (each["defaults"], each["_etag"]) for name, each in kept.items()} == {
        "sum": ({"x": 3}, second["_etag"])
    }


def test_an_edge_is_settled_once_and_for_all(edges: EdgeStore) -> None:
    edge = Edge(parent=ObjectId(), child=ObjectId())
    edges.insert([edge])
    assert edges.settle([edge], True) == 1
    assert edges.settle([edge], False) == 0
    (found,) = edges.of_children([edge.child])
    assert (found.settled, found.satisfied) == (True, True)


def test_two_tasks_have_one_edge_at_most(edges: EdgeStore) -> None:
    parent, child = ObjectId(), ObjectId()
    edges.insert([Edge(parent=parent, child=child)])
    with pytest.raises(BulkWriteError):
        edges.insert([Edge(parent=parent, child=child)])


def test_a_child_waits_until_its_last_edge_is_settled(edges: EdgeStore) -> None:
    child, free = ObjectId(), ObjectId()
    mine = [Edge(parent=ObjectId(), child=child) for _ in range(3)]
    edges.insert(mine)
    assert edges.pending_counts([child, free]) == {child: 3, free: 0}
    edges.settle(mine[:2], True)
    assert edges.waiting([child, free]) == {child}
    edges.settle([mine[2]], False)
    assert edges.waiting([child, free]) == set()
    assert edges.broken([child, free]) == {child: mine[2].parent}


def test_an_edge_can_be_made_to_wait_again(edges: EdgeStore) -> None:
    edge = Edge(parent=ObjectId(), child=ObjectId())
    edges.insert([edge])
    edges.settle([edge], False)
    edges.unsettle([edge.id], None)
    (found,) = edges.of_parents([edge.parent])
    assert (found.settled, found.satisfied, found.life) == (False, None, 1)
    assert edges.unsettled([edge.parent], 10) == [found]


def test_an_end_of_an_earlier_life_settles_nothing(edges: EdgeStore) -> None:
    edge = Edge(parent=ObjectId(), child=ObjectId())
    edges.insert([edge])
    edges.unsettle([edge.id], None)
    assert edges.settle([edge], False) == 0
    assert edges.waiting([edge.child]) == {edge.child}


def test_edges_are_read_in_pages(edges: EdgeStore) -> None:
    parents = sorted(ObjectId() for _ in range(3))
    mine = [Edge(parent=parent, child=ObjectId()) for parent in parents for _ in range(4)]
    edges.insert(mine)
    read, last = [], None
    while page := edges.page_of_parents(parents[1:], last, 3):
        assert len(page) <= 3
        read += page
        last = page[-1]
    assert read == mine[4:]


def test_edges_that_are_not_settled_are_found_by_their_children(edges: EdgeStore) -> None:
    child, other = ObjectId(), ObjectId()
    made = [Edge(parent=ObjectId(), child=each) for each in (child, child, child, other)]
    edges.insert(made)
    edges.settle(made[:1], True)
    assert {edge.id for edge in edges.pending([child], 10)} == {edge.id for edge in made[1:3]}
    assert len(edges.pending([child, other], 2)) == 2


def test_children_with_few_parents_are_counted_and_those_with_many_left_out(edges: EdgeStore) -> None:
    fewest, none, many, last = sorted(ObjectId() for _ in range(4))
    number = {fewest: 1, none: 0, many: FEW, last: 2}
    mine = [Edge(parent=ObjectId(), child=child) for child, count in number.items() for _ in range(count)]
    edges.insert(mine)
    assert edges.few_pending(number) == {fewest: 1, none: 0, last: 2}
    edges.settle(mine[1:2], True)
    assert edges.few_pending(number) == {fewest: 1, none: 0, many: FEW - 1, last: 2}
    assert edges.few_pending([]) == {}


def test_who_ends_an_attempt_first_is_right(executions: ExecutionStore) -> None:
    one, two = ObjectId(), ObjectId()
    executions.begin([{"_id": one, "task": ObjectId()}, {"_id": two, "task": ObjectId()}])
    end = {"exit_status": "success", "time_terminated": NOW}
    late = {"exit_status": "abandoned (worker unreachable)", "time_terminated": NOW}
    assert executions.end({one: end}, NOW) == {one}
    assert executions.end({one: late, two: late}, NOW) == {two}
    found = executions.load([one, two])
    assert (found[one]["exit_status"], found[two]["exit_status"]) == ("success", "abandoned (worker unreachable)")


def test_an_ended_attempt_never_changes(executions: ExecutionStore) -> None:
    attempt = ObjectId()
    executions.begin([{"_id": attempt, "task": ObjectId()}])
    executions.end({attempt: {"exit_status": "success", "time_terminated": NOW}}, NOW)
    before = executions.load([attempt])
    executions.update({attempt: {"progress": {"fraction": 0.1}}}, NOW)
    executions.withdraw([attempt])
    assert executions.load([attempt]) == before


def test_the_latest_attempt_of_a_task_is_found(executions: ExecutionStore) -> None:
    task = ObjectId()
    assert executions.last_of(task) is None
    executions.begin([{"_id": ObjectId(), "task": task, "attempt": number} for number in (1, 3, 2)])
    assert (executions.last_of(task) or {})["attempt"] == 3


def test_an_attempt_that_never_started_leaves_no_trace(executions: ExecutionStore) -> None:
    attempt = ObjectId()
    executions.begin([{"_id": attempt, "task": ObjectId()}])
    executions.withdraw([attempt])
    assert executions.load([attempt]) == {}


def register(workers: WorkerStore, last_seen: datetime = NOW) -> ObjectId:
    id = ObjectId()
    workers.register({"_id": id, "name": "node", "state": "active", "last_seen": last_seen})
    return id


def test_a_lost_worker_cannot_renew_its_lease(workers: WorkerStore) -> None:
    id = register(workers)
    assert workers.renew(id, NOW + timedelta(seconds=1)) is not None
    assert workers.move(id, LOST, NOW)
    assert workers.renew(id, NOW) is None
    assert not workers.move(id, GONE, NOW)


def test_a_worker_that_was_heard_of_meanwhile_is_not_lost(workers: WorkerStore) -> None:
    id = register(workers, NOW)
    before = NOW + timedelta(seconds=5)
    assert workers.silent_since(before) == [id]
    workers.renew(id, NOW + timedelta(seconds=10))
    assert not workers.move(id, LOST, NOW, only_silent_since=before)
    assert workers.silent_since(before) == []


def test_of_workers_that_are_lost_or_gone_those_heard_of_last_come_first(workers: WorkerStore) -> None:
    ids = [register(workers, NOW + timedelta(seconds=seconds)) for seconds in (1, 3, 2, 4)]
    for id, state in zip(ids, (LOST, GONE, LOST, DRAINING), strict=True):
        assert workers.move(id, state, NOW)
    assert [worker["_id"] for worker in workers.latest_lost(2)] == [ids[1], ids[2]]


def test_a_draining_worker_can_become_active_again(workers: WorkerStore) -> None:
    id = register(workers)
    workers.renew(id, NOW, {"drain_told": "request"})
    assert workers.move(id, DRAINING, NOW)
    document = workers.load(id)
    assert document is not None
    assert (document["state"], document["drain_told"]) == ("draining", None)


@pytest.fixture
def forget(db: Db) -> ForgetStore:
    store = ForgetStore(db)
    store.prepare()
    return store


def test_a_worker_is_told_what_to_forget_until_it_says_that_it_has(forget: ForgetStore) -> None:
    worker, task, other = {"_id": ObjectId()}, ObjectId(), ObjectId()
    mine = [Directory(worker=worker["_id"], task=task), Directory(worker=worker["_id"], task=other, up_to=2)]
    forget.note([*mine, *mine, Directory(worker=ObjectId(), task=ObjectId())], TODAY)
    forget.note(mine, TODAY)
    names = {str(task), f"{other}/2"}
    assert set(forget.tell(worker, TODAY)) == names
    assert forget.tell(worker, TODAY + timedelta(seconds=29)) == []  # the answer may be on its way
    assert set(forget.tell(worker, TODAY + timedelta(seconds=31))) == names
    forget.done(worker, [str(task), str(other), "nonsense", ""])
    assert forget.tell(worker, TODAY + timedelta(hours=1)) == [f"{other}/2"]
    forget.done(worker, [f"{other}/2"])
    assert forget.tell(worker, TODAY + timedelta(hours=2)) == []


def test_whoever_comes_after_a_worker_is_told_too_and_nobody_else(forget: ForgetStore) -> None:
    old, task = ObjectId(), ObjectId()
    forget.note([Directory(worker=old, task=task, place="ann/disk")], TODAY)
    for stranger in ({"_id": ObjectId()}, {"_id": ObjectId(), "place": "bob/disk"}):
        assert forget.tell(stranger, TODAY) == []
        forget.done(stranger, [str(task)])
    replacing, at_the_place = {"_id": ObjectId(), "replaced": [old]}, {"_id": ObjectId(), "place": "ann/disk"}
    assert forget.tell(replacing, TODAY) == [str(task)]
    assert forget.tell(at_the_place, TODAY + timedelta(minutes=1)) == [str(task)]
    forget.done(at_the_place, [str(task)])
    assert forget.tell(replacing, TODAY + timedelta(minutes=2)) == []


def test_what_another_process_has_noted_is_told_a_few_seconds_late(db: Db) -> None:
    now = 0.0
    here, elsewhere = ForgetStore(db, lambda: now), ForgetStore(db)
    worker, task = {"_id": ObjectId()}, ObjectId()
    assert here.tell(worker, TODAY) == []
    elsewhere.note([Directory(worker=worker["_id"], task=task)], TODAY)
    assert here.tell(worker, TODAY) == []
    now = 5.1
    assert here.tell(worker, TODAY) == [str(task)]


def test_the_directory_of_a_task_that_is_there_again_stays(forget: ForgetStore, db: Db) -> None:
    worker, task = {"_id": ObjectId()}, ObjectId()
    forget.note([Directory(worker=worker["_id"], task=task)], TODAY)
    db["tasks"].insert_one({"_id": task})
    assert forget.tell(worker, TODAY) == []
    db["tasks"].delete_one({"_id": task})
    assert forget.tell(worker, TODAY + timedelta(minutes=1)) == []


def test_the_default_queue_is_always_there_and_names_are_unique(db: Db) -> None:
    queues = QueueStore(db)
    queues.prepare()
    queues.prepare()
    assert queues.names() == {"default"}
    with pytest.raises(DuplicateKeyError):
        queues.add({"name": "default"})


def test_a_queue_changes_only_at_the_revision_that_was_read(db: Db) -> None:
    queues = QueueStore(db)
    queues.prepare()
    queue = queues.all()["default"]
    changed = queues.change(queue["_id"], {"paused": True}, NOW, revision=queue["_etag"])
    assert changed is not None
    assert changed["paused"] is True
    assert queues.change(queue["_id"], {"paused": False}, NOW, revision=queue["_etag"]) is None


def test_attempt_tokens_are_the_same_for_every_server_and_differ_by_attempt(db: Db) -> None:
    one, other = MetaStore(db), MetaStore(db)
    one.prepare()
    other.prepare()
    first, second = ObjectId(), ObjectId()
    assert one.attempt_token(first) == other.attempt_token(first) != one.attempt_token(second)
    assert one.token_matches(first, other.attempt_token(first))
    assert not one.token_matches(second, one.attempt_token(first))
    assert not one.token_matches(first, None)
    assert len(one.attempt_token(first)) * 4 >= 128


def test_leases_count_from_the_end_of_an_outage(db: Db) -> None:
    meta = MetaStore(db)
    outage = timedelta(seconds=15)
    start = meta.leases_count_from(NOW, outage)
    assert start == NOW
    assert meta.leases_count_from(NOW + timedelta(seconds=10), outage) == start
    back = NOW + timedelta(minutes=10)
    assert meta.leases_count_from(back, outage) == back
    assert meta.leases_count_from(back + timedelta(seconds=10), outage) == back


def test_a_sample_that_is_reported_twice_is_stored_once_and_samples_read_back_in_order(db: Db) -> None:
    memory = MemoryStore(db)
    memory.prepare()
    attempt = {"task": ObjectId(), "execution": ObjectId(), "resident_memory_bytes": 1}
    samples = [{**attempt, "time": NOW + timedelta(seconds=seconds)} for seconds in (0, 1, 2)]
    memory.add(samples[:2], NOW)
    memory.add(samples, NOW)
    stored = [document["time"] for document in db["memory_usage"].find().sort("_id")]
    assert stored == [sample["time"] for sample in samples]
