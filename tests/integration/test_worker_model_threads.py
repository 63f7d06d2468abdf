"""Threads that a model leaves behind, in real host processes: the next task finds none of them."""

from pathlib import Path

import pytest

from tests.support.fake_server import FakeServer
from tests.support.probe import ends, run

LEAKS = ["daemon", "other", "timer", "bare", "pool", "sleeping pool"]
STAYS = ["ending", "idle pool", "nested", "nothing"]


def threads_of(tmp_path: Path, *does: str, scheduler: str = "threads", **fields: object) -> list[dict[str, object]]:
    """The ends of tasks that start these threads, one after the other, and what runs when the next one begins."""
    (tmp_path / "models").mkdir(exist_ok=True)
    (tmp_path / "models" / "leaking.py").write_text(_LEAKING)
    models = {"path": [str(tmp_path / "models")], "scheduler": scheduler}
    tasks = [{"model": "leaking", "inputs": {"do": do}, **fields} for do in does]
    in_order = {"ask_ahead_seconds": 0}  # what waited here would be given back behind a task that takes long
    return ends(tmp_path / "root", *tasks, cores=1, models=models, tasks=in_order)


@pytest.mark.parametrize("scheduler", ["threads", "synchronous", "processes", "distributed"])
def test_a_host_in_which_threads_were_left_is_replaced_before_the_next_task(tmp_path: Path, scheduler: str) -> None:
    told = threads_of(tmp_path, *LEAKS, "nothing", scheduler=scheduler)
    assert [each["exit_status"] for each in told] == ["success"] * len(told)
    assert [each["result"] for each in told] == [{"earlier": []}] * len(told)
    assert len({each["pid"] for each in told}) == len(told)
    assert ["the model has left threads behind (" in str(each["stderr_tail"]) for each in told] == [True] * 6 + [False]


@pytest.mark.parametrize("scheduler", ["threads", "synchronous", "processes", "distributed"])
def test_threads_that_end_or_wait_for_work_cost_no_host(tmp_path: Path, scheduler: str) -> None:
    told = threads_of(tmp_path, *STAYS, "nothing", scheduler=scheduler)
    assert [each["exit_status"] for each in told] == ["success"] * len(told)
    assert {each["stderr_tail"] for each in told} == {""}
    assert len({each["pid"] for each in told}) == 1


def test_a_task_that_fails_and_leaves_a_thread_costs_its_host_too(tmp_path: Path) -> None:
    failed, after = threads_of(tmp_path, "fail", "nothing", max_shutdown_time=0.2)
    assert failed["exit_status"] == "failure (ValueError)"
    assert (after["exit_status"], after["pid"] != failed["pid"]) == ("success", True)


def test_a_thread_of_the_callback_stays_with_its_host(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    text = "def worker_callback():\n    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    (tmp_path / "models" / "calling.py").write_text(_LEAKING + text)
    server = FakeServer([{"model": "calling", "inputs": {"do": "nothing"}} for _ in range(2)])
    first, second = run(tmp_path / "root", server, cores=1, models={"path": [str(tmp_path / "models")]})
    assert (first["exit_status"], second["pid"]) == ("success", first["pid"])


_LEAKING = """
import _thread
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import dask
from dask import delayed

POOL = ThreadPoolExecutor(2)


def task(spec, cancel):
    return delayed(leak)(spec.inputs["do"])


def forever():
    marked = "of a task"
    while marked:
        time.sleep(0.01)


def leak(do):
    earlier = [thread.name for thread in threading.enumerate() if thread.name.startswith(("left", "Timer"))]
    if do in ("daemon", "fail"):
        threading.Thread(target=forever, name="left", daemon=True).start()
    elif do == "other":
        threading.Thread(target=forever, name="left").start()
    elif do == "timer":
        threading.Timer(600, forever).start()
    elif do == "bare":
        begun = threading.Event()
        _thread.start_new_thread(lambda: (begun.set(), forever()), ())
        begun.wait()
    elif do == "pool":
        POOL.submit(forever)
    elif do == "sleeping pool":
        POOL.submit(time.sleep, 600)
    elif do == "ending":
        threading.Thread(target=time.sleep, args=(0.02,), daemon=True).start()
    elif do == "idle pool":
        list(POOL.map(abs, range(10)))
    elif do == "nested":
        dask.compute([delayed(abs)(number) for number in range(4)], scheduler="threads", num_workers=2)
    if do == "fail":
        raise ValueError("and a thread goes on")
    return {"earlier": earlier}


"""
