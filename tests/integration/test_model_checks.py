"""The posting check's processes: what models say, what becomes of those that hang or die, and what they find."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from banyan.config import Models
from banyan.errors import Unavailable
from banyan.models.checker import MAX_HOSTS, MAX_TOGETHER, Checker, Question
from tests.support.models import SUM, write_models
from tests.support.waiting import eventually, processes_with

Make = Callable[..., Checker]


@pytest.fixture
def checker_of(tmp_path: Path) -> Iterator[Make]:
    """A checker of models with these bodies; `seconds` and any setting may be given."""
    made: list[Checker] = []

    def make(seconds: float = 60.0, settings: dict[str, Any] | None = None, **bodies: str) -> Checker:
        path = write_models(tmp_path / "models", **bodies)
        made.append(Checker(Models(path=(path,), **(settings or {})), seconds))
        return made[-1]

    yield make
    for each in made:
        each.close()


def ask(checker: Checker, name: str, *inputs: dict[str, Any], workdir: bool = True) -> list[str | None]:
    questions = [Question(inputs=each, jobid=f"job-{number}", workdir=workdir) for number, each in enumerate(inputs)]
    return checker.check(checker.sources()[name], questions)


def hosts(tmp_path: Path) -> list[int]:
    """The processes that have a model of this test loaded: each writes its id."""
    return [int(file.name) for file in (tmp_path / "pids").iterdir()]


def test_what_a_model_says_against_each_task_is_told_in_order(checker_of: Make) -> None:
    checker = checker_of(add=SUM)
    assert ask(checker, "add", {"x": 1, "y": 2}, {"x": 1}, {}, {"x": float("nan"), "y": 1}) == [
        None,
        "add: ValueError: y is missing",
        "add: ValueError: x, y is missing",
        None,
    ]


def test_a_task_that_returns_no_computation_is_refused(checker_of: Make) -> None:
    (fault,) = ask(checker_of(plain="return {'sum': 3}"), "plain", {})
    assert fault == "plain: BadTask: model 'plain': task must return a Dask delayed computation, not dict"


def test_the_model_finds_merged_inputs_an_id_and_an_empty_directory_and_nothing_of_ours(
    checker_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANYAN_TOKEN", "a secret token")
    monkeypatch.setenv("SOMETHING", "of the server")
    checker = checker_of(
        look=f"""
        import json
        open(os.path.join(spec.workdir, "left"), "w").close() if spec.workdir else None
        told = {{
            "inputs": dict(spec.inputs), "id": spec.jobid, "workdir": spec.workdir, "env": dict(os.environ),
            "there": os.listdir(spec.workdir) if spec.workdir else None, "cancel": cancel.get(),
        }}
        json.dump(told, open({str(tmp_path / "told")!r}, "w"))
        return delayed(dict)()
        """
    )
    assert ask(checker, "look", {"c.x": 1, "": "😀", "$ref": [None]}) == [None]
    told = json.loads((tmp_path / "told").read_text())
    assert (told["inputs"], told["id"], told["cancel"]) == ({"c.x": 1, "": "😀", "$ref": [None]}, "job-0", False)
    assert (told["there"], os.path.exists(told["workdir"])) == (["left"], False)
    assert "SOMETHING" not in told["env"]
    assert not [name for name in told["env"] if name.startswith("BANYAN")]
    assert told["env"]["OMP_NUM_THREADS"] == "1"
    assert ask(checker, "look", {}, workdir=False) == [None]
    assert json.loads((tmp_path / "told").read_text())["workdir"] is None


def test_no_task_of_a_list_finds_what_the_check_of_another_one_left(checker_of: Make) -> None:
    checker = checker_of(
        leave="""
        if os.listdir(spec.workdir):
            raise ValueError(os.listdir(spec.workdir))
        if spec.inputs.get("leave"):
            os.makedirs(os.path.join(spec.workdir, "left", "deep"))
        return delayed(dict)()
        """
    )
    assert ask(checker, "leave", {}, {"leave": 1}, {"leave": 1}, {}) == [None] * 4


def test_the_process_stays_warm_until_its_model_changes(checker_of: Make, tmp_path: Path) -> None:
    body = f"open(os.path.join({str(tmp_path)!r}, 'pids', str(os.getpid())), 'w').close()\nreturn delayed(dict)()"
    (tmp_path / "pids").mkdir()
    checker = checker_of(m=body)
    assert ask(checker, "m", {}, {}) == ask(checker, "m", {}, {}) == [None, None]
    (first,) = hosts(tmp_path)
    write_models(tmp_path / "models", m=body + "\n# another version")
    assert ask(checker, "m", {}) == [None]
    assert len(hosts(tmp_path)) == 2
    assert not os.path.exists(f"/proc/{first}")


def test_a_process_in_which_threads_were_left_is_replaced_before_the_next_check(
    checker_of: Make, tmp_path: Path
) -> None:
    (tmp_path / "pids").mkdir()
    checker = checker_of(
        m=f"""
        import threading
        open(os.path.join({str(tmp_path)!r}, 'pids', str(os.getpid())), 'w').close()
        if threading.active_count() > 1:
            raise ValueError("there is another thread")
        threading.Thread(target=time.sleep, args=(spec.inputs["seconds"],), daemon=True).start()
        return delayed(dict)()
        """
    )
    for _ in range(3):
        assert ask(checker, "m", {"seconds": 600}) == [None]
    assert len(hosts(tmp_path)) == 3
    for _ in range(2):
        assert ask(checker, "m", {"seconds": 0}) == [None]
    assert len(hosts(tmp_path)) == 4


def test_a_process_that_was_killed_is_started_again(checker_of: Make, tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    checker = checker_of(
        m=f"open(os.path.join({str(tmp_path)!r}, 'pids', str(os.getpid())), 'w').close()\nreturn delayed(dict)()"
    )
    assert ask(checker, "m", {}) == [None]
    (first,) = hosts(tmp_path)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not _runs(first))
    assert ask(checker, "m", {}) == [None]
    assert len(hosts(tmp_path)) == 2


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_model_that_takes_its_process_with_it_refuses_the_task_and_the_rest_is_not_looked_at(
    checker_of: Make,
) -> None:
    checker = checker_of(die="os.kill(os.getpid(), spec.inputs['signal']) if spec.inputs else os._exit(3)")
    assert ask(checker, "die", {"signal": int(signal.SIGSEGV)}, {}) == [
        "die: the process that called its task was killed by SIGSEGV",
        None,
    ]
    assert ask(checker, "die", {}) == ["die: the process that called its task ended (exit code 3)"]


def test_of_many_tasks_the_one_that_kills_the_process_is_blamed_and_those_before_it_have_their_faults(
    checker_of: Make,
) -> None:
    checker = checker_of(
        seconds=2.0,
        m="""
        if spec.inputs["do"] == "hang":
            time.sleep(1000)
        if spec.inputs["do"] == "die":
            os._exit(3)
        if spec.inputs["do"] == "raise":
            raise ValueError(spec.jobid)
        return delayed(dict)()
        """,
    )
    good, bad = [{"do": ""}] * MAX_TOGETHER, {"do": "raise"}
    for last, text in (
        ("die", "the process that called its task ended (exit code 3)"),
        ("hang", "task did not return within 2 s (posting.check_seconds); leave long work to the graph"),
    ):
        number = len(good) + 1
        assert ask(checker, "m", *good, {"do": ""}, bad, {"do": ""}, bad, {"do": last}, bad) == [
            *[None] * number,
            f"m: ValueError: job-{number}",
            None,
            f"m: ValueError: job-{number + 2}",
            f"m: {text}",
            None,
        ]


def test_each_task_of_a_list_has_the_whole_time_to_itself(checker_of: Make) -> None:
    checker = checker_of(seconds=3.0, nap="time.sleep(spec.inputs['seconds'])\nreturn delayed(dict)()")
    assert ask(checker, "nap", *[{"seconds": 1.2}] * 4) == [None] * 4


def test_a_model_that_hangs_is_killed_with_its_subprocesses(checker_of: Make, tmp_path: Path) -> None:
    mark = f"mark-{tmp_path.name}-{os.getpid()}"
    checker = checker_of(
        seconds=2.0,
        hang=f"""
        subprocess.Popen(["sleep", "1000"], env={{"MARK": {mark!r}}}, start_new_session=True)
        time.sleep(1000)
        """,
    )
    assert ask(checker, "hang", {}) == [
        "hang: task did not return within 2 s (posting.check_seconds); leave long work to the graph"
    ]
    eventually(lambda: not processes_with(mark), show=lambda: processes_with(mark))


def test_a_model_that_cannot_be_imported_refuses_tasks_with_the_reason(checker_of: Make, tmp_path: Path) -> None:
    checker = checker_of()
    (tmp_path / "models" / "bad.py").write_text("import no_such_thing\ndef task(spec, cancel): pass\n")
    (fault,) = ask(checker, "bad", {})
    assert fault == "bad: it cannot be loaded: ModuleNotFoundError: No module named 'no_such_thing'"
    (tmp_path / "models" / "slow.py").write_text("import time\ntime.sleep(1000)\ndef task(spec, cancel): pass\n")
    hasty = checker_of(settings={"host_start_seconds": 1.0})
    assert ask(hasty, "slow", {}) == ["slow: it could not be imported within 1 s (models.host_start_seconds)"]


def test_dask_configuration_is_in_force_when_the_model_is_imported(checker_of: Make, tmp_path: Path) -> None:
    checker = checker_of(settings={"dask": {"simsvc": {"model": {"limit": 5}}}})
    text = "import dask\nLIMIT = dask.config.get('simsvc.model.limit')\n\ndef task(spec, cancel):\n"
    (tmp_path / "models" / "set.py").write_text(f"{text}    raise ValueError(LIMIT)\n")
    assert ask(checker, "set", {}) == ["set: ValueError: 5"]


def test_only_a_few_models_stay_loaded_and_idle_ones_go(checker_of: Make, tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    body = f"open(os.path.join({str(tmp_path)!r}, 'pids', str(os.getpid())), 'w').close()\nreturn delayed(dict)()"
    names = [f"m{number}" for number in range(MAX_HOSTS + 1)]
    checker = checker_of(settings={"host_idle_seconds": 600.0}, **dict.fromkeys(names, body))
    for name in names:
        assert ask(checker, name, {}) == [None]
    alive = [pid for pid in hosts(tmp_path) if _runs(pid)]
    assert (len(hosts(tmp_path)), len(alive)) == (MAX_HOSTS + 1, MAX_HOSTS)
    impatient = checker_of(settings={"host_idle_seconds": 0.2})
    assert ask(impatient, "m0", {}) == [None]
    (last,) = [pid for pid in hosts(tmp_path) if pid not in alive and _runs(pid)] or [0]
    eventually(lambda: not _runs(last))


def test_a_process_is_replaced_after_so_many_checks(checker_of: Make, tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    body = f"open(os.path.join({str(tmp_path)!r}, 'pids', str(os.getpid())), 'w').close()\nreturn delayed(dict)()"
    assert ask(checker_of(settings={"host_max_tasks": 2}, m=body), "m", {}, {}, {}) == [None, None, None]
    assert len(hosts(tmp_path)) == 2


def test_many_threads_ask_at_once(checker_of: Make) -> None:
    checker = checker_of(add=SUM, other=SUM)
    answers: list[list[str | None]] = []
    threads = [
        threading.Thread(target=lambda n=name: answers.append(ask(checker, n, {"x": 1, "y": 1}, {"x": 1})))
        for name in ("add", "other", "add", "other")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(str(answer[1]) for answer in answers) == [
        *["add: ValueError: y is missing"] * 2,
        *["other: ValueError: y is missing"] * 2,
    ]
    assert all(answer[0] is None for answer in answers)


def test_closing_ends_a_check_that_is_under_way_and_begins_no_other(checker_of: Make, tmp_path: Path) -> None:
    checker = checker_of(hang=f"open({str(tmp_path / 'begun')!r}, 'w').close()\ntime.sleep(1000)")
    refusals: list[str] = []

    def hang() -> None:
        with pytest.raises(Unavailable) as refused:
            ask(checker, "hang", {})
        refusals.append(str(refused.value))

    thread = threading.Thread(target=hang)
    thread.start()
    eventually((tmp_path / "begun").exists)
    checker.close()
    thread.join()
    assert refusals == ["the server is stopping; try again"]
    with pytest.raises(Unavailable, match="stopping"):
        ask(checker, "hang", {})


def test_faulty_models_are_told_in_the_log_once(
    checker_of: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checker = checker_of(good=SUM)
    (tmp_path / "models" / "broken.py").write_text("def task(:")
    for _ in range(3):
        assert checker.sources()["broken"].fault is not None
    assert len([text for text in caplog.messages if "'broken'" in text]) == 1
