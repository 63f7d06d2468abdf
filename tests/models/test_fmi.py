"""`fmi`: a real FMU, built by PythonFMU, against the analytic solution."""

import csv
import math
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import pytest

from tests.models.running import DIRECTORY, SCHEDULERS, Cancel, post, run
from tests.support.waiting import eventually, processes_with

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="PythonFMU brings binaries for x86-64 only")


@pytest.fixture(scope="module")
def fmu(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of an FMU made of `decay.py`."""
    directory = tmp_path_factory.mktemp("fmu")
    program = Path(__file__).with_name("decay.py")
    command = [sys.executable, "-m", "pythonfmu", "build", "-f", str(program), "-d", str(directory)]
    subprocess.run(command, check=True, cwd=directory)
    return str(directory / "Decay.fmu")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, and nothing may stay."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(("start", "end", "step"), [(0, 3, 0.5), (-2.5, 0, None), (10, 11.05, 0.1)])
def test_the_outputs_at_the_end_are_the_analytic_solution(
    fmu: str, temporary: Path, scheduler: str, start: float, end: float, step: float | None
) -> None:
    period = {"CITYOPT.simulation_start": start, "CITYOPT.simulation_end": end}
    inputs = {"fmu": fmu, "p.k": 0.7, "p.x0": 3, **period, **({"step": step} if step else {})}
    result = run("fmi", inputs, scheduler=scheduler)
    assert set(result) == {"o.x", "o.steps", "o.small"}
    assert result["o.x"] == pytest.approx(3 * math.exp(-0.7 * (end - start)), rel=1e-9)
    assert result["o.small"] is False
    assert step is None or result["o.steps"] == math.ceil((end - start) / step)
    assert list(temporary.iterdir()) == []


def test_without_a_period_and_parameters_the_fmu_decides(fmu: str) -> None:
    assert run("fmi", {"fmu": fmu})["o.x"] == pytest.approx(math.exp(-1), rel=1e-9)


def test_the_file_may_be_relative_to_the_model(fmu: str) -> None:
    relative = os.path.relpath(fmu, DIRECTORY / "fmi")
    assert run("fmi", {"fmu": relative, "p.k": 0, "CITYOPT.other": "nothing"})["o.x"] == 1


def test_the_configuration_may_name_the_file(fmu: str) -> None:
    with dask.config.set({"simsvc.model.fmu": fmu}):
        assert run("fmi", {"p.k": 0})["o.x"] == 1


def test_many_simulations_in_one_process_do_not_meet(fmu: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        results = threads.map(lambda k: run("fmi", {"fmu": fmu, "p.k": k, "step": 0.1}), range(8))
    assert [each["o.x"] for each in results] == pytest.approx([math.exp(-k) for k in range(8)], rel=1e-9)
    assert "decay" not in sys.modules


def test_the_work_directory_gets_the_trajectory_and_what_the_fmu_writes(fmu: str, tmp_path: Path) -> None:
    inputs = {"p.k": math.log(2), "p.x0": 8.0, "p.write": "note.txt", "CITYOPT.simulation_end": 4, "step": 1}
    run("fmi", {"fmu": fmu, **inputs}, workdir=tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fmu.log", "note.txt", "trajectory.csv"]
    assert (tmp_path / "note.txt").read_text() == "from the FMU"
    names, *rows = csv.reader((tmp_path / "trajectory.csv").read_text().splitlines())
    assert names == ["time", "x", "steps", "small"]
    assert [float(row[0]) for row in rows] == [0, 1, 2, 3, 4]
    assert [float(row[1]) for row in rows] == pytest.approx([8, 4, 2, 1, 0.5], rel=1e-9)


def programs(workdir: Path) -> list[int]:
    """The simulations that run in this work directory, or in a temporary one below it."""
    found = []
    for pid, command in processes_with("simulate.py"):
        try:
            if Path(f"/proc/{pid}/cwd").readlink().is_relative_to(workdir) and "outputs.json" in command:
                found.append(pid)
        except OSError:
            continue  # it has ended
    return found


@pytest.mark.parametrize("pause_seconds", [0.01, 3600], ids=["between steps", "in a step that does not end"])
def test_cancelling_ends_the_simulation(fmu: str, tmp_path: Path, temporary: Path, pause_seconds: float) -> None:
    cancel = Cancel()
    inputs = {"fmu": fmu, "p.pause_seconds": pause_seconds, "p.write": "begun", "CITYOPT.simulation_end": 1e6}
    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(run, "fmi", inputs, workdir=tmp_path, cancel=cancel)
        try:
            eventually((tmp_path / "begun").exists, show=lambda: result)
            assert len(programs(tmp_path)) == 1
            if pause_seconds < 1:
                rows = tmp_path / "trajectory.csv"
                eventually(lambda: rows.exists() and len(rows.read_text().splitlines()) > 3, show=lambda: result)
            assert not result.done()
        finally:
            cancel.set(True)
        with pytest.raises(CancelledError, match="the task was cancelled"):
            result.result(timeout=60)
    assert programs(tmp_path) == []
    assert list(temporary.iterdir()) == []
    stopped = "it was told to stop, and stopped at" in (tmp_path / "fmu.log").read_text()
    assert stopped == (pause_seconds < 1), "an FMU may end its step and clean up, but not for long"


def test_an_fmu_that_fails_is_told_with_its_words(fmu: str, tmp_path: Path, temporary: Path) -> None:
    with pytest.raises(RuntimeError, match=r"Decay\.fmu: the simulation failed: .*this FMU was asked to fail"):
        run("fmi", {"fmu": fmu, "p.fail": True}, workdir=tmp_path)
    assert "this FMU was asked to fail" in (tmp_path / "fmu.log").read_text()
    assert list(temporary.iterdir()) == []


def test_an_fmu_that_crashes_harms_nothing_else(fmu: str, temporary: Path) -> None:
    with pytest.raises(RuntimeError, match=r"the simulation was ended by SIGABRT"):
        run("fmi", {"fmu": fmu, "p.crash": True})
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"fmu": None}, "input 'fmu' is None: give the name of the FMU's file"),
        ({"fmu": "none.fmu"}, "input 'fmu' is 'none.fmu': there is no file .*/models/fmi/none.fmu"),
        ({"fmu": "experiment.py"}, "experiment.py is no FMU that FMPy can read"),
        ({"p.speed": 1}, "there is no input 'p.speed': the inputs are fmu, step, .*p.k, .*p.x0"),
        ({"p.x": 1}, "there is no input 'p.x'"),
        ({"k": 1}, "there is no input 'k'"),
        ({"p.k": "fast"}, "input 'p.k' is 'fast': give a finite number"),
        ({"p.k": float("nan")}, "input 'p.k' is nan: give a finite number"),
        ({"p.k": True}, "input 'p.k' is True: give a finite number"),
        ({"p.fail": 1}, "input 'p.fail' is 1: give true or false"),
        ({"p.write": 1}, "input 'p.write' is 1: give a text"),
        ({"p.level": 1.5}, "input 'p.level' is 1.5: give a whole number"),
        ({"p.level": 2**31}, "'p.level' is 2147483648: give a whole number from -2147483648 to 2147483647"),
        ({"step": 0}, "input 'step' is 0: give a number greater than 0"),
        ({"CITYOPT.simulation_end": "noon"}, "input 'CITYOPT.simulation_end' is 'noon': give a finite number"),
        (
            {"CITYOPT.simulation_end": -1},
            "the simulation would be from 0 s to -1 s: give 'CITYOPT.simulation_end' after",
        ),
    ],
)
def test_an_input_that_does_not_fit_is_refused_before_anything_runs(
    fmu: str, change: dict[str, Any], error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        post("fmi", {"fmu": fmu, **change})


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.fmu", "w") as archive:
        archive.writestr("modelDescription.xml", "<nothing/>")
    with pytest.raises(ValueError, match=r"other\.fmu is no FMU that FMPy can read"):
        post("fmi", {"fmu": str(tmp_path / "other.fmu")})
