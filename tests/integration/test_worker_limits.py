"""What every task and host has of the worker that started it: a umask and a limit on core dumps, and nothing else."""

import ast
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from banyan.config import Models
from banyan.models.checker import Checker, Question
from tests.support.models import write_models

LOOK = """
    import resource
    umask = os.umask(0)
    os.umask(umask)
    paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    descriptors = [os.readlink(path) for path in paths if os.path.lexists(path)]
    seen = {"umask": umask, "core": list(resource.getrlimit(resource.RLIMIT_CORE)), "descriptors": descriptors}
    return delayed(dict)(seen | {"variables": sorted(os.environ)})
"""
TELL = """
    import resource
    raise ValueError(f"{os.umask(0)} {resource.getrlimit(resource.RLIMIT_CORE)}")
"""
SHELL = "umask; ulimit -Sc; ulimit -Hc; for fd in /proc/$$/fd/*; do readlink $fd; done; true"


@pytest.mark.parametrize(
    ("settings", "umask", "core_bytes"),
    [({}, 0o022, 0), ({"BANYAN_TASKS__UMASK": "027", "BANYAN_TASKS__CORE_BYTES": "1 MiB"}, 0o027, 2**20)],
)
def test_whatever_the_worker_inherited_its_tasks_have_only_what_is_stated(
    tmp_path: Path, settings: dict[str, str], umask: int, core_bytes: int
) -> None:
    tasks, secret, work = tmp_path / "tasks", tmp_path / "secret", tmp_path / "work"
    tasks.write_text(f"{json.dumps({'command': SHELL})}\n{json.dumps({'model': 'look'})}\n")
    models = write_models(tmp_path / "models", look=LOOK)
    command = [sys.executable, "-m", "banyan", "worker", "--cores", "1", "--models", models, "--workdir", str(work)]
    with secret.open("w") as ours:
        done = subprocess.run(
            ["sh", "-c", 'umask 000; ulimit -c $(ulimit -Hc); exec "$@"', "sh", *command, "--tasks", str(tasks)],
            env={**os.environ, **settings, "SECRET": "of the worker"},
            pass_fds=[ours.fileno()],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    core_bytes = core_bytes if hard == resource.RLIM_INFINITY else min(core_bytes, hard)
    shell, model = [json.loads(line) for line in done.stdout.splitlines()]
    said = shell["stdout_tail"].splitlines()
    assert said[:3] == [f"0{umask:03o}", str(core_bytes // 512), str(core_bytes // 512)]
    assert ours_among(said[3:], tmp_path) == set()
    assert said[3] == "/dev/null"
    assert [link.partition(":")[0] for link in said[4:]] == ["pipe", "pipe"]
    seen: dict[str, Any] = model["result"]
    assert (seen["umask"], seen["core"]) == (umask, [core_bytes, core_bytes])
    assert ours_among(seen["descriptors"], tmp_path) == set()
    assert len({link for link in seen["descriptors"] if link.startswith("pipe")}) == 2
    assert "SECRET" not in seen["variables"]
    assert (work / "000001/1/stdout").stat().st_mode & 0o777 == 0o644 & ~umask


def test_the_process_that_checks_posted_tasks_is_limited_too(tmp_path: Path) -> None:
    write_models(tmp_path / "models", tell=TELL)
    checker = Checker(Models(path=(str(tmp_path / "models"),)))
    try:
        (said,) = checker.check(checker.sources()["tell"], [Question(inputs={}, jobid="5" * 24)])
    finally:
        checker.close()
    assert said == "tell: ValueError: 18 (0, 0)"


def ours_among(links: list[str], place: Path) -> set[str]:
    """The files of this test among what descriptors lead to."""
    return {link.removeprefix(f"{place}/work/") for link in links if link.startswith(str(place))}


BATCH = {
    "SLURM_JOB_ID": "17",
    "SLURM_JOB_NAME": "caf\udce9 \u2713",
    "SLURM_JWT": "a token",
    "PBS_JOBID": "18.host",
    "TZ": "Asia/Tokyo",
    "LANG": "C",
    "EDITOR": "of the worker",
    "MY_TOKEN": "a token",
    "BANYAN_NAME": "of ours",
}


def variables_of_tasks(directory: Path, **settings: str) -> list[dict[str, str]]:
    """The variables of a command and of a model whose worker has those of a batch job; latin-1 shows as it is."""
    model = "return delayed(dict)({name: ascii(value) for name, value in os.environ.items()})"
    models = write_models(directory / "models", look=f"\n    {model}\n")
    script = "import os; print(ascii(dict(os.environ)))"
    tasks = directory / "tasks"
    tasks.write_text(
        "\n".join(json.dumps(each) for each in ({"command": [sys.executable, "-c", script]}, {"model": "look"}))
    )
    command = [sys.executable, "-m", "banyan", "worker", "--cores", "1", "--models", models, "--tasks", str(tasks)]
    inherited = {name: value for name, value in os.environ.items() if name not in BATCH}
    done = subprocess.run(
        command, env=inherited | BATCH | settings, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    shell, model = [json.loads(line) for line in done.stdout.splitlines()]
    return [ast.literal_eval(shell["stdout_tail"]), {k: ast.literal_eval(v) for k, v in model["result"].items()}]


def test_tasks_find_the_variables_of_the_batch_job_that_their_worker_is(tmp_path: Path) -> None:
    for variables in variables_of_tasks(tmp_path):
        passed = {name: variables[name] for name in BATCH if name in variables}
        assert passed == {name: BATCH[name] for name in ("SLURM_JOB_ID", "SLURM_JOB_NAME", "PBS_JOBID", "TZ", "LANG")}


def test_what_passes_is_a_setting_and_no_pattern_lets_a_secret_pass(tmp_path: Path) -> None:
    told = json.dumps(["*", "BANYAN_NAME", "BANYAN_TASKS__*"])
    for variables in variables_of_tasks(tmp_path, BANYAN_TASKS__ENVIRONMENT=told):
        assert variables["EDITOR"] == "of the worker"
        assert not variables.keys() & {"MY_TOKEN", "SLURM_JWT", "BANYAN_NAME", "BANYAN_TASKS__ENVIRONMENT"}


def test_what_is_named_in_full_passes_alone(tmp_path: Path) -> None:
    for variables in variables_of_tasks(tmp_path, BANYAN_TASKS__ENVIRONMENT=json.dumps(["MY_TOKEN", "NOT_THERE"])):
        assert {name for name in BATCH if name in variables} == {"MY_TOKEN", "LANG"}
        assert variables["LANG"] == "C.UTF-8"
