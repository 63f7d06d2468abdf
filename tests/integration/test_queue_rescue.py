"""What servers mend by themselves, whoever left it, and however many of them do so at once."""

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from banyan.config import Leases
from banyan.domain.continuations import Edge
from banyan.queue.audit import Audit
from banyan.queue.claim import claim
from banyan.queue.context import Context
from banyan.queue.grant import claim_one
from banyan.queue.register import leave
from banyan.queue.rescue import complete_reports, expire_leases, looking_seconds, rescue
from banyan.storage.files import Quota
from banyan.storage.parts import Part
from banyan.storage.workers import LOST
from tests.support.adding_up import faults
from tests.support.clock import Ahead, moved
from tests.support.queue import SimulatedWorker, after, context_of, post, states, task

QUOTA = Quota(max_file_bytes=1000, max_attempt_bytes=1000, max_files=10)
PATIENCE = 31
"""Seconds after which an interrupted use case counts as that."""


@pytest.fixture
def clock(context: Context) -> Ahead:
    return moved(context.storage)


def unrecorded(context: Context) -> tuple[ObjectId, SimulatedWorker]:
    """A task in whose claim a server died before it recorded the attempt, and its worker."""
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    worker.claim()
    context.storage.db["executions"].delete_many({"task": id})
    return id, worker


def test_a_claim_that_was_interrupted_is_undone_although_its_worker_lives(context: Context, clock: Ahead) -> None:
    """A worker that claims by hand never asks again."""
    id, worker = unrecorded(context)
    complete_reports(context)
    assert states(context, [id]) == ["running"]
    clock.seconds += PATIENCE
    context.storage.workers.renew(worker.id, context.now())
    complete_reports(context)
    assert states(context, [id]) == ["available"]
    assert context.storage.tasks.load([id])[id].attempt_count == 0


def test_a_claim_of_a_lost_worker_that_was_interrupted_is_undone_at_once(context: Context) -> None:
    id, worker = unrecorded(context)
    context.storage.workers.move(worker.id, LOST, context.now())
    complete_reports(context)
    assert states(context, [id]) == ["available"]


def test_what_a_lost_worker_held_is_freed_at_once_and_what_one_that_left_will_tell_is_not(
    context: Context, clock: Ahead
) -> None:
    lost, left = post(context, task(), task())
    workers = [SimulatedWorker(context), SimulatedWorker(context)]
    for worker in workers:
        worker.claim(1)
    context.storage.workers.move(workers[0].id, LOST, context.now())
    leave(context, workers[1].id, finished=list(workers[1].held))
    complete_reports(context)
    assert states(context, [lost, left]) == ["available", "running"]
    clock.seconds += 46
    complete_reports(context)
    assert states(context, [lost, left]) == ["available", "available"]


def test_with_the_default_settings_a_silent_workers_task_is_available_within_a_minute(
    context: Context, clock: Ahead
) -> None:
    """Whenever it falls silent between two looks; all of it in MongoDB's time."""
    between = looking_seconds(context.settings.leases)
    expire_leases(context)
    (id,) = post(context, task(max_retry_count=0))
    SimulatedWorker(context).claim()
    begun = clock.seconds
    while states(context, [id]) == ["running"]:
        clock.seconds += between
        expire_leases(context)
        assert clock.seconds - begun <= 60 - between
    assert clock.seconds - begun >= context.settings.leases.lost_after
    assert context.storage.tasks.load([id])[id].retry_count == 0


def test_a_worker_keeps_the_lease_that_it_was_told_when_leases_become_shorter(context: Context, clock: Ahead) -> None:
    (id,) = post(context, task())
    SimulatedWorker(context).claim()
    leases = Leases(lost_after=6, heartbeat=2)
    shorter = replace(context, settings=context.settings.model_copy(update={"leases": leases}))
    for seconds in (0, *[1] * 44):
        clock.seconds += seconds
        expire_leases(shorter)
        assert states(context, [id]) == ["running"], clock.seconds
    for _ in range(3):
        clock.seconds += 1
        expire_leases(shorter)
    assert states(context, [id]) == ["available"]


def test_a_claim_that_is_recorded_twice_is_recorded_once(context: Context) -> None:
    """A server that was slow records an attempt after the repeated claim has."""
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    ask = worker.ask(1)
    (grant,) = claim(context, worker.id, ask).tasks
    record = context.storage.executions.load([grant["execution"]])[grant["execution"]]
    context.storage.executions.begin([record])
    assert [each["_id"] for each in claim(context, worker.id, ask).tasks] == [id]
    assert len(context.storage.executions.of_task(id)) == 1


def test_a_task_can_be_claimed_by_hand(context: Context) -> None:
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    granted = claim_one(context, worker.id, id)
    assert context.storage.executions.of_task(id)[0]["_id"] == granted["execution"]


def test_a_count_that_drifted_is_corrected_once_it_is_sure_to_be_wrong(context: Context) -> None:
    parent, other = post(context, task(state="inactive"), task(state="inactive"))
    (child,) = post(context, task(dependencies=after(parent, other)))

    def count() -> int:
        return int(context.storage.tasks.documents([child])[child]["pending_dependency_count"])

    context.storage.db["tasks"].update_one({"_id": child}, {"$set": {"pending_dependency_count": 7}})
    audit = Audit(context)
    audit.look()
    assert count() == 7
    context.storage.db["tasks"].update_one({"_id": child}, {"$set": {"pending_dependency_count": 5}})
    audit.look()  # something is under way
    assert count() == 5
    audit.look()
    audit.look()
    assert count() == 2


def test_an_edge_whose_parent_is_gone_is_settled(context: Context) -> None:
    wants_success, wants_any = post(context, task(state="inactive"), task(state="inactive"))
    gone = ObjectId()
    edges = [Edge(parent=gone, child=wants_success), Edge(parent=gone, child=wants_any, on="any")]
    context.storage.edges.insert(edges)
    Audit(context).look()
    assert states(context, [wants_success, wants_any]) == ["cancelled", "available"]
    assert context.storage.tasks.load([wants_success])[wants_success].cancelled_by == {"task": gone}
    assert faults(context) == []


def test_edges_that_come_before_their_tasks_are_left_alone(context: Context) -> None:
    """Those of a submission that is being made, and that by which a sweep that is retried holds its barrier."""
    (child, barrier) = post(context, task(state="inactive"), task(state="inactive"))
    sweep: dict[str, Any] = {"_id": ObjectId(), "retrying": context.now(), "owner": "alice"}
    context.storage.sweeps.insert(sweep)
    context.storage.edges.insert([Edge(parent=sweep["_id"], child=barrier, on="any")])
    unit = ObjectId()
    context.storage.edges.insert([Edge(parent=ObjectId(), child=child)])
    context.storage.parts.put_aside(unit, 0, Part())
    context.storage.parts.accept(unit, 1, [], context.now())
    Audit(context).look()
    assert states(context, [child, barrier]) == ["inactive", "inactive"]
    context.storage.db["submissions"].delete_many({})
    Audit(context).look()
    assert states(context, [child, barrier]) == ["cancelled", "inactive"]


def test_an_end_that_nobody_settled_and_a_child_that_nobody_promoted_are_found(context: Context) -> None:
    (parent,) = post(context, task())
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end()
    one, other = post(context, task(state="inactive"), task(state="inactive"))
    context.storage.edges.insert([Edge(parent=parent, child=one)])
    context.storage.edges.insert([Edge(parent=parent, child=other, settled=True, satisfied=True)])
    Audit(context).look()
    assert states(context, [one, other]) == ["available", "available"]
    assert faults(context) == []


def test_an_attempt_of_no_task_goes_or_ends(context: Context, clock: Ahead) -> None:
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    worker.claim()
    stray: dict[str, Any] = {"worker": worker.id, "time_claimed": context.now(), "attempt": 2}
    never, begun, nobodys = ObjectId(), ObjectId(), ObjectId()
    begun_at = {"time_started": context.now(), "last_update": context.now()}
    context.storage.executions.begin([{**stray, "_id": never, "task": id}])
    context.storage.executions.begin([{**stray, "_id": begun, "task": id, "attempt": 3, **begun_at}])
    context.storage.executions.begin([{**stray, "_id": nobodys, "task": ObjectId(), **begun_at}])
    Audit(context).look()
    assert len(context.storage.executions.open(0, 10)) == 4
    clock.seconds += PATIENCE
    Audit(context).look()
    found = context.storage.executions.load([never, begun, nobodys])
    assert {each: record["exit_status"] for each, record in found.items()} == dict.fromkeys(
        [begun, nobodys], "abandoned (worker unreachable)"
    )
    assert states(context, [id]) == ["running"]


def test_pages_follow_each_other_until_everything_was_looked_at(context: Context) -> None:
    children = post(context, *[task(state="inactive")] * 7)
    context.storage.edges.insert([Edge(parent=ObjectId(), child=child, on="any") for child in children])
    audit = Audit(context, page=3)
    for ready in (3, 6, 7):
        audit.look()
        assert states(context, children).count("available") == ready
    late = post(context, task(state="inactive"))
    context.storage.edges.insert([Edge(parent=ObjectId(), child=late[0], on="any")])
    for _ in range(4):
        audit.look()
    assert states(context, late) == ["available"]


def test_what_interrupted_uploads_left_goes_and_nothing_else(context: Context, clock: Ahead) -> None:
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    worker.claim()
    (execution,) = worker.held
    files, db = context.storage.files, context.storage.db

    def put(path: str, execution: ObjectId, *pieces: bytes) -> None:
        offset = 0
        for piece in pieces:
            files.append(execution, path, offset, piece, QUOTA, context.now())
            offset += len(piece)

    put("good", execution, b"one", b"two")
    put("of no attempt", ObjectId(), b"bad")
    for path in ("piece", "bytes"):
        put(path, execution, b"bad")
        head = db["files"].find_one_and_delete({"path": path}) or {}
        if path == "bytes":
            db["file_segments.files"].delete_many({"metadata.file": head["_id"]})
    beyond = files.find(execution, "good")
    assert beyond is not None
    db["file_segments.files"].insert_one(
        {"metadata": {"file": beyond.id, "generation": beyond.generation, "offset": 6, "end": 9}, "length": 3}
    )
    before = faults(context)
    assert len(before) >= 4
    Audit(context).look()
    assert faults(context) == before
    clock.seconds += 3700
    context.storage.workers.renew(worker.id, context.now())
    Audit(context).look()
    assert faults(context) == []
    found = files.find(execution, "good")
    assert found is not None
    assert b"".join(files.read(found, 0, found.size)) == b"onetwo"
    assert states(context, [id]) == ["running"]


def test_many_servers_mend_the_same_at_once(context: Context) -> None:
    """Each task ends up as it should, once, whoever did it."""
    parents = post(context, *[task() for _ in range(40)])
    children = post(context, *[task(dependencies=after(parent)) for parent in parents])
    worker, silent = SimulatedWorker(context), SimulatedWorker(context)
    worker.claim(20)
    silent.claim(20)
    long_ago = context.now() - timedelta(minutes=5)
    ending = {"exit_status": "success", "time_terminated": long_ago}
    context.storage.executions.end(dict.fromkeys(worker.held, ending), long_ago)
    context.storage.db["workers"].update_one({"_id": silent.id}, {"$set": {"last_seen": long_ago}})
    leases = {"since": long_ago - timedelta(days=1), "watched": context.now()}
    context.storage.db["meta"].update_one({"_id": "leases"}, {"$set": leases}, upsert=True)
    context.storage.db["tasks"].update_many({"_id": {"$in": children}}, {"$inc": {"pending_dependency_count": 1}})
    servers = [context_of(context.storage) for _ in range(6)]

    def mend(server: Context) -> None:
        audit = Audit(server)
        for _ in range(3):
            rescue(server)
            audit.look()

    threads = [threading.Thread(target=mend, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    audit = Audit(context)
    audit.look()
    audit.look()
    assert faults(context) == []
    assert sorted(states(context, parents)) == ["available"] * 20 + ["terminated"] * 20
    assert sorted(states(context, children)) == ["available"] * 20 + ["inactive"] * 20
    lost = [context.storage.tasks.load([grant["_id"]])[grant["_id"]] for grant in silent.held.values()]
    assert {(each.abandoned_count, each.retry_count) for each in lost} == {(1, 0)}
    assert SimulatedWorker(context).run_all() == 60
    assert faults(context) == []
