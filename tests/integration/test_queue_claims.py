"""Claims, reports and leases over the real MongoDB: who gets what, and whose word counts."""

import threading
import time
from collections import Counter
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from bson import ObjectId

from banyan.domain.line import Waiting
from banyan.domain.matching import Offer
from banyan.domain.resources import Resources
from banyan.errors import Conflict
from banyan.queue.cancel import cancel
from banyan.queue.choose import Ahead, Wanted, choose
from banyan.queue.claim import claim
from banyan.queue.context import Context
from banyan.queue.delete import delete
from banyan.queue.explain import explain
from banyan.queue.grant import grant_all
from banyan.queue.pool import Pool
from banyan.queue.register import change_state, leave, register
from banyan.queue.report import Report, report
from banyan.queue.rescue import complete_reports, expire_leases, rescue
from banyan.storage.files import Quota
from banyan.storage.mongo import Storage
from tests.support.queue import WORKERS, SimulatedWorker, after, context_of, post, states, task
from tests.support.waiting import eventually


def silence(context: Context, worker: SimulatedWorker, seconds: float) -> None:
    """Let a worker, and all watching servers but this one's next look, have been quiet for so long."""
    then = context.now() - timedelta(seconds=seconds)
    context.storage.db["workers"].update_one({"_id": worker.id}, {"$set": {"last_seen": then}})
    context.storage.db["meta"].update_one(
        {"_id": "leases"}, {"$set": {"since": then - timedelta(days=1), "watched": context.now()}}, upsert=True
    )


def asking(context: Context, worker: SimulatedWorker) -> bool:
    """Whether the worker has sent a claim."""
    return "claim_request" in (context.storage.workers.load(worker.id) or {})


def wants(context: Context, worker: SimulatedWorker, max_tasks: int = 1) -> Wanted:
    """A claim of the worker with all that it has free, as it comes into a round."""
    document = context.storage.workers.load(worker.id)
    assert document is not None
    offer = Offer.of(document)
    return Wanted(worker=document, offer=offer, free=offer.total, max_tasks=max_tasks, request=str(ObjectId()))


def worker_total(worker: SimulatedWorker) -> Resources:
    """All that a worker has."""
    return Resources.from_document(worker.resources)


def add_queue(context: Context, name: str, **fields: Any) -> None:
    """A new queue."""
    queue = {"name": name, "paused": False, "max_running": None, "weight": 1.0, "_etag": "1"}
    context.storage.queues.add({**queue, **fields})


def attempts(context: Context, id: ObjectId) -> list[dict[str, Any]]:
    return context.storage.executions.of_task(id)


def test_higher_priority_goes_first_then_age(context: Context) -> None:
    ids = post(context, *[task(priority=priority) for priority in (0, 5, 0, 9)])
    worker = SimulatedWorker(context)
    order = [worker.claim(1, free=Resources(millicores=1000)).tasks[0]["_id"] for _ in ids]
    assert order == [ids[3], ids[1], ids[0], ids[2]]


def test_priority_is_respected_across_classes(context: Context) -> None:
    wanted = [(1, 0), (2, 5), (1, 3), (2, 1)]
    ids = post(context, *[task(priority=p, requested_resources={"cores": c}) for c, p in wanted])
    worker = SimulatedWorker(context, resources={"cores": 2})
    order = [worker.claim(1).tasks[0]["_id"] for _ in ids]
    assert order == [ids[1], ids[2], ids[3], ids[0]]


def test_claims_of_one_round_each_get_the_next_best_task(context: Context) -> None:
    wanted = [(1, 0), (2, 5), (1, 3), (2, 1), (1, 3)]
    ids = post(context, *[task(priority=p, requested_resources={"cores": c}) for c, p in wanted])
    workers = [SimulatedWorker(context, resources={"cores": 2}) for _ in range(len(ids) + 1)]
    granted = grant_all(context, [wants(context, worker) for worker in workers])
    assert [[each["_id"] for each in got] for got in granted] == [[ids[n]] for n in (1, 2, 4, 3, 0)] + [[]]


def test_claims_of_one_round_share_the_room_of_a_queue_with_a_limit(context: Context) -> None:
    context.storage.db["queues"].update_one({"name": "default"}, {"$set": {"max_running": 3}})
    post(context, *[task() for _ in range(10)])
    granted = grant_all(context, [wants(context, SimulatedWorker(context), 2) for _ in range(3)])
    assert [len(got) for got in granted] == [2, 1, 0]


def test_claims_of_one_round_each_get_tasks_that_their_worker_may_have(context: Context) -> None:
    ids = post(context, *[task() for _ in range(4)])
    workers = [SimulatedWorker(context) for _ in range(2)]
    avoided = {"_id": {"$in": ids[:3]}}
    context.storage.db["tasks"].update_many(avoided, {"$set": {"avoid": [workers[0].id]}})
    granted = grant_all(context, [wants(context, worker, 2) for worker in workers])
    assert [[each["_id"] for each in got] for got in granted] == [[ids[3]], ids[:2]]


def test_in_a_crowd_of_servers_each_claim_of_a_round_gets_some_other_task(context: Context) -> None:
    ids = post(context, *[task() for _ in range(9)])
    claims = [wants(context, SimulatedWorker(context)) for _ in range(8)]
    pool = Pool(context, context.heads.current(context.storage.tasks.class_heads), len(claims), crowd=1)
    chosen = [each["_id"] for wanted in claims for each in choose(context, wanted, pool).tasks]
    assert len(set(chosen)) == len(claims)
    assert set(chosen) <= set(ids)


def test_only_what_fits_together_is_granted(context: Context) -> None:
    post(context, *[task(requested_resources={"cores": 2}) for _ in range(5)])
    worker = SimulatedWorker(context, resources={"cores": 5})
    assert len(worker.claim().tasks) == 2
    assert len(worker.claim(free=Resources(millicores=1000)).tasks) == 0


def test_labels_capabilities_and_queues_must_match(context: Context) -> None:
    plain, labelled, model = post(
        context, task(), task(requires={"os": "linux"}), task(command=None, model="sum", inputs={})
    )
    assert [g["_id"] for g in SimulatedWorker(context, queues=("other",)).claim().tasks] == []
    assert [g["_id"] for g in SimulatedWorker(context).claim().tasks] == [plain]
    linux = SimulatedWorker(context, labels={"os": "linux"})
    assert [g["_id"] for g in linux.claim().tasks] == [labelled]
    assert states(context, [model]) == ["available"]


def ahead(seconds: float = 2.0, cores: float = 2, **more: Any) -> Ahead:
    """A worker with room for so many seconds of work, of which a task of any class takes a tenth of one."""
    soon = Resources.from_document({"cores": cores})
    known: dict[str, Any] = {"seconds": seconds, "most": 1000, "other": 0.1, "soon": soon}
    return Ahead(**(known | more))


def test_as_much_is_granted_ahead_as_is_to_wait(context: Context) -> None:
    ids = post(context, *[task() for _ in range(30)])
    worker = SimulatedWorker(context, resources={"cores": 2})
    assert [each["_id"] for each in worker.claim(0, ahead=ahead()).tasks] == ids[:20]
    there = Waiting(turn=0.0, seconds=0.1, tasks=[(0, 20, str(ids[19]))])
    assert not worker.claim(0, ahead=ahead(waiting={"default": there})).tasks
    fewer = Waiting(turn=0.0, seconds=0.1, tasks=[(0, 15, str(ids[19]))])
    assert [each["_id"] for each in worker.claim(0, ahead=ahead(waiting={"default": fewer})).tasks] == ids[20:25]


def test_what_is_granted_ahead_has_the_order_of_priority_and_age_over_all_classes(context: Context) -> None:
    small = post(context, *[task(priority=priority) for priority in (0, 9, 5)])
    large = post(context, *[task(priority=priority, requested_resources={"cores": 2}) for priority in (7, 0, 9)])
    worker = SimulatedWorker(context, resources={"cores": 2})
    order = [small[1], large[2], large[0], small[2], small[0], large[1]]
    assert [each["_id"] for each in worker.claim(0, ahead=ahead()).tasks] == order


def test_what_comes_first_is_granted_to_a_worker_at_which_enough_waits(context: Context) -> None:
    worker = SimulatedWorker(context, resources={"cores": 2})
    ids = post(context, *[task() for _ in range(20)])
    worker.claim(0, ahead=ahead())
    there = {"default": Waiting(turn=0.0, seconds=0.1, tasks=[(0, 20, str(ids[-1]))])}
    post(context, *[task(priority=-1) for _ in range(5)])
    assert not worker.claim(0, ahead=ahead(waiting=there)).tasks
    urgent = post(context, *[task(priority=5) for _ in range(3)])
    assert [each["_id"] for each in worker.claim(0, ahead=ahead(waiting=there)).tasks] == urgent


def test_a_queue_that_comes_later_has_its_share_of_what_waits(context: Context) -> None:
    for name in ("a", "b"):
        add_queue(context, name, weight=3.0 if name == "a" else 1.0)
    worker = SimulatedWorker(context, resources={"cores": 2})
    first = post(context, *[task(queue="b") for _ in range(100)])
    worker.claim(0, ahead=ahead())
    there = {"b": Waiting(turn=5.0, seconds=0.1, tasks=[(0, 20, str(first[19]))])}
    post(context, *[task(queue="a") for _ in range(100)])
    granted = worker.claim(0, ahead=ahead(turn=5.0, turns={"b": 5.0}, waiting=there)).tasks
    assert Counter(each["queue"] for each in granted) == {"a": 15}
    assert {each["weight"] for each in granted} == {3.0}


def test_shares_hold_over_what_is_granted_ahead(context: Context) -> None:
    add_queue(context, "a", weight=3.0)
    add_queue(context, "b")
    post(context, *[task(queue=name) for name in "ab" for _ in range(100)])
    granted = SimulatedWorker(context, resources={"cores": 2}).claim(0, ahead=ahead()).tasks
    assert Counter(each["queue"] for each in granted) == {"a": 15, "b": 5}


def test_of_a_queue_with_a_limit_only_what_is_next_is_granted_ahead(context: Context) -> None:
    """Behind others it would hold a place that another worker could use; never granted ahead it would starve."""
    add_queue(context, "limited", max_running=5, weight=100)
    limited = post(context, *[task(queue="limited") for _ in range(10)])
    ids = post(context, *[task() for _ in range(3)])
    worker = SimulatedWorker(context, resources={"cores": 2})
    granted = [each["_id"] for each in worker.claim(0, ahead=ahead()).tasks]
    assert granted == [ids[0], limited[0], *ids[1:]]
    there = {"default": Waiting(turn=5.0, seconds=0.1, tasks=[(0, 20, str(ids[-1]))])}
    asked = ahead(turn=5.0, turns={"default": 5.0, "limited": 5.0}, waiting=there)
    assert [each["_id"] for each in worker.claim(0, ahead=asked).tasks] == [limited[1]]


def test_a_task_of_which_nobody_knows_how_long_it_takes_ends_the_line(context: Context) -> None:
    known, unknown, _ = post(context, task(), task(requires={"a": "b"}), task())
    key = context.storage.tasks.documents([known])[known]["task_class"]
    worker = SimulatedWorker(context, resources={"cores": 2}, labels={"a": "b"})
    asked = ahead(classes={key: 0.1}, other=None)
    assert [each["_id"] for each in worker.claim(0, ahead=asked).tasks] == [known]
    (urgent,) = post(context, task(requires={"a": "b"}, priority=1))
    there = {"default": Waiting(turn=0.0, seconds=0.1, tasks=[(0, 1, str(known))])}
    granted = worker.claim(0, ahead=ahead(classes={key: 0.1}, other=None, waiting=there)).tasks
    assert [each["_id"] for each in granted] == [urgent]
    assert states(context, [unknown]) == ["available"]


def test_what_does_not_fit_soon_is_passed_over_until_it_has_waited_long(context: Context) -> None:
    (wide,) = post(context, task(requested_resources={"cores": 4}))
    small = post(context, *[task() for _ in range(3)])
    worker = SimulatedWorker(context, resources={"cores": 4})
    assert [each["_id"] for each in worker.claim(0, ahead=ahead(cores=1)).tasks] == small
    post(context, *[task() for _ in range(3)])
    long_ago = context.now() - timedelta(seconds=60)
    context.storage.db["tasks"].update_one({"_id": wide}, {"$set": {"time_available": long_ago}})
    assert not worker.claim(0, ahead=ahead(cores=1)).tasks


def test_tasks_whose_requests_are_alike_share_a_class_and_are_granted_exactly(context: Context) -> None:
    sizes = [10_000_000 + n for n in range(50)]
    ids = post(context, *[task(requested_resources={"cores": 1, "memory": size}) for size in sizes])
    assert len({each["task_class"] for each in context.storage.tasks.documents(ids).values()}) == 1
    worker = SimulatedWorker(context, resources={"cores": 1000, "memory": sizes[20]})
    assert [each["_id"] for each in worker.claim(1, free=worker_total(worker)).tasks] == ids[:1]
    worker.end()
    held = worker.run_all()
    assert held == 20
    assert states(context, ids[21:]) == ["available"] * 29


def test_twenty_workers_claiming_at_once_give_each_task_one_attempt(context: Context) -> None:
    ids = post(context, *[task() for _ in range(2000)])
    workers = [SimulatedWorker(context, resources={"cores": 10}) for _ in range(20)]
    taken: list[ObjectId] = []
    empty: Counter[ObjectId] = Counter()

    def work(worker: SimulatedWorker) -> None:
        while context.storage.tasks.count({"state": {"$nin": ["terminated"]}}):
            news = worker.claim(10)
            empty[worker.id] += not news.tasks
            taken.extend(grant["_id"] for grant in news.tasks)
            worker.end()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(taken) == Counter(ids)
    assert context.storage.db["executions"].count_documents({}) == 2000
    assert set(states(context, ids)) == {"terminated"}


def test_a_repeated_request_gets_the_same_answer(context: Context) -> None:
    post(context, *[task() for _ in range(5)])
    worker = SimulatedWorker(context)
    ask = worker.ask(3)
    first = claim(context, worker.id, ask).tasks
    again = claim(context, worker.id, ask).tasks
    assert len(first) == 3
    assert sorted(first, key=lambda g: str(g["_id"])) == sorted(again, key=lambda g: str(g["_id"]))


def test_a_repeated_request_may_overtake_the_one_that_a_stopped_server_still_has(context: Context) -> None:
    """Between its two writes the first server stops; the repetition records the attempts, then the first goes on."""
    post(context, *[task() for _ in range(2)])
    worker = SimulatedWorker(context)
    granted = claim(context, worker.id, worker.ask(2)).tasks
    records = context.storage.executions.load(grant["execution"] for grant in granted)
    context.storage.executions.update({id: {"progress": {"fraction": 0.5}} for id in records}, context.now())
    context.storage.executions.begin([*records.values(), {**records[granted[0]["execution"]], "_id": ObjectId()}])
    kept = context.storage.executions.load(records)
    assert [record["progress"] for record in kept.values()] == [{"fraction": 0.5}] * 2
    assert context.storage.db["executions"].count_documents({}) == 3


def test_a_claim_whose_answer_was_lost_strands_nothing(context: Context) -> None:
    ids = post(context, *[task() for _ in range(3)])
    worker = SimulatedWorker(context)
    claim(context, worker.id, worker.ask(3))
    granted = worker.claim(3).tasks
    assert sorted(str(grant["_id"]) for grant in granted) == sorted(map(str, ids))
    assert [grant["attempt"] for grant in granted] == [1, 1, 1]
    assert [len(attempts(context, id)) for id in ids] == [1, 1, 1]


def test_a_claim_whose_answer_is_still_on_its_way_keeps_what_it_was_granted(context: Context) -> None:
    post(context, *[task() for _ in range(3)])
    worker = SimulatedWorker(context)
    first = worker.ask(2)
    granted = claim(context, worker.id, first).tasks
    second = worker.claim(2, unanswered=frozenset([first.request])).tasks
    assert len(second) == 1
    worker.held |= {grant["execution"]: grant for grant in granted}
    worker.end()
    assert context.storage.db["executions"].count_documents({"exit_status": "success"}) == 3


def test_a_claim_that_a_server_died_in_is_mended_by_the_next_one(context: Context) -> None:
    """The task was written as running, its attempt was not."""
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    ask = worker.ask(1)
    claim(context, worker.id, ask)
    context.storage.db["executions"].delete_many({})
    (grant,) = claim(context, worker.id, ask).tasks
    assert attempts(context, id)[0]["_id"] == grant["execution"]
    context.storage.db["executions"].delete_many({})
    (granted,) = worker.claim(1).tasks
    assert granted["execution"] != grant["execution"]


def test_a_repeated_report_is_accepted_and_changes_nothing(context: Context) -> None:
    (id,) = post(context, task(max_retry_count=1))
    worker = SimulatedWorker(context)
    worker.claim()
    (execution,) = worker.held
    said = [Report(execution=execution, exit_status="failure (exit code 1)")]
    assert report(context, said).accepted == [execution]
    worker.held.clear()
    (second,) = worker.claim().tasks
    assert report(context, said).accepted == [execution]
    assert states(context, [id]) == ["running"]
    document = context.storage.tasks.documents([id])[id]
    assert (document["retry_count"], document["execution"]) == (1, second["execution"])


def test_a_late_report_of_a_lost_worker_changes_nothing(context: Context) -> None:
    (id,) = post(context, task())
    ghost = SimulatedWorker(context)
    ghost.claim()
    (execution,) = ghost.held
    silence(context, ghost, 46)
    expire_leases(context)
    assert states(context, [id]) == ["available"]
    worker = SimulatedWorker(context)
    worker.claim()
    assert report(context, [Report(execution=execution, exit_status="success")]).stale == [execution]
    assert states(context, [id]) == ["running"]
    worker.end("failure (exit code 1)")
    first, second = attempts(context, id)
    assert first["exit_status"] == "abandoned (worker unreachable)"
    assert second["exit_status"] == "failure (exit code 1)"
    assert context.storage.tasks.documents([id])[id]["abandoned_count"] == 1
    with pytest.raises(Conflict, match="register anew"):
        ghost.claim()


def test_a_worker_that_was_heard_of_in_time_keeps_what_it_holds(context: Context) -> None:
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    worker.claim()
    silence(context, worker, 44)
    expire_leases(context)
    assert states(context, [id]) == ["running"]


def test_after_an_outage_of_all_servers_leases_start_anew(context: Context) -> None:
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    worker.claim()
    silence(context, worker, 600)
    context.storage.db["meta"].update_one(
        {"_id": "leases"}, {"$set": {"watched": context.now() - timedelta(seconds=590)}}
    )
    expire_leases(context)
    assert states(context, [id]) == ["running"]


def test_a_task_that_outlived_five_workers_is_failed(context: Context) -> None:
    (id,) = post(context, task(max_retry_count=9))
    for _ in range(5):
        worker = SimulatedWorker(context)
        worker.claim()
        leave(context, worker.id)
    assert states(context, [id]) == ["terminated"]
    document = context.storage.tasks.documents([id])[id]
    assert document["exit_status"] == "abandoned (worker unreachable)"
    assert (document["retry_count"], document["abandoned_count"]) == (0, 5)
    said = "it has ended: abandoned (worker unreachable); it was lost 5 times, and is not tried again by itself"
    assert explain(context, id)["summary"] == said


def test_a_replaced_worker_loses_all_but_what_is_in_its_spool(context: Context) -> None:
    done, running = post(context, task(), task())
    old = SimulatedWorker(context)
    old.claim()
    finished = next(e for e, grant in old.held.items() if grant["_id"] == done)
    document = {"name": "new", "host": "test", "resources": {"cores": 1}, "replaces": old.id, "finished": [finished]}
    register(context, document, WORKERS)
    assert states(context, [done, running]) == ["running", "available"]
    assert report(context, [Report(execution=finished, exit_status="success")]).accepted == [finished]
    assert states(context, [done]) == ["terminated"]


def test_a_report_that_was_interrupted_is_completed(context: Context) -> None:
    """A server died between the end of the attempt and the end of its task."""
    (id,) = post(context, task())
    (child,) = post(context, task(dependencies=after(id)))
    worker = SimulatedWorker(context)
    worker.claim()
    (execution,) = worker.held
    long_ago = context.now() - timedelta(minutes=5)
    ending = {"exit_status": "success", "time_terminated": long_ago, "last_update": long_ago}
    context.storage.db["executions"].update_one({"_id": execution}, {"$set": ending})
    complete_reports(context)
    assert states(context, [id, child]) == ["terminated", "available"]


def test_a_running_task_is_cancelled_through_its_worker(context: Context) -> None:
    (id,) = post(context, task(max_retry_count=5))
    worker = SimulatedWorker(context)
    worker.claim()
    (execution,) = worker.held
    cancel(context, [id], {"user": "alice"})
    assert states(context, [id]) == ["pending_cancellation"]
    assert worker.claim(0).cancel == [execution]
    assert worker.claim(0, cancelling=frozenset([execution])).cancel == []
    worker.end("failure (SIGTERM)")
    assert states(context, [id]) == ["cancelled"]


def test_an_attempt_that_is_given_back_when_its_task_is_being_cancelled_counts_for_nothing(context: Context) -> None:
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    worker.claim()
    (execution,) = worker.held
    cancel(context, [id], {"user": "alice"})
    report(context, [Report(execution=execution, given_back=True)])
    (stored,) = context.storage.tasks.documents([id]).values()
    assert (stored["state"], stored["attempt_count"], stored.get("execution")) == ("cancelled", 0, None)
    assert context.storage.executions.of_tasks([id]) == []


def test_a_success_that_came_before_the_cancellation_stays_one(context: Context) -> None:
    (id,) = post(context, task())
    (child,) = post(context, task(dependencies=after(id)))
    worker = SimulatedWorker(context)
    worker.claim()
    cancel(context, [id], {"user": "alice"})
    worker.end("success")
    assert states(context, [id, child]) == ["terminated", "available"]


def test_a_waiting_claim_is_woken_by_work_and_by_a_cancellation(context: Context) -> None:
    worker = SimulatedWorker(context)
    answers: list[Any] = []

    def wait() -> None:
        answers.append(worker.claim(1, wait_seconds=20.0))

    waiting = threading.Thread(target=wait)
    waiting.start()
    (id,) = post(context, task())
    waiting.join(timeout=10)
    assert [grant["_id"] for grant in answers[0].tasks] == [id]
    waiting = threading.Thread(target=wait)
    waiting.start()
    cancel(context, [id], {"user": "alice"})
    waiting.join(timeout=10)
    assert answers[1].cancel == list(worker.held)


def test_a_newer_claim_ends_the_older(context: Context) -> None:
    worker = SimulatedWorker(context)
    answers: list[Any] = []
    older = threading.Thread(target=lambda: answers.append(worker.claim(1, wait_seconds=20.0)))
    older.start()
    while not asking(context, worker):
        pass
    worker.claim(0)
    older.join(timeout=15)
    assert not older.is_alive()
    assert list(answers[0].tasks) == []


def test_a_wide_task_is_not_overtaken_for_ever(mongo_uri: str, context: Context) -> None:
    patient = context_of(context.storage, queue={"reserve_after": 0})
    (wide,) = post(patient, task(requested_resources={"cores": 4}))
    small = post(patient, *[task() for _ in range(20)])
    one = SimulatedWorker(patient, resources={"cores": 4})
    two = SimulatedWorker(patient, resources={"cores": 4})
    busy = Resources(millicores=3000)
    assert one.claim(free=busy).tasks == []
    assert [grant["_id"] for grant in two.claim(1, free=busy).tasks] == [small[0]]
    assert [grant["_id"] for grant in one.claim().tasks] == [wide]


def test_a_paused_queue_grants_nothing_and_a_limited_one_no_more_than_its_limit(context: Context) -> None:
    now = context.now()
    for name, more in (("still", {"paused": True}), ("narrow", {"max_running": 3})):
        document = {"name": name, "paused": False, "max_running": None, "weight": 1.0, "_etag": "1"} | more
        context.storage.queues.add(document | {"_created": now, "_updated": now})
    still, *_ = post(context, *[task(queue="still") for _ in range(5)])
    narrow = post(context, *[task(queue="narrow") for _ in range(10)])
    workers = [SimulatedWorker(context) for _ in range(4)]
    threads = [threading.Thread(target=worker.claim, args=(2,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(states(context, narrow)) == {"running": 3, "available": 7}
    assert explain(context, still)["reasons"][0]["reason"] == "queue_paused"
    waiting = next(id for id in narrow if states(context, [id]) == ["available"])
    assert explain(context, waiting)["reasons"][0]["reason"] == "queue_full"


def test_room_in_a_limited_queue_wakes_a_claim_that_waits_for_it(context: Context) -> None:
    now = context.now()
    narrow = {"name": "narrow", "paused": False, "max_running": 1, "weight": 1.0, "_etag": "1"}
    context.storage.queues.add(narrow | {"_created": now, "_updated": now})
    first, second = post(context, *[task(queue="narrow") for _ in range(2)])
    busy, idle = SimulatedWorker(context), SimulatedWorker(context)
    busy.claim(1)
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(idle.claim(1, wait_seconds=20.0)))
    waiting.start()
    while not asking(context, idle):
        pass
    busy.end()
    waiting.join(timeout=15)
    assert not waiting.is_alive()
    assert [grant["_id"] for grant in answers[0].tasks] == [second]
    assert states(context, [first]) == ["terminated"]


def test_queues_share_claims_by_weight(context: Context) -> None:
    now = context.now()
    heavy = {"name": "heavy", "paused": False, "max_running": None, "weight": 3.0, "_etag": "1"}
    context.storage.queues.add(heavy | {"_created": now, "_updated": now})
    post(context, *[task(queue=queue) for queue in ["heavy"] * 40 + ["default"] * 40])
    worker = SimulatedWorker(context)
    shares = Counter(grant["queue"] for grant in worker.claim(40).tasks)
    assert shares == {"heavy": 30, "default": 10}


def test_a_draining_worker_is_told_once_and_gets_nothing_more(context: Context) -> None:
    post(context, task())
    worker = SimulatedWorker(context)
    change_state(context, worker.id, "draining")
    ask = worker.ask()
    assert claim(context, worker.id, ask).drain
    assert claim(context, worker.id, ask).drain
    news = worker.claim()
    assert (news.drain, list(news.tasks)) == (False, [])


def test_a_worker_that_failed_a_task_by_its_own_fault_is_avoided_for_it(context: Context) -> None:
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end("failure (worker: disk full)")
    document = context.storage.tasks.documents([id])[id]
    assert (document["state"], document["retry_count"]) == ("available", 0)
    assert worker.claim().tasks == []
    assert explain(context, id)["reasons"][0]["reason"] == "avoided"
    assert [grant["_id"] for grant in SimulatedWorker(context).claim().tasks] == [id]


def test_a_worker_with_little_time_left_takes_only_what_surely_fits(context: Context) -> None:
    unbounded, long, short = post(context, task(), task(timeout=3600.0), task(timeout=10.0))
    worker = SimulatedWorker(context)
    until = context.now() + timedelta(seconds=60)
    context.storage.db["workers"].update_one({"_id": worker.id}, {"$set": {"available_until": until}})
    assert [grant["_id"] for grant in worker.claim().tasks] == [short]
    assert states(context, [unbounded, long]) == ["available", "available"]


def test_explain_names_the_worker_that_comes_closest_and_what_it_lacks(context: Context) -> None:
    SimulatedWorker(context, resources={"cores": 4, "memory": 2**30})
    (id,) = post(context, task(requested_resources={"cores": 8, "memory": 2**20}, requires={"os": "linux"}))
    told = explain(context, id)
    (reason,) = told["reasons"]
    assert reason["reason"] == "no_fit"
    assert set(reason["missing"]) == {"cores", "label os"}
    assert "cores 8 (it has 4)" in told["summary"]


def test_explain_counts_the_tasks_that_come_before(context: Context) -> None:
    worker = SimulatedWorker(context, resources={"cores": 1})
    ids = post(context, *[task() for _ in range(5)])
    worker.claim(1)
    assert explain(context, ids[4])["reasons"][0]["before"] == 3
    assert explain(context, ids[0])["reasons"][0]["reason"] == "assigned"


def test_a_claim_that_waits_at_one_server_is_woken_by_another(mongo_uri: str, context: Context) -> None:
    storage = Storage.connect(mongo_uri, context.storage.db.name)
    other = context_of(storage)
    for each in (context, other):
        each.hub.start()
    worker = SimulatedWorker(context)
    answers: list[Any] = []
    try:
        for news in ("work", "cancellation"):
            waiting = threading.Thread(target=lambda: answers.append(worker.claim(1, wait_seconds=20.0)))
            started = time.monotonic()
            waiting.start()
            if news == "work":
                (id,) = post(other, task())
            else:
                cancel(other, [id], {"user": "alice"})
            waiting.join(timeout=15)
            assert time.monotonic() - started < 15, f"the claim was not woken by {news}"
    finally:
        other.hub.close()
        storage.close()
    assert [grant["_id"] for grant in answers[0].tasks] == [id]
    assert answers[1].cancel == list(worker.held)


def test_a_wake_up_that_its_receiver_cannot_use_goes_to_one_that_can(mongo_uri: str, context: Context) -> None:
    """The class is new to the server at which both wait, and the worker that has waited longest does not fit."""
    storage = Storage.connect(mongo_uri, context.storage.db.name)
    other = context_of(storage)
    for each in (context, other):
        each.hub.start()
    unfit, fit = SimulatedWorker(context), SimulatedWorker(context, labels={"disk": "fast"})
    answers: dict[ObjectId, Any] = {}

    def wait(worker: SimulatedWorker) -> None:
        answers[worker.id] = worker.claim(1, wait_seconds=20.0)

    threads = [threading.Thread(target=wait, args=(worker,)) for worker in (unfit, fit)]
    try:
        for thread, worker in zip(threads, (unfit, fit), strict=True):
            thread.start()
            eventually(partial(asking, context, worker))
        (id,) = post(other, task(requires={"disk": "fast"}))
        threads[1].join(timeout=15)
        assert fit.id in answers, "nobody was woken who could take the task"
        post(other, task())
        threads[0].join(timeout=15)
    finally:
        other.hub.close()
        storage.close()
    assert [each["_id"] for each in answers[fit.id].tasks] == [id]
    assert len(answers[unfit.id].tasks) == 1


def test_a_deletion_that_was_interrupted_leaves_no_files_for_ever(context: Context) -> None:
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    worker.claim()
    (execution,) = worker.held
    quota = Quota(max_file_bytes=100, max_attempt_bytes=100, max_files=5)
    context.storage.files.append(execution, "out", 0, b"data", quota, context.now())
    worker.end()
    context.storage.transaction(lambda session: context.storage.files.doom([execution], session))
    assert context.storage.files.find(execution, "out") is not None
    rescue(context)
    assert context.storage.files.find(execution, "out") is None
    assert delete(context, [id]) == [id]
    assert worker.claim().forget == [str(id)]
    assert context.storage.db["executions"].count_documents({}) == 0


def test_of_very_large_tasks_a_claim_reads_no_more_than_one_reply_holds(context: Context) -> None:
    worker = SimulatedWorker(context)
    for _ in range(6):
        post(context, task(stdin="x" * 5_000_000))
    (first,) = context.storage.tasks.class_heads()
    assert first["bytes"] > 5_000_000
    assert "stdin" not in first
    granted = worker.claim(6).tasks
    assert 3 <= len(granted) < 6
    assert len({each["_id"] for each in [*granted, *worker.claim(6).tasks]}) == 6


def test_a_worker_that_drains_by_itself_is_not_told_so_whenever_it_asks(context: Context) -> None:
    """Each answer would make it ask again at once, for as long as it has something to finish."""
    post(context, task())
    worker = SimulatedWorker(context)
    worker.claim()
    told = [worker.claim(draining=True, number=number) for number in range(2, 6)]
    assert [bool(news) for news in told] == [False] * 4
