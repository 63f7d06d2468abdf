"""Why a task is not running, and why nothing runs: what `explain` names, and to whom."""

import json
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from banyan.domain.roles import Role
from banyan.queue.actor import Actor
from banyan.queue.cancel import cancel
from banyan.queue.context import Context
from banyan.queue.explain import explain
from banyan.queue.explain_queue import explain_queue
from banyan.queue.register import change_state
from banyan.queue.report import Report, report
from banyan.queue.update import Update, update
from banyan.storage.waiting import count_before
from banyan.wire import format_date
from tests.integration.conftest import Api
from tests.support.clock import moved
from tests.support.queue import ALICE, SimulatedWorker, after, post, states, task

BROKEN = "failure (worker: disk full)"
PRIVATE = Actor(name="alice", role=Role.PROVIDER, private=True)
BOB = Actor(name="bob", role=Role.PROVIDER)

Document = dict[str, Any]


def first(context: Context, id: ObjectId, asking: Actor | None = None) -> Document:
    reason: Document = explain(context, id, asking)["reasons"][0]
    return reason


def name(context: Context, worker: SimulatedWorker) -> str:
    return str((context.storage.workers.load(worker.id) or {})["name"])


def busy(context: Context, worker: SimulatedWorker) -> None:
    """Let a worker have said that nothing of it is free."""
    context.storage.db["workers"].update_one({"_id": worker.id}, {"$set": {"free": {"cores": 0}}})


def failed_family(context: Context, actor: Actor = ALICE) -> tuple[ObjectId, ObjectId, ObjectId, ObjectId]:
    """A task that failed, with a child, a grandchild and a child of that, all cancelled."""
    (a,) = post(context, task(name="a"), actor=actor)
    (b,) = post(context, task(name="b", dependencies=after(a)), actor=actor)
    (c,) = post(context, task(name="c", dependencies=after(b)), actor=actor)
    (d,) = post(context, task(name="d", dependencies=after(c)), actor=actor)
    worker = SimulatedWorker(context)
    worker.claim()
    wrote = "\n".join(f"line {number}" for number in range(30)) + "\nboom\n"
    worker.end("failure (exit code 3)", exit_code=3, stderr_tail=wrote)
    assert states(context, [a, b, c, d]) == ["terminated", "cancelled", "cancelled", "cancelled"]
    return a, b, c, d


# Ended


def test_a_grandchild_names_the_root_that_failed_its_exit_status_and_what_it_wrote(context: Context) -> None:
    a, b, c, d = failed_family(context)
    reason = first(context, d)
    assert reason["reason"] == "cancelled"
    assert reason["message"] == (
        f"it was cancelled because a {a} failed: failure (exit code 3); its parent c {c} and another task before that "
        "were cancelled for the same reason"
    )
    root = reason["root"]
    assert (root["_id"], root["exit_status"], root["exit_code"]) == (a, "failure (exit code 3)", 3)
    assert root["stderr_tail"].splitlines() == [*(f"line {number}" for number in range(21, 30)), "boom"]
    assert [(link["_id"], link["state"]) for link in reason["chain"]] == [
        *((a, "terminated"), (b, "cancelled"), (c, "cancelled"), (d, "cancelled")),
    ]
    assert first(context, b)["message"] == f"it was cancelled because a {a} failed: failure (exit code 3)"
    assert first(context, c)["message"].endswith(f"; its parent b {b} was cancelled for the same reason")


def test_a_failed_task_shows_the_end_of_what_its_last_attempt_wrote(context: Context) -> None:
    (id,) = post(context, task(max_retry_count=1))
    worker = SimulatedWorker(context)
    for text in ("first", "second"):
        worker.claim()
        worker.end("failure (exit code 1)", exit_code=1, stderr_tail=text)
    reason = first(context, id)
    assert (reason["message"], reason["stderr_tail"], reason["attempt"]) == (
        *("it has ended: failure (exit code 1)", "second", 2),
    )


@pytest.mark.parametrize(
    ("exit_status", "said"),
    [
        ("failure (SIGSEGV)", "`banyan retry {}` runs it again"),
        ("out of memory", "`banyan retry {} --set requested_resources.memory='2.00 GiB'` runs it again with more"),
        ("timed out", "`banyan retry {} --set timeout=120` runs it again with more"),
    ],
)
def test_what_helps_a_task_that_failed_is_said_and_below_it_too(context: Context, exit_status: str, said: str) -> None:
    (id,) = post(context, task(timeout=60.0, requested_resources={"cores": 1, "memory": 2**30}))
    (child,) = post(context, task(dependencies=after(id)))
    worker = SimulatedWorker(context, resources={"cores": 1, "memory": 2**32})
    worker.claim()
    worker.end(exit_status)
    assert said.format(id) in first(context, id)["help"]
    assert first(context, child)["help"] == f"{first(context, id)['help']}, and what was cancelled for its sake"


def test_a_cancelled_chain_begins_with_whoever_cancelled_or_with_a_task_that_is_gone(context: Context) -> None:
    (a,) = post(context, task(name="a", hold=True))
    (b,) = post(context, task(name="b", dependencies=after(a)))
    (c,) = post(context, task(name="c", dependencies=after(b)))
    cancel(context, [a], {"user": "carol"})
    assert first(context, c)["message"].startswith(
        f"it was cancelled because a {a} was cancelled by carol; its parent b {b} was"
    )
    context.storage.db["tasks"].delete_one({"_id": a})
    reason = first(context, c)
    assert f"because task {a}, which has been deleted, did not end as it needs" in reason["message"]
    assert reason["chain"][0] == {"_id": a, "missing": True}


def test_a_child_that_was_to_run_after_a_failure_says_so(context: Context) -> None:
    (a,) = post(context, task(name="a"))
    (b,) = post(context, task(dependencies=after(a, on="failure")))
    SimulatedWorker(context).run_all()
    assert first(context, b)["message"] == (
        f"it was cancelled because a {a} succeeded, and it was to run after a failure"
    )


def test_where_reads_are_private_somebody_elses_root_is_an_id_alone(context: Context) -> None:
    (a,) = post(context, task(name="secret"), actor=BOB)
    (b,) = post(context, task(name="mine", dependencies=after(a)))
    (c,) = post(context, task(dependencies=after(b)))
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end("failure (exit code 77)", exit_code=77, stderr_tail="secret words")
    told = json.dumps(explain(context, c, PRIVATE), default=str)
    assert str(a) in told
    assert "mine" in told
    assert not [word for word in ("secret", "exit code", "bob") if word in told]
    assert "secret words" in json.dumps(explain(context, c, ALICE), default=str)


# Waiting for parents


def test_a_grandchild_that_waits_names_the_first_of_all_and_what_keeps_it(context: Context) -> None:
    SimulatedWorker(context, resources={"cores": 4})
    (a,) = post(context, task(name="a", requested_resources={"cores": 99}))
    (b,) = post(context, task(name="b", dependencies=after(a)))
    (c,) = post(context, task(name="c", dependencies=after(b)))
    reason = first(context, c)
    assert (reason["reason"], reason["parents"], reason["count"]) == ("dependencies", [b], 1)
    assert reason["message"].startswith(
        f"it waits for b {b} (inactive); before all others comes a {a} (available): no active worker can run it; "
    )
    (root,) = reason["roots"]
    assert (root["_id"], root["reason"]) == (a, "no_fit")
    assert first(context, b)["message"].startswith(f"it waits for a {a} (available): no active worker can run it; ")


def test_of_many_parents_the_one_that_needs_help_is_named_before_those_that_run(context: Context) -> None:
    worker = SimulatedWorker(context)
    running, held = post(context, task(name="r"), task(name="h", hold=True))
    worker.claim()
    (middle,) = post(context, task(name="m", dependencies=after(held)))
    (child,) = post(context, task(dependencies=after(running, middle)))
    reason = first(context, child)
    assert [root["_id"] for root in reason["roots"]] == [held, running]
    assert f"before all others comes h {held} (available): it is held" in reason["message"]
    assert f"r {running} (assigned)" in reason["message"]


def test_a_parent_that_was_deleted_is_shown_as_such(context: Context) -> None:
    there, gone = post(context, task(hold=True), task(hold=True))
    (child,) = post(context, task(dependencies=after(there, gone)))
    context.storage.db["tasks"].delete_one({"_id": gone})
    reason = first(context, child)
    assert f"task {gone} (deleted)" in reason["message"]
    assert reason["missing"] == [gone]


def test_a_task_with_very_many_parents_says_how_many(context: Context) -> None:
    parents = post(context, *[task(hold=True) for _ in range(1200)])
    (child,) = post(context, task(dependencies=after(*parents)))
    reason = first(context, child)
    assert (reason["count"], len(reason["parents"])) == (1200, 10)
    assert "and 1190 more" in reason["message"]


def test_of_very_many_ancestors_none_is_taken_for_a_root_that_waits_itself(context: Context) -> None:
    (root,) = post(context, task(name="root", hold=True))
    middle = post(context, *[task(dependencies=after(root)) for _ in range(40)])
    wide = post(context, *[task(dependencies=after(*middle)) for _ in range(40)])
    (child,) = post(context, task(dependencies=after(*wide)))
    reason = first(context, child)
    assert [each["_id"] for each in reason["roots"]] == [root]
    assert f"before all others comes root {root} (available)" in reason["message"]


def test_a_task_whose_time_has_just_come_is_explained_too(context: Context) -> None:
    clock = moved(context.storage)
    (id,) = post(context, task(not_before=context.now() + timedelta(seconds=10)))
    (child,) = post(context, task(dependencies=after(id)))
    worker = SimulatedWorker(context)
    assert first(context, id)["reason"] == "not_before"
    clock.seconds += 11
    context.storage.workers.renew(worker.id, context.now())
    assert first(context, id) == {
        "reason": "changing",
        "message": "nothing keeps it any more; it goes on in a moment",
    }
    assert first(context, child)["roots"][0]["reason"] == "changing"


# Workers


@pytest.mark.parametrize(
    ("wanted", "said", "change"),
    [
        (
            {"requested_resources": {"cores": 99}},
            "request at most 4 cores, or start a worker with 99 cores",
            {"requested_resources": {"cores": 4}},
        ),
        (
            {"requested_resources": {"cores": 1, "memory": 2**40}},
            "request at most 1.00 GiB of memory, or start a worker with 1.00 TiB of memory",
            {"requested_resources": {"memory": 2**30}},
        ),
        (
            {"requested_resources": {"cores": 1, "custom": {"licence": 2}}},
            "request at most 0 of licence, or start a worker with 2 of licence",
            {"requested_resources": {"custom": {"licence": 0}}},
        ),
        (
            {"requested_resources": {"cores": 1, "gpus": 1, "gpu_compute_capability": "10.0"}},
            "request at most 9.0 of gpu compute capability, or start a worker with 10.0 of gpu compute capability",
            {"requested_resources": {"gpu_compute_capability": "9.0"}},
        ),
        ({"requires": {"disk": "ssd"}}, "do not require label disk, or start a worker with label disk=ssd", {}),
        (
            {"command": None, "model": "smu"},
            "start a worker that has the model 'smu' (--models DIR); did you mean 'sum'?",
            {},
        ),
        ({"queue": "other"}, "move it to the queue default, or start a worker that serves queue 'other'", {}),
    ],
)
def test_a_task_that_cannot_run_is_told_what_to_change(
    context: Context, admin: Api, wanted: Document, said: str, change: Document
) -> None:
    assert admin.post("/queues", {"name": "other"}).status_code == 201
    SimulatedWorker(
        context,
        resources={"cores": 4, "memory": 2**30, "gpus": 1, "gpu_compute_capability": "9.0"},
        capabilities=("shell", "model:sum"),
        queues=("default",),
    )
    (id,) = post(context, task(**wanted))
    reason = first(context, id)
    assert reason["reason"] == "no_fit"
    assert reason["message"].endswith(said)
    assert reason["change"] == change


def test_compute_capabilities_are_told_as_they_were_sent(provider: Api, worker: Api) -> None:
    gpu = {"cores": 1, "gpus": 1, "gpu_compute_capability": "9.0"}
    assert worker.post("/workers", {"name": "w", "resources": gpu, "capabilities": ["shell"]}).status_code == 201
    wanted = {"command": "true", "state": "available", "requested_resources": gpu | {"gpu_compute_capability": "10.0"}}
    id = provider.post("/tasks", wanted).get_json()["_id"]
    reason = provider.get(f"/tasks/{id}/explain").get_json()["reasons"][0]
    assert reason["change"] == {"requested_resources": {"gpu_compute_capability": "9.0"}}
    assert counts(provider.get("/explain").get_json()) == {"no_fit": 1}


def test_a_worker_that_leaves_too_soon_says_what_timeout_would_do(context: Context) -> None:
    worker = SimulatedWorker(context)
    until = context.now() + timedelta(seconds=60.5)
    context.storage.db["workers"].update_one({"_id": worker.id}, {"$set": {"available_until": until}})
    (id,) = post(context, task(timeout=3600.0))
    assert "give it a timeout below 60 s left, or start a worker that stays longer" in first(context, id)["message"]


def test_an_unbegun_task_is_assigned_and_a_silent_worker_is_said_to_be_silent(context: Context) -> None:
    clock = moved(context.storage)
    worker = SimulatedWorker(context, resources={"cores": 1})
    id, waiting = post(context, task(), task())
    worker.claim(1)
    heard = format_date((context.storage.workers.load(worker.id) or {})["last_seen"])
    where = f"worker {name(context, worker)} on test"
    reason = first(context, id)
    assert (reason["reason"], reason["worker"]) == ("assigned", worker.id)
    assert reason["message"] == f"it is assigned to {where}, which has not begun it (last sign of life at {heard})"
    clock.seconds += 26
    assert f"it is assigned to {where}, which has been silent since {heard}" in first(context, id)["message"]
    reason = first(context, waiting)
    assert (reason["reason"], reason["workers"]) == ("silent", [worker.id])
    assert f"{name(context, worker)} on test, has been silent since {heard}" in reason["message"]
    report(context, [Report(execution=next(iter(worker.held)), fields={"time_started": context.now()})])
    reason = first(context, id)
    assert reason["reason"] == "running"
    assert reason["message"].endswith(f"; the worker has been silent since {heard}")


def test_no_worker_names_the_one_that_was_heard_of_last(context: Context) -> None:
    (id,) = post(context, task())
    assert first(context, id)["message"] == "no worker is active; start one with 'banyan worker'"
    worker = SimulatedWorker(context)
    context.storage.workers.move(worker.id, "lost", context.now())
    assert f"({name(context, worker)} on test, which is lost, has been silent since" in first(context, id)["message"]


# Tasks before it


def test_tasks_that_can_never_run_on_its_workers_do_not_come_before_it(context: Context) -> None:
    worker = SimulatedWorker(context, resources={"cores": 2})
    (failed,) = post(context, task(priority=9))
    worker.claim(1)
    worker.end(BROKEN)
    other = SimulatedWorker(context, resources={"cores": 50}, labels={"big": "yes"})
    change_state(context, other.id, "draining")
    unfit = {"requested_resources": {"cores": 10}}
    post(
        context,
        *[task(**unfit) for _ in range(3)],
        *[task(requires={"big": "yes"}) for _ in range(3)],
        *[task(hold=True) for _ in range(3)],
        *[task(not_before=context.now() + timedelta(hours=1)) for _ in range(3)],
        *[task(requested_resources={"cores": 2}) for _ in range(2)],
        task(priority=5),
        task(priority=-1),
    )
    (id,) = post(context, task())
    busy(context, worker)
    reason = first(context, id)
    assert (reason["reason"], reason["before"]) == ("waiting", 3), "two of two cores, and one of a higher priority"
    assert reason["message"] == "3 tasks come before it in queue 'default', and the worker that fits is busy"
    assert context.storage.tasks.documents([failed])[failed]["state"] == "available"
    change_state(context, other.id, "active")
    assert first(context, id)["before"] == 10, "the other worker could take those with a label, 10 cores, or a failure"


def test_very_many_tasks_before_it_are_not_counted_to_the_end(context: Context) -> None:
    ids = post(context, *[task() for _ in range(30)])
    document = context.storage.tasks.document(ids[-1]) or {}
    assert count_before(context.reader(), document, [document["class_key"]], [ObjectId()], 10) == 10
    assert count_before(context.reader(), document, [document["class_key"]], [ObjectId()], 100) == 29


# The whole queue


def counts(answer: Document) -> dict[str, int]:
    return {reason["reason"]: reason["count"] for reason in answer["reasons"]}


def test_an_empty_queue_says_that_nothing_waits(context: Context) -> None:
    assert explain_queue(context)["summary"] == "no task waits, nothing runs"
    post(context, task(hold=True))
    assert explain_queue(context)["summary"] == "1 task waits, nothing runs; they are held"


def test_the_whole_queue_is_counted_by_reason_and_what_helps_is_said(context: Context, admin: Api) -> None:
    for body in ({"name": "stopped", "paused": True}, {"name": "narrow", "max_running": 1}):
        assert admin.post("/queues", body).status_code == 201
    worker = SimulatedWorker(context, resources={"cores": 2})
    post(context, task(queue="narrow"), task())
    worker.claim(2)
    busy(context, worker)
    (held,) = post(context, task(hold=True))
    (unfit,) = post(context, task(requested_resources={"cores": 99}))
    post(context, *[task(queue="stopped") for _ in range(4)], *[task(queue="narrow") for _ in range(5)])
    post(context, *[task(dependencies=after(held)) for _ in range(6)], *[task(state="inactive") for _ in range(7)])
    due = context.now() + timedelta(hours=1)
    post(context, *[task(not_before=due) for _ in range(8)], *[task() for _ in range(9)])
    wider = post(context, *[task(requested_resources={"cores": 98}) for _ in range(2)])
    answer = explain_queue(context)
    needing_help = {"inactive": 7, "queue_paused": 4, "no_fit": 3, "held": 1}
    assert counts(answer) == needing_help | {"waiting": 9, "not_before": 8, "dependencies": 6, "queue_full": 5}
    assert [reason["reason"] for reason in answer["reasons"]][:2] == ["inactive", "queue_paused"]
    assert (answer["waiting"], answer["running"], answer["assigned"]) == (43, 0, 2)
    said = (
        "43 tasks wait, nothing runs, 2 more are assigned to workers; "
        "7 of them: they are inactive, and wait for no parent"
    )
    assert answer["summary"] == said
    reasons = {reason["reason"]: reason for reason in answer["reasons"]}
    assert reasons["queue_paused"]["help"] == "'banyan queues resume stopped' (an administrator)"
    assert "start a worker with 98 cores" in reasons["no_fit"]["help"]
    assert reasons["no_fit"]["example"] in {unfit, *wider}
    assert all(states(context, [reason["example"]]) for reason in answer["reasons"] if "example" in reason)
    (shown,) = answer["workers"]
    assert shown["cores"] == {"total": 2, "used": 2, "free": 0}
    assert (shown["assigned"], shown["running"], shown["silent"], shown["state"]) == (2, 0, False, "active")


def test_each_way_in_which_workers_keep_tasks_waiting_is_counted(context: Context) -> None:
    clock = moved(context.storage)
    post(context, *[task() for _ in range(2)])
    assert counts(explain_queue(context)) == {"no_worker": 2}
    worker = SimulatedWorker(context, resources={"cores": 2})
    answer = explain_queue(context)
    assert counts(answer) == {"next": 2}
    clock.seconds += 30
    answer = explain_queue(context)
    assert (counts(answer), answer["workers"][0]["silent"]) == ({"silent": 2}, True)
    context.storage.workers.renew(worker.id, context.now())
    worker.claim(1)
    worker.end(BROKEN)
    assert counts(explain_queue(context)) == {"avoided": 1, "next": 1}
    change_state(context, worker.id, "draining")
    answer = explain_queue(context)
    assert counts(answer) == {"draining": 2}
    assert "could run them, but is draining" in answer["reasons"][0]["message"]
    context.storage.workers.move(worker.id, "lost", context.now())
    answer = explain_queue(context)
    assert counts(answer) == {"no_worker": 2}
    (shown,) = answer["workers"]
    assert (shown["state"], shown["silent"], shown["cores"]["free"]) == ("lost", True, 0)


def test_a_worker_is_told_of_queues_that_are_not_there_when_it_registers(worker: Api) -> None:
    body = {"name": "w", "resources": {"cores": 1}, "queues": ["default", "defualt"]}
    answer = worker.post("/workers", body)
    (note,) = answer.get_json()["notes"]
    assert (answer.status_code, note.partition(";")[0]) == (201, "there is no queue 'defualt'")
    assert "did you mean 'default'?" in note
    assert "notes" not in worker.post("/workers", body | {"queues": ["default"]}).get_json()


def test_a_worker_that_serves_a_queue_which_is_not_there_says_so(context: Context) -> None:
    SimulatedWorker(context, queues=("defualt",))
    (shown,) = explain_queue(context)["workers"]
    assert "there is no queue 'defualt'; did you mean 'default'?" in shown["note"]


def test_where_reads_are_private_only_ones_own_tasks_are_counted(context: Context, provider: Api) -> None:
    post(context, *[task(hold=True) for _ in range(2)], *[task() for _ in range(3)], task(state="inactive"))
    post(context, *[task(hold=True) for _ in range(10)], *[task() for _ in range(10)], actor=BOB)
    post(context, *[task(state="inactive") for _ in range(10)], actor=BOB)
    post(context, task(not_before=context.now() + timedelta(hours=1)), actor=BOB)
    answer = explain_queue(context, PRIVATE)
    assert counts(answer) == {"no_worker": 3, "held": 2, "inactive": 1}
    assert answer["waiting"] == 6
    assert counts(provider.get("/explain").get_json())["no_worker"] == 13
    assert provider.get("/explain?where={}").status_code == 400


def test_an_edit_that_makes_a_task_fit_is_seen_at_once(context: Context) -> None:
    SimulatedWorker(context, resources={"cores": 4})
    (id,) = post(context, task(state="inactive", requested_resources={"cores": 99}))
    change = explain(context, id)["reasons"][1]["change"]
    update(context, id, Update(fields=change, check=lambda _: {}), ALICE)
    assert [reason["reason"] for reason in explain(context, id)["reasons"]] == ["inactive"]


# Many at once


def test_the_first_reason_of_each_waiting_task_is_told_at_once(context: Context, admin: Api, provider: Api) -> None:
    admin.post("/queues", {"name": "shut", "paused": True})
    (parent,) = post(context, task(name="parent", hold=True))
    fields: list[Document] = [
        {"dependencies": after(parent)},
        {"queue": "shut"},
        {"requested_resources": {"cores": 64}},
        {"requested_resources": {"cores": 64}, "name": "same class"},
        {"requires": {"site": "north"}},
        {"not_before": context.now() + timedelta(hours=1)},
        {"state": "inactive"},
        {},
        {"model": "nowhere", "command": None},
    ]
    ids = [parent, *(post(context, task(**each))[0] for each in fields)]
    worker = SimulatedWorker(context, {"cores": 8})
    wanted = "held dependencies queue_paused no_fit no_fit no_fit not_before inactive waiting no_fit".split()
    query = ",".join(map(str, [*ids, ObjectId()]))
    told = provider.get(f"/tasks/explain?ids={query}").get_json()["_items"]
    assert {each["_id"]: each["reason"] for each in told} == dict(zip(map(str, ids), wanted, strict=True))
    assert told[3]["missing"] == {"cores": {"wanted": 64, "there": 8}}
    for each in told:
        full = provider.get(f"/tasks/{each['_id']}/explain").get_json()["reasons"]
        assert each["reason"] in [reason["reason"] for reason in full]
    busy(context, worker)
    told = provider.get(f"/tasks/explain?ids={ids[8]}").get_json()["_items"]
    assert [each["reason"] for each in told] == ["busy"]
    worker.claim()
    assert provider.get(f"/tasks/explain?ids={ids[8]}").get_json()["_items"] == []


def test_tasks_of_one_class_have_reasons_of_their_own(context: Context, provider: Api) -> None:
    """A class rounds the amounts: of these two tasks only one fits the worker."""
    SimulatedWorker(context, resources={"cores": 1, "memory": 1000})
    fits, not_quite = post(context, *[task(requested_resources={"memory": size}) for size in (1000, 1001)])
    told = provider.get(f"/tasks/explain?ids={fits},{not_quite}").get_json()["_items"]
    assert {each["_id"]: each["reason"] for each in told} == {str(fits): "waiting", str(not_quite): "no_fit"}


@pytest.mark.parametrize("ids", ["", "x", "5" * 23, ",".join(["5" * 24] * 101), f"{'5' * 24},"])
def test_ids_that_are_none_are_refused(provider: Api, ids: str) -> None:
    answer = provider.get(f"/tasks/explain?ids={ids}")
    assert (answer.status_code, "?ids=ID,ID,.." in answer.get_data(as_text=True)) == (400, True)
