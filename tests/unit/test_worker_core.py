"""The worker's core: what it wants done when things happen to its tasks."""

import signal
from typing import Any

import pytest

from banyan.domain.resources import Resources
from tests.support.worker import CoreDriver, grant
from worker.actions import (
    Action,
    Ask,
    Clear,
    Forget,
    Keep,
    Kill,
    Leave,
    Note,
    Purge,
    Register,
    Run,
    Send,
    Sync,
    Withdraw,
)
from worker.core import Limits
from worker.events import (
    Cause,
    Claimed,
    Drain,
    Dropped,
    Exceeded,
    Forgotten,
    Grant,
    Measured,
    Reached,
    Refused,
    Registered,
    Reported,
    Sample,
    Stop,
    SupervisorLost,
    Synced,
    TurnedAway,
    Unanswered,
    Unreached,
)
from worker.tasks import COLLECT_SECONDS, MOST_COLLECTING


def test_it_registers_with_what_the_machine_has_and_then_asks_for_all_of_it() -> None:
    driver = CoreDriver(register=False)
    (register,) = driver.say(Measured(Resources(millicores=2000)))
    assert register == Register(resources=Resources(millicores=2000), replaces=None, finished=[])
    (ask,) = driver.say(Registered(worker="w", wait_seconds=20, uploads=False))
    assert isinstance(ask, Ask)
    assert ask.worker == "w"
    assert ask.body == {
        "request": "request-1",
        "number": 1,
        "resources": {"cores": 2},
        "max_tasks": 256,
        "held": [],
        "unanswered": [],
        "cancelling": [],
        "draining": False,
        "wait": 20,
    }


def test_granted_tasks_start_at_once_and_are_named_as_held() -> None:
    driver = CoreDriver()
    actions = driver.grant(grant("a"), grant("b"))
    assert [run.grant.execution for run in driver.all(Run, actions)] == ["a", "b"]
    body = driver.asked().body
    assert (body["held"], body["resources"]["cores"], body["max_tasks"]) == (["a", "b"], 0, 0)


def wide(execution: str) -> Grant:
    return grant(execution, requested_resources={"cores": 2}, **{"class": "wide"})


def test_a_task_that_does_not_fit_now_is_passed_over_by_those_that_do() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"), wide("wide"), grant("c"))
    assert driver.running() == ["a", "c"]
    assert driver.asked().body["max_tasks"] == 0
    for execution in "ac":
        driver.start(execution)
        driver.exit(execution)
    assert driver.running() == ["a", "c", "wide"]


def test_a_task_is_not_passed_over_for_ever() -> None:
    """Two take turns on the other core."""
    driver = CoreDriver()
    seconds = {"estimated_runtime": 0.4}
    driver.grant(grant("t0", **seconds), wide("wide"), grant("t1", **seconds))
    for number in range(10):
        driver.wait(0.2)
        driver.exit(f"t{number}", seconds=0.4)
        if driver.running()[-1] == "wide":
            break
        driver.grant(grant(f"t{number + 2}", **seconds))
    assert driver.running() == ["t0", "t1", "t2", "t3", "t4", "t5", "wide"]


def test_a_new_claim_follows_as_soon_as_resources_are_free() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"), grant("b"))
    driver.start("a")
    driver.wait(1)
    before = driver.asked().body["request"]
    driver.exit("a", seconds=1)
    body = driver.asked().body
    assert body["request"] != before
    assert (body["resources"]["cores"], body["max_tasks"]) == (1, 256)


def overtaken(driver: CoreDriver) -> str:
    """A claim that a newer one has overtaken, and which the newer one names."""
    driver.grant(grant("a"), grant("b"))
    driver.start("a")
    driver.wait(1)
    old = str(driver.asked().body["request"])
    driver.exit("a", seconds=1)
    assert driver.asked().body["unanswered"] == [old]
    return old


def test_the_answer_to_an_overtaken_claim_counts_as_long_as_newer_claims_name_it() -> None:
    driver = CoreDriver()
    old = overtaken(driver)
    driver.say(Claimed(request=old, grants=[grant("late")], cancel=["b"]))
    assert "late" in driver.core.held
    assert driver.all(Withdraw) == [Withdraw("b")]


def test_what_an_overtaken_claim_was_granted_is_not_missing_from_what_is_offered_for_long() -> None:
    """The server has taken it from the newer offer, which is as good as ever once those tasks have ended."""
    driver = CoreDriver()
    old = overtaken(driver)
    offered = driver.asked().body
    driver.wait(0.1)
    driver.say(Claimed(request=old, grants=[grant("late")]))
    assert driver.running()[-1] == "late"
    driver.exit("late")
    driver.wait(0.1)
    again = driver.asked().body
    assert again["number"] > offered["number"]
    assert (again["resources"], again["max_tasks"]) == (offered["resources"], offered["max_tasks"])
    driver.wait(10)
    assert driver.asked().body == again


def test_the_answer_to_a_claim_that_was_given_up_is_left_to_the_server() -> None:
    driver = CoreDriver()
    old = overtaken(driver)
    driver.say(Unanswered(request=old))
    driver.say(Claimed(request=old, grants=[grant("late")]))
    assert "late" not in driver.core.held


def test_an_idle_worker_reports_an_end_at_once_and_holds_it_until_it_is_acknowledged() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"))
    driver.start("a")
    actions = driver.exit("a", 3 << 8, collected={"stdout_tail": "hi\n", "stdout_bytes": 3})
    (send,) = driver.all(Send, actions)
    (report,) = send.reports
    assert report["exit_status"] == "failure (exit code 3)"
    assert report["exit_code"] == 3
    assert report["token"] == "token-a"
    assert report["granted_resources"] == {"cores": 1}
    assert report["directory"] == {"logs": "task-a/1", "work": "task-a/1/work"}
    assert (report["stdout_tail"], report["peak_memory_bytes"], report["cpu_seconds"]) == ("hi\n", 1 << 20, 0.5)
    assert [sample["resident_memory_bytes"] for sample in send.samples] == [1 << 20]
    assert driver.core.held == ["a"]
    driver.acknowledge()
    assert driver.core.held == []


def test_a_start_is_reported_only_when_the_task_lasts() -> None:
    driver = CoreDriver()
    driver.grant(grant("short"), grant("long"))
    driver.start("short")
    driver.start("long")
    driver.exit("short")
    driver.acknowledge()
    driver.wait(1)
    starts = [report for report in driver.reports() if "exit_status" not in report]
    assert [start["execution"] for start in starts] == ["long"]
    assert starts[0]["pid"] == 4711
    assert starts[0]["time_started"].startswith("2026-01-01T00:16:40")


def test_an_end_that_the_answer_does_not_mention_is_told_again() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"))
    driver.start("a")
    driver.exit("a")
    (again,) = driver.all(Send, driver.say(Reported()))
    assert [report["execution"] for report in again.reports] == ["a"]


def test_a_timeout_asks_the_task_to_end_and_kills_it_after_its_grace() -> None:
    driver = CoreDriver()
    driver.grant(grant("a", timeout=10, max_shutdown_time=5))
    driver.start("a")
    assert driver.all(Kill, driver.wait(9.9)) == []
    assert driver.all(Kill, driver.wait(0.2)) == [Kill("a", signal.SIGTERM)]
    assert driver.all(Kill, driver.wait(5)) == [Kill("a", signal.SIGKILL)]
    driver.exit("a", signal.SIGKILL)
    assert driver.end_of("a")["exit_status"] == "timed out"


@pytest.mark.parametrize(
    ("status", "said"),
    [(0, "success"), (signal.SIGTERM, "cancelled"), (1 << 8, "cancelled")],
)
def test_a_cancelled_task_that_still_succeeds_has_succeeded(status: int, said: str) -> None:
    driver = CoreDriver()
    driver.grant(grant("a", max_shutdown_time=5))
    driver.start("a")
    actions = driver.say(Reported(cancel=["a"]))
    assert driver.all(Kill, actions) == [Kill("a", signal.SIGTERM)]
    driver.say(Reported(cancel=["a"]))
    assert driver.all(Kill) == [Kill("a", signal.SIGTERM)]
    driver.exit("a", status)
    assert driver.end_of("a")["exit_status"] == said


def test_known_cancellations_are_named_in_the_next_claim() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"), grant("b"))
    driver.start("a")
    driver.say(Claimed(request=driver.asked().body["request"], cancel=["a"]))
    assert driver.asked().body["cancelling"] == ["a"]


def test_a_task_cancelled_in_the_queue_never_starts() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(grant("a"), grant("b"))
    driver.say(Reported(cancel=["b"]))
    assert driver.running() == ["a"]
    assert driver.end_of("b")["exit_status"] == "cancelled"
    assert Clear("b", True) in driver.done


def test_a_task_whose_lane_is_not_left_by_the_one_before_it_goes_back() -> None:
    """Its class is a very short one so far, and the one before it runs and runs."""
    driver = CoreDriver(cores=1)
    driver.grant(grant("quick"))
    driver.start("quick")
    driver.exit("quick", seconds=0.01)
    driver.settle()
    driver.grant(grant("slow"), grant("next"))
    driver.start("slow")
    assert driver.running() == ["quick", "slow", "next"]
    assert driver.all(Withdraw, driver.wait(0.49)) == []
    assert driver.all(Withdraw, driver.wait(0.02)) == [Withdraw("next")]
    driver.say(Dropped("next"))
    assert driver.given_back() == ["next"]


def test_a_task_cancelled_in_its_lane_is_withdrawn_or_signalled_if_that_came_too_late() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"), grant("b"))
    assert driver.all(Withdraw, driver.say(Reported(cancel=["a", "b"]))) == [Withdraw("a"), Withdraw("b")]
    driver.say(Dropped("a"))
    assert driver.all(Kill, driver.start("b")) == [Kill("b", signal.SIGTERM)]
    driver.exit("b", signal.SIGTERM)
    assert [driver.end_of(each)["exit_status"] for each in "ab"] == ["cancelled", "cancelled"]


def test_a_task_above_its_memory_request_is_killed_at_once() -> None:
    driver = CoreDriver()
    driver.grant(grant("a", requested_resources={"cores": 1, "memory": 1000}))
    driver.start("a")
    assert driver.all(Kill, driver.say(sample("a", 1000))) == []
    assert driver.all(Kill, driver.say(sample("a", 1001))) == [Kill("a", signal.SIGKILL)]
    assert driver.all(Kill, driver.say(sample("a", 2000))) == []
    driver.exit("a", signal.SIGKILL)
    end = driver.end_of("a")
    assert (end["exit_status"], end["peak_memory_bytes"]) == ("out of memory", 1 << 20)


def test_the_peak_is_what_was_sampled_when_the_kernel_shows_the_spawners_size() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"), grant("b"))
    driver.start("a")
    driver.start("b")
    driver.say(sample("a", 3000), sample("a", 2000))
    driver.say(
        *driver.exited("a", peak_memory_bytes=8_000_000, peak_is_exact=False),
        *driver.exited("b", peak_memory_bytes=8_000_000, peak_is_exact=False),
    )
    assert driver.end_of("a")["peak_memory_bytes"] == 3000
    assert driver.end_of("b")["peak_memory_bytes"] == 8_000_000


def sample(execution: str, resident_bytes: int) -> Sample:
    return Sample(
        execution=execution,
        time=CoreDriver().date,
        resident_memory_bytes=resident_bytes,
        virtual_memory_bytes=5000,
        cpu_percent=50.0,
    )


def test_samples_travel_with_the_reports() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"))
    driver.start("a")
    (send,) = driver.all(Send, driver.say(sample("a", 1000)))
    assert send.samples == [
        {
            "task": "task-a",
            "execution": "a",
            "time": "2026-01-01T00:16:40+00:00",
            "resident_memory_bytes": 1000,
            "virtual_memory_bytes": 5000,
            "cpu_percent": 50.0,
        }
    ]


def test_the_machines_fault_is_said_to_be_so() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"), grant("b"))
    driver.not_started("a", "no work directory: disk on fire")
    driver.not_started("b", "nosuch: command not found", 127)
    assert driver.end_of("a")["exit_status"] == "failure (worker: no work directory: disk on fire)"
    assert driver.end_of("b")["exit_status"] == "failure (exit code 127)"
    assert driver.end_of("b")["error"] == "nosuch: command not found"


def test_a_full_disk_is_the_machines_fault() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"), grant("b"))
    driver.start("a")
    driver.start("b")
    driver.say(
        *driver.exited("a", 1 << 8, collected={"disk_full": True}), *driver.exited("b", collected={"disk_full": True})
    )
    assert driver.end_of("a")["exit_status"] == "failure (worker: disk full)"
    assert driver.end_of("b")["exit_status"] == "success"
    assert "disk_full" not in driver.end_of("a")


def taking_too_much(**fields: Any) -> CoreDriver:
    driver = CoreDriver()
    driver.grant(grant("a", **fields))
    driver.start("a")
    return driver


@pytest.mark.parametrize(
    ("cause", "fields", "exit_status"),
    [
        (Cause.DISK, {}, "failure (worker: disk filled by this task)"),
        (Cause.DISK, {"disk_fills": 1}, "failure (disk filled)"),
        (Cause.SCRATCH, {"disk_fills": 1}, "failure (scratch exceeded)"),
    ],
)
def test_a_task_that_takes_too_much_of_the_disk_is_killed_and_its_files_go(
    cause: Cause, fields: dict[str, Any], exit_status: str
) -> None:
    driver = taking_too_much(**fields)
    actions = driver.say(Exceeded(execution="a", cause=cause, error="it took 3 GiB"))
    assert driver.all(Kill, actions) == [Kill("a", signal.SIGKILL)]
    actions = driver.exit("a", signal.SIGKILL, collected={"disk_full": True, "error": "progress: no"})
    assert driver.all(Purge, actions) == [Purge("a")]
    assert driver.end_of("a")["exit_status"] == exit_status
    assert driver.end_of("a")["error"] == "progress: no; it took 3 GiB"


def test_a_task_that_fills_the_disk_in_its_grace_is_killed_as_what_it_was_ended_for() -> None:
    driver = taking_too_much(timeout=5)
    driver.wait(5)
    actions = driver.say(Exceeded(execution="a", cause=Cause.DISK, error="it took 3 GiB"))
    assert driver.all(Kill, actions) == [Kill("a", signal.SIGKILL)]
    assert driver.all(Purge, driver.exit("a", signal.SIGKILL, seconds=5)) == [Purge("a")]
    assert driver.end_of("a")["exit_status"] == "timed out"


def test_a_task_that_succeeded_before_it_could_be_stopped_has_succeeded() -> None:
    driver = taking_too_much()
    driver.say(Exceeded(execution="a", cause=Cause.DISK, error="it took 3 GiB"))
    driver.exit("a")
    assert driver.end_of("a")["exit_status"] == "success"


def test_the_death_of_the_supervisor_ends_its_tasks_by_no_fault_of_theirs() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"), grant("b"))
    driver.start("a")
    driver.say(SupervisorLost(frozenset("ab")))
    assert {driver.end_of(each)["exit_status"] for each in "ab"} == {"failure (worker: its supervisor died)"}
    assert driver.asked().body["resources"]["cores"] == 2


def test_a_worker_that_was_given_up_stops_all_and_registers_anew() -> None:
    driver = CoreDriver(cores=3)
    driver.grant(grant("a"), grant("b"), grant("ended"))
    driver.start("a")
    driver.start("ended")
    driver.exit("ended")
    actions = driver.say(Refused(worker="worker-1"))
    assert driver.all(Kill, actions) == [Kill("a", signal.SIGKILL)]
    assert driver.all(Withdraw, actions) == [Withdraw("b")]
    (register,) = driver.all(Register, actions)
    assert (register.replaces, register.finished) == ("worker-1", ["ended"])
    driver.say(Refused(worker="worker-1"))
    assert len(driver.all(Register)) == 2
    driver.say(*driver.exited("a", signal.SIGKILL), Dropped("b"))
    driver.say(Registered(worker="worker-2", wait_seconds=20, uploads=False))
    assert [(send.worker, [each["execution"] for each in send.reports]) for send in driver.all(Send)[1:]] == [
        ("worker-2", ["ended"])
    ]


def test_an_attempt_that_the_server_calls_stale_is_stopped_without_a_word() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"))
    driver.start("a")
    driver.wait(1)
    assert driver.all(Kill, driver.say(Reported(stale=["a"]))) == [Kill("a", signal.SIGKILL)]
    driver.exit("a", signal.SIGKILL)
    assert driver.core.held == []
    assert not [report for report in driver.reports() if "exit_status" in report]


def test_a_server_out_of_reach_for_long_costs_the_tasks_but_is_asked_again() -> None:
    driver = CoreDriver(Limits(server_lost_seconds=600), cores=1)
    driver.grant(grant("a"), grant("queued"))
    driver.start("a")
    driver.wait(599)
    assert driver.all(Kill, driver.say(Unreached("refused"))) == []
    driver.wait(1)
    assert driver.all(Kill, driver.say(Unreached("refused"))) == [Kill("a", signal.SIGTERM)]
    assert driver.asked().body["max_tasks"] == 0
    driver.exit("a", signal.SIGTERM)
    assert [end["exit_status"] for end in driver.core.outstanding] == ["abandoned (server unreachable)"]
    driver.say(Reached())
    assert driver.asked().body["max_tasks"] == 256
    assert [note.text for note in driver.all(Note) if note.warning][:1] == ["refused (trying again)"]


def test_a_server_that_answers_now_and_then_is_not_lost() -> None:
    driver = CoreDriver(Limits(server_lost_seconds=600))
    driver.grant(grant("a"))
    driver.start("a")
    for _ in range(3):
        driver.wait(500)
        driver.say(Unreached("refused"))
        driver.say(Reached())
    assert driver.all(Kill) == []


def test_draining_finishes_what_runs_and_gives_back_the_rest() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(grant("a"), grant("queued"))
    driver.start("a")
    driver.say(Drain("SIGTERM"))
    assert {"execution": "queued", "token": "token-queued", "given_back": True} in driver.reports()
    assert driver.asked().body["max_tasks"] == 0
    driver.settle()
    assert driver.all(Leave, driver.wait(100)) == []
    driver.exit("a", seconds=100)
    assert driver.all(Leave) == []
    driver.settle()
    assert driver.all(Leave) == [Leave("worker-1")]
    assert driver.core.left


def test_ends_that_cannot_be_told_are_kept_before_the_server_answers() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"), grant("b"))
    driver.start("a")
    driver.start("b")
    driver.wait(0.6)  # the starts are told, and the server does not answer
    driver.exit("a")
    driver.exit("b")
    assert driver.all(Keep, driver.wait(0.9)) == []
    (kept,) = driver.all(Keep, driver.wait(0.2))
    assert [end["execution"] for end in kept.ends] == ["a", "b"]
    assert driver.all(Keep, driver.wait(60)) == []
    driver.settle()
    assert driver.core.outstanding == []


def test_ends_that_are_told_at_once_are_kept_by_the_telling_alone() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"))
    driver.start("a")
    driver.exit("a")
    driver.settle()
    driver.wait(5)
    assert driver.all(Keep) == []


def test_a_draining_worker_leaves_what_it_cannot_tell_to_its_spool() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"))
    driver.start("a")
    driver.say(Drain("SIGTERM"))
    driver.exit("a")
    assert driver.all(Leave, driver.wait(59.9)) == []
    assert driver.all(Leave, driver.wait(0.2)) == [Leave("worker-1")]
    assert [end["execution"] for end in driver.core.outstanding] == ["a"]


def test_stopping_gives_tasks_their_grace_and_does_not_report_their_ends() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(grant("a", max_shutdown_time=10), grant("queued"))
    driver.start("a")
    actions = driver.say(Stop())
    assert driver.all(Kill, actions) == [Kill("a", signal.SIGTERM)]
    driver.acknowledge()
    assert driver.all(Kill, driver.wait(9.9)) == []
    assert driver.all(Leave, driver.exit("a", signal.SIGTERM)) == [Leave("worker-1")]
    assert not [report for report in driver.reports() if "exit_status" in report]


def test_a_task_that_does_not_heed_the_stop_is_killed_after_its_grace() -> None:
    driver = CoreDriver(cores=2)
    driver.grant(grant("a", max_shutdown_time=10), grant("b", max_shutdown_time=1))
    driver.start("a")
    driver.start("b")
    driver.say(Stop())
    assert driver.all(Kill, driver.wait(1.1)) == [Kill("b", signal.SIGKILL)]
    assert driver.all(Kill, driver.wait(9)) == [Kill("a", signal.SIGKILL)]


def test_a_second_stop_kills_at_once() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"))
    driver.start("a")
    driver.say(Stop())
    assert driver.all(Kill, driver.say(Stop())) == [Kill("a", signal.SIGKILL)]
    assert driver.all(Leave, driver.wait(3)) == [Leave("worker-1")]


def test_a_cancelled_task_keeps_its_grace_and_its_end_when_the_worker_stops() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"))
    driver.start("a")
    driver.say(Reported(cancel=["a"]))
    assert driver.all(Kill, driver.say(Stop())) == []
    driver.exit("a", signal.SIGTERM)
    assert driver.end_of("a")["exit_status"] == "cancelled"


def test_stopping_does_not_wait_for_ever() -> None:
    driver = CoreDriver()
    driver.grant(grant("a", max_shutdown_time=10))
    driver.start("a")
    driver.say(Stop())
    assert driver.all(Leave, driver.wait(12.9)) == []
    assert driver.all(Leave, driver.wait(0.2)) == [Leave("worker-1")]


def test_a_stopped_worker_that_has_nothing_left_waits_a_moment_for_its_last_reports() -> None:
    driver = CoreDriver(cores=2)
    driver.grant(grant("a"), grant("b"))
    driver.start("a")
    driver.start("b")
    driver.exit("a")
    driver.say(Stop())
    driver.exit("b", signal.SIGTERM)
    assert driver.all(Leave, driver.wait(3.1)) == [Leave("worker-1")]


def test_a_task_that_waited_too_long_here_is_given_back() -> None:
    """Others that are as short as it is always come before it."""
    driver = CoreDriver(Limits(ask_ahead_seconds=2), cores=1)
    seconds = {"estimated_runtime": 0.25}
    driver.grant(grant("t0", **seconds), grant("late", **seconds))
    for number in range(1, 50):
        if "late" not in driver.core.held:
            break
        driver.grant(grant(f"t{number}", priority=1, **seconds))
        driver.wait(0.25)
        driver.exit(f"t{number - 1}", seconds=0.25)
    assert driver.now == 1005.0
    assert driver.given_back() == ["late"]


def test_a_time_limit_takes_only_what_ends_in_time() -> None:
    driver = CoreDriver(Limits(life_seconds=100), cores=4)
    driver.grant(grant("fits", timeout=90), grant("long", timeout=101), grant("endless"))
    assert driver.running() == ["fits"]
    assert driver.given_back() == ["long", "endless"]
    assert driver.asked().body["max_tasks"] == 0
    driver.wait(1.1)
    assert driver.asked().body["max_tasks"] == 256


def test_a_time_limit_drains_shortly_before_and_stops_at_its_end() -> None:
    driver = CoreDriver(Limits(life_seconds=100))
    driver.grant(grant("a", timeout=99))
    driver.start("a")
    driver.wait(94.9)
    assert not driver.all(Note)
    driver.wait(0.2)
    assert [note.text for note in driver.all(Note)] == [
        "leaving, because its time limit is near; first 1 running tasks are finished"
    ]
    driver.wait(4.9)
    assert driver.all(Kill) == [Kill("a", signal.SIGTERM), Kill("a", signal.SIGKILL)]


def test_an_idle_worker_leaves_after_its_idle_timeout() -> None:
    driver = CoreDriver(Limits(idle_seconds=10))
    driver.grant(grant("a"))
    driver.start("a")
    driver.wait(60)
    driver.exit("a", seconds=60)
    driver.settle()
    assert driver.all(Leave, driver.wait(9.9)) == []
    assert driver.all(Leave, driver.wait(0.2)) == [Leave("worker-1")]


def test_it_leaves_after_its_number_of_tasks_and_takes_no_more() -> None:
    driver = CoreDriver(Limits(max_tasks=2), cores=4)
    assert driver.asked().body["max_tasks"] == 2
    driver.grant(grant("a"))
    assert driver.asked().body["max_tasks"] == 1
    driver.grant(grant("b"), grant("c"))
    assert driver.running() == ["a", "b"]
    for execution in "ab":
        driver.start(execution)
        driver.exit(execution)
    driver.acknowledge()
    driver.acknowledge()
    assert driver.core.left


def test_results_of_an_earlier_life_are_announced_and_reported() -> None:
    spooled = {"execution": "old", "token": "t", "exit_status": "success"}
    driver = CoreDriver(replaces="worker-0", ends=[spooled])
    (register,) = driver.all(Register)
    assert (register.replaces, register.finished) == ("worker-0", ["old"])
    assert driver.reports() == [spooled]
    assert driver.all(Ask)[0].body["held"] == ["old"]
    driver.acknowledge()
    assert driver.core.held == []


def test_what_a_task_wrote_is_sent_before_its_end_is_reported() -> None:
    driver = CoreDriver(register=False)
    driver.say(Measured(Resources(millicores=1000)))
    driver.say(Registered(worker="w", wait_seconds=20, uploads=True))
    driver.grant(grant("a"), grant("b"))
    driver.start("a")
    assert driver.all(Sync, driver.exit("a")) == [Sync("a")]
    assert driver.reports() == []
    assert driver.running() == ["a", "b"]
    assert driver.core.held == ["b", "a"] or driver.core.held == ["a", "b"]
    driver.say(Synced(execution="a", excess={"big.bin": 7}))
    assert driver.end_of("a")["excess"] == {"big.bin": 7}
    assert Clear("a", True) in driver.done


def test_a_draining_worker_does_not_wait_for_ever_to_send_files() -> None:
    driver = CoreDriver(register=False)
    driver.say(Measured(Resources(millicores=1000)))
    driver.say(Registered(worker="w", wait_seconds=20, uploads=True))
    driver.grant(grant("a"))
    driver.start("a")
    driver.exit("a")
    driver.say(Drain("SIGTERM"))
    assert driver.all(Leave, driver.wait(60)) == [Leave("w")]
    assert [end["execution"] for end in driver.core.outstanding] == ["a"]


def test_nothing_is_remembered_of_tasks_that_ended_long_before_their_timeout() -> None:
    driver = CoreDriver(cores=1)
    for number in range(2500):
        name = f"t{number}"
        driver.grant(grant(name, timeout=86400))
        driver.start(name)
        driver.exit(name)
        driver.settle()
    assert len(driver.core._turn._reminders) < 2500
    driver.wait(86400)
    assert driver.all(Kill) == []


def test_a_server_that_does_not_let_it_in_ends_it() -> None:
    driver = CoreDriver(register=False)
    driver.say(Measured(Resources(millicores=1000)))
    assert driver.all(Leave, driver.say(TurnedAway("no such token"))) == [Leave(None)]
    assert driver.core.turned_away


def test_a_server_that_has_let_it_in_before_is_waited_for() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(grant("a"))
    driver.start("a")
    driver.say(Refused(worker="worker-1"))
    noted = driver.all(Note, driver.say(*[TurnedAway("its certificate has expired")] * 2))
    assert noted == [Note("its certificate has expired (trying again)", warning=True)]
    assert not driver.core.left


def test_a_drain_by_the_server_returns_the_queue_and_goes_on() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(grant("a"), grant("queued"))
    driver.start("a")
    driver.say(Claimed(request=driver.asked().body["request"], drain=True))
    assert driver.given_back() == ["queued"]
    assert not driver.core.left


def test_busy_workers_report_in_batches() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(*(grant(f"t{number}", estimated_runtime=0.001) for number in range(40)))
    for number in range(20):
        driver.start(f"t{number}")
        driver.now += 0.001
        driver.exit(f"t{number}", seconds=0.001)
    assert driver.all(Send) == []
    driver.wait(0.2)
    (send,) = driver.all(Send)
    assert len(send.reports) == 20


def test_what_is_gone_is_told_with_each_claim_until_one_is_answered() -> None:
    driver = CoreDriver()
    first = driver.asked().body["request"]
    [forget] = driver.all(Forget, driver.say(Claimed(request=first, forget=["task", "other/2"])))
    assert forget == Forget(["task", "other/2"])
    driver.say(Forgotten(names=["task"]))
    second = driver.say(Claimed(request=driver.asked().body["request"]))
    assert [ask.body["forgotten"] for ask in driver.all(Ask, second)] == [["task"]]
    driver.say(Forgotten(names=["other/2"]))
    driver.say(Unanswered(request=first))
    third = driver.say(Claimed(request=driver.asked().body["request"]))
    assert [ask.body["forgotten"] for ask in driver.all(Ask, third)] == [["other/2"]]
    last = driver.say(Claimed(request=driver.asked().body["request"]))
    assert ["forgotten" in ask.body for ask in driver.all(Ask, last)] == [False]


# What the queue wants back


def short(execution: str, **fields: Any) -> Grant:
    """A task of which it is known that it takes half a second."""
    return grant(execution, estimated_runtime=0.5, **fields)


def given_back_at_once(actions: list[Action]) -> list[str]:
    """Those whose return is told with these actions already."""
    reports = [report for send in CoreDriver().all(Send, actions) for report in send.reports]
    return [report["execution"] for report in reports if report.get("given_back")]


def test_what_has_not_begun_is_given_back_at_once_when_the_queue_wants_it() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(short("a"), short("b"), short("c"))
    driver.start("a")
    open_claim = driver.asked().body["request"]
    actions = driver.say(Claimed(request=open_claim, take_back=["b", "unknown"]))
    assert given_back_at_once(actions) == ["b"]
    driver.settle()
    actions = driver.say(Reported(take_back=["b", "c"]))
    assert given_back_at_once(actions) == ["c"]
    driver.settle()
    assert driver.core.held == ["a"]
    assert driver.given_back() == ["b", "c"]


def test_a_start_is_told_at_once_when_the_queue_wants_the_task_back() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(short("a"), short("b"))
    driver.start("a")
    actions = driver.say(Reported(take_back=["a"]))
    (send,) = driver.all(Send, actions)
    assert [(report["execution"], report["pid"]) for report in send.reports] == [("a", 4711)]
    driver.acknowledge()
    assert driver.all(Send, driver.say(Reported(take_back=["a"]))) == []
    driver.wait(1)
    starts = [report for report in driver.reports() if "pid" in report and "exit_status" not in report]
    assert [report["execution"] for report in starts] == ["a"]


def test_an_end_is_told_at_once_when_the_queue_wants_the_task_back() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(short("a"), short("b"), short("c"))
    driver.start("a")
    driver.exit("a")
    assert driver.reports() == []
    claims = driver.asked().body["number"]
    actions = driver.say(Claimed(request=driver.asked().body["request"], take_back=["a"]))
    assert [report["execution"] for send in driver.all(Send, actions) for report in send.reports] == ["a"]
    assert driver.asked().body["number"] == claims  # the same would be asked again
    driver.acknowledge()
    assert driver.asked().body["number"] == claims + 1


def test_the_next_claim_does_not_wait_for_ever_for_a_report_that_was_asked_for() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(grant("a", estimated_runtime=0.001), grant("b", estimated_runtime=0.001))
    claims = driver.asked().body["number"]
    driver.say(Claimed(request=driver.asked().body["request"], take_back=["b"]))
    driver.wait(0.09)
    assert driver.asked().body["number"] == claims
    driver.wait(0.02)
    assert driver.asked().body["number"] == claims + 1


def test_a_task_in_a_lane_is_withdrawn_when_the_queue_wants_it_back() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(*(grant(name, estimated_runtime=0.001) for name in "abc"))
    assert driver.running() == ["a", "b", "c"]
    driver.start("a")
    actions = driver.say(Reported(take_back=["b", "c"]))
    assert driver.all(Withdraw, actions) == [Withdraw("b"), Withdraw("c")]
    assert driver.all(Withdraw, driver.say(Reported(take_back=["b", "c"]))) == []
    assert given_back_at_once(driver.say(Dropped("c"))) == ["c"]
    driver.acknowledge()
    (send,) = driver.all(Send, driver.start("b"))
    assert [(report["execution"], report["pid"]) for report in send.reports] == [("b", 4711)]
    assert driver.given_back() == ["c"]


def test_the_end_of_a_task_that_was_to_be_withdrawn_is_told_at_once() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(*(grant(name, estimated_runtime=0.001) for name in "abc"))
    driver.start("a")
    driver.say(Reported(take_back=["a"]))
    driver.acknowledge()
    driver.say(Reported(take_back=["b"]))
    (send,) = driver.all(Send, driver.exit("b"))
    assert [(report["execution"], report["exit_status"]) for report in send.reports] == [("b", "success")]


def test_what_is_cancelled_or_stopped_in_its_lane_is_withdrawn_once() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(grant("a", estimated_runtime=0.001), grant("b", estimated_runtime=0.001))
    driver.start("a")
    driver.say(Reported(cancel=["b"], take_back=["b"]))
    assert driver.all(Withdraw) == [Withdraw("b")]
    driver.say(Dropped("b"))
    assert driver.end_of("b")["exit_status"] == "cancelled"
    assert driver.given_back() == []


def test_what_is_being_sent_is_not_given_back() -> None:
    driver = CoreDriver(register=False)
    driver.say(Measured(Resources(millicores=1000)))
    driver.say(Registered(worker="w", wait_seconds=20, uploads=True))
    driver.grant(grant("a"))
    driver.start("a")
    driver.exit("a")
    (send,) = driver.say(Reported(take_back=["a"]))
    assert isinstance(send, Send)
    assert [("given_back" in each, each["pid"]) for each in send.reports] == [(False, 4711)]
    assert driver.say(Reported(accepted=["a"], take_back=["a"])) == []


# Nothing is hoarded


def learned(driver: CoreDriver, count: int = 20, seconds: float = 0.01) -> None:
    """Let it run some tasks, so that it knows how long they take."""
    for number in range(count):
        driver.grant(grant(f"first{number}"))
        driver.wait(seconds)
        driver.exit(f"first{number}", seconds=seconds)
        driver.settle()


def test_what_waits_for_tasks_that_run_on_and_on_goes_back_when_that_is_seen() -> None:
    driver = CoreDriver(cores=2)
    learned(driver)
    driver.grant(grant("s1"), grant("s2"), *(grant(f"t{number}") for number in range(20)))
    in_lanes = set(driver.running()) - {"s1", "s2"}
    assert driver.asked().body["ahead"]["seconds"] > 0
    driver.start("s1")
    driver.start("s2")
    driver.wait(0.45)
    assert driver.given_back() == []
    actions = driver.wait(0.1)
    withdrawn = {withdraw.execution for withdraw in driver.all(Withdraw, actions)}
    assert withdrawn == {each for each in in_lanes if each.startswith("t")}
    driver.say(*(Dropped(execution) for execution in withdrawn))
    assert sorted(driver.given_back()) == sorted(f"t{number}" for number in range(20))
    assert "ahead" not in driver.asked().body
    driver.exit("s1", seconds=30)
    assert driver.asked().body["ahead"]["resources"]["cores"] == 1


def test_what_fits_beside_a_long_task_stays() -> None:
    driver = CoreDriver(cores=2)
    learned(driver)
    driver.grant(grant("s1"), grant("s2"), wide("wide"), grant("t", priority=-1))
    driver.start("s1")
    driver.wait(0.3)
    driver.exit("s2", seconds=0.3)
    driver.start("t")
    driver.wait(0.3)
    assert driver.given_back() == ["wide"]
    assert driver.asked().body["ahead"]["resources"]["cores"] == 1


def test_nothing_is_asked_ahead_while_tasks_run_that_are_known_to_be_long() -> None:
    driver = CoreDriver(cores=1)
    learned(driver)
    long = {"estimated_runtime": 60, "class": "long"}
    driver.grant(grant("long", **long), grant("t"))
    assert driver.running()[-1] == "long"
    assert driver.given_back() == ["t"]
    assert "ahead" not in driver.asked().body


def test_a_class_that_is_known_to_be_long_is_told_so_that_none_of_it_waits() -> None:
    driver = CoreDriver(cores=2)
    learned(driver)
    driver.grant(grant("long", estimated_runtime=60, **{"class": "long"}))
    assert driver.asked().body["ahead"]["classes"] == {"class": pytest.approx(0.01), "long": 60}


# What comes first starts first


def test_what_comes_with_a_higher_priority_starts_before_what_waits() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(short("a"), short("low1", order="1"), short("low2", order="2"))
    driver.grant(short("high", priority=100, order="3", **{"class": "other"}))
    for execution in ["a", "high", "low1"]:
        driver.wait(0.5)
        driver.exit(execution, seconds=0.5)
    assert driver.running() == ["a", "high", "low1", "low2"]


def test_what_starts_at_once_starts_in_order_and_counts_for_its_queue() -> None:
    driver = CoreDriver(cores=1)
    shares = [("a", 3), ("b", 1)]
    driver.grant(*(short(f"{queue}{n}", queue=queue, weight=weight) for queue, weight in shares for n in range(3)))
    for _ in range(5):
        driver.wait(0.5)
        driver.exit(driver.running()[-1], seconds=0.5)
    assert driver.running() == ["a0", "b0", "a1", "a2", "b1", "b2"]


def test_when_more_comes_than_may_wait_what_would_start_last_goes_back() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(short("a"), *(short(f"low{number}", order=f"{number}") for number in range(4)))
    assert len(driver.core.held) == 5
    driver.grant(*(short(f"high{number}", priority=1, order=f"{number}") for number in range(4)))
    assert driver.given_back() == ["low2", "low3"]


def test_a_claim_tells_what_waits_and_stays_open_while_enough_does() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(*(short(f"t{number}", order=f"{number}", queue="q") for number in range(5)))
    body = driver.asked().body
    assert body["waiting"] == {"q": {"turn": 1.0, "seconds": 0.5, "tasks": [[0, 4, "4"]]}}
    assert (body["turn"], body["turns"], body["ahead"]["seconds"]) == (0.0, {"q": 1.0}, pytest.approx(2.0, rel=1e-5))
    claims = []
    for number in range(5):
        driver.wait(0.25)
        driver.exit(f"t{number}", seconds=0.5)
        driver.wait(0.25)
        driver.settle()
        claims.append(driver.asked().body["number"] - body["number"])
    assert claims == [0, 1, 1, 1, 2]
    assert driver.asked().body["max_tasks"] == 256


# What ended tasks left is read while the worker goes on


def test_the_resources_of_a_task_are_free_before_what_it_left_has_been_read() -> None:
    driver = CoreDriver(cores=1)
    driver.grant(grant("a"))
    driver.start("a")
    exited, collected = driver.exited("a", collected={"files_bytes": 7})
    driver.say(exited)
    assert driver.asked().body["resources"]["cores"] == 1
    assert "a" in driver.asked().body["held"]
    assert not [report for report in driver.reports() if "exit_status" in report]
    driver.grant(grant("b"))
    assert driver.running() == ["a", "b"]
    driver.say(collected)
    assert (driver.end_of("a")["exit_status"], driver.end_of("a")["files_bytes"]) == ("success", 7)


def test_whoever_cancels_a_task_that_has_ended_comes_too_late() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"))
    driver.start("a")
    exited, collected = driver.exited("a", 3 << 8)
    driver.say(exited)
    assert driver.all(Kill, driver.say(Claimed(request=driver.asked().body["request"], cancel=["a"]))) == []
    assert driver.asked().body["cancelling"] == ["a"]
    driver.say(collected)
    assert driver.end_of("a")["exit_status"] == "failure (exit code 3)"


def test_a_disk_that_does_not_tell_what_a_task_left_is_the_machines_fault() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"))
    driver.start("a")
    exited, collected = driver.exited("a")
    driver.say(exited)
    driver.wait(COLLECT_SECONDS)
    assert driver.end_of("a")["exit_status"].startswith("failure (worker: what the task left could not be read")
    reports = len(driver.reports())
    driver.say(collected)
    driver.settle()
    assert len(driver.reports()) == reports


def test_a_worker_whose_disk_does_not_keep_up_takes_nothing_more() -> None:
    driver = CoreDriver(cores=MOST_COLLECTING)
    names = [f"t{number}" for number in range(MOST_COLLECTING)]
    driver.grant(*map(grant, names))
    for name in names:
        driver.start(name)
    ends = [driver.exited(name) for name in names]
    driver.say(*[exited for exited, _ in ends])
    driver.wait(1.0)
    assert driver.asked().body["max_tasks"] == 0
    driver.say(ends[0][1])
    driver.wait(1.0)
    assert driver.asked().body["max_tasks"] > 0


def test_a_worker_that_registers_anew_keeps_the_ends_that_are_being_read() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"))
    driver.start("a")
    exited, collected = driver.exited("a")
    driver.say(exited)
    (register,) = driver.all(Register, driver.say(Refused(worker="worker-1")))
    assert register.finished == ["a"]
    driver.say(collected)
    driver.say(Registered(worker="worker-2", wait_seconds=20, uploads=False))
    assert driver.end_of("a")["exit_status"] == "success"


def test_a_task_that_waits_for_another_supervisor_is_not_lost_with_the_one_that_died() -> None:
    driver = CoreDriver()
    driver.grant(grant("a"), grant("b"))
    driver.start("a")
    driver.say(SupervisorLost(frozenset("a")))
    assert driver.end_of("a")["exit_status"] == "failure (worker: its supervisor died)"
    driver.start("b")
    driver.exit("b")
    assert driver.end_of("b")["exit_status"] == "success"


# Less than one core


def test_half_a_core_is_offered_as_one_and_given_to_one_task_at_a_time() -> None:
    driver = CoreDriver(cores=0.5)
    (register,) = driver.all(Register)
    assert register.resources.millicores == 1000
    (note,) = [note.text for note in driver.all(Note) if "less than one" in note.text]
    assert note.startswith("there are 0.5 cores")
    assert driver.asked().body["resources"]["cores"] == 1
    driver.grant(grant("a"), grant("b"))
    assert driver.running() == ["a"]
    driver.start("a")
    driver.exit("a")
    assert driver.end_of("a")["granted_resources"]["cores"] == 0.5
    assert driver.running() == ["a", "b"]
    driver.start("b")
    driver.exit("b")
    assert driver.asked().body["resources"]["cores"] == 1


def test_parts_of_half_a_core_are_counted_as_what_they_are() -> None:
    driver = CoreDriver(cores=0.5)
    quarter = {"requested_resources": {"cores": 0.25}}
    driver.grant(grant("a", **quarter))
    driver.wait(1.0)
    assert driver.asked().body["resources"]["cores"] == 0.25
    driver.grant(grant("b", **quarter), grant("c", **quarter))
    assert driver.running() == ["a", "b"]


def test_a_worker_that_gets_a_whole_core_says_nothing_of_parts() -> None:
    driver = CoreDriver(cores=1)
    assert not driver.all(Note)
    driver.say(Measured(Resources(millicores=250, memory_bytes=1 << 30)))
    driver.say(Measured(Resources(millicores=250, memory_bytes=1 << 30)))
    assert ["there are 0.25 cores" in note.text for note in driver.all(Note)] == [True]
    driver.grant(grant("a"))
    assert driver.running() == ["a"]
