"""`banyan up --config`: one file for the server and its worker, and each says which part was for whom."""

from pathlib import Path

import pytest

from tests.support.up import started

MODEL = """
from dask import delayed


def task(spec, cancel):
    return delayed(dict)(twice=2 * spec.inputs["x"])
"""


@pytest.mark.parametrize("named_by", ["flag", "variable"])
def test_what_the_file_says_reaches_whom_it_is_for(tmp_path: Path, named_by: str) -> None:
    models = tmp_path / "my models"
    models.mkdir()
    (models / "doubling.py").write_text(MODEL)
    file = tmp_path / "banyan.toml"
    file.write_text(
        f"cores = 2\nlabels = {{site = 'north'}}\n[models]\npath = ['{models}']\n[limits]\nmax_list_items = 9\n"
    )
    arguments, env = (["--config", str(file)], {}) if named_by == "flag" else ([], {"BANYAN_CONFIG": str(file)})
    with started(tmp_path / "up", *arguments, env=env) as up:
        done = up.run("run", "doubling", "x=4", "--wait")
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, '{"twice": 8}'), done.stderr
        [worker] = up.json("workers")
        assert (worker["labels"], worker["resources"]["cores"]) == ({"site": "north"}, 2)
        logs = tmp_path / "up" / "data" / "logs"
        parts = {"server": "limits.max_list_items", "workers": "cores, labels", "both": "models.path"}
        said = f"{file}: for the server: {parts['server']}; for both: {parts['both']}; for workers: {parts['workers']}"
        assert f"banyan server: {said}" in (logs / "server.log").read_text()
        said = f"{file}: for the worker: {parts['workers']}; for both: {parts['both']}; for the server: "
        assert f"banyan worker: {said}{parts['server']}" in (logs / "worker.log").read_text()


def test_a_file_of_the_workers_own_goes_before_its_part(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "doubling.py").write_text(MODEL)
    (tmp_path / "both.toml").write_text(f"cores = 2\n[models]\npath = ['{tmp_path / 'models'}']\n")
    (tmp_path / "own.toml").write_text("cores = 1\n")
    files = ["--config", str(tmp_path / "both.toml"), "--worker-config", str(tmp_path / "own.toml")]
    with started(tmp_path / "up", *files) as up:
        done = up.run("run", "doubling", "x=4", "--wait")
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, '{"twice": 8}'), done.stderr
        assert up.json("workers")[0]["resources"]["cores"] == 1


def test_what_is_for_nobody_stops_it_before_anything_is_started(tmp_path: Path) -> None:
    file = tmp_path / "banyan.toml"
    for text, fault in [
        ("[nothing]\nx = 1\n", "nothing: there is no such setting"),
        ("[reserve]\ncoers = 1\n", "reserve.coers: there is no such setting; did you mean reserve.cores?"),
        ("cores = 'many'\n", "cores: should be a valid number"),
    ]:
        file.write_text(text)
        with (
            pytest.raises(AssertionError, match="banyan up exited 2"),
            started(tmp_path / fault.partition(":")[0], "--config", str(file)),
        ):
            pass
        directory = tmp_path / fault.partition(":")[0]
        assert fault in (directory / "up.log").read_text()
        assert not (directory / "data" / "mongo").exists()
