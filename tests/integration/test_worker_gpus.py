"""GPUs with a stand-in for the driver: which of them a worker hands out, and what does it no harm."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.nvml import GPU_IS_LOST, NOT_SUPPORTED, UNKNOWN, Device, Nvml
from tests.support.waiting import eventually

FIRST, SECOND, THIRD = Device(uuid="GPU-11aa"), Device(uuid="GPU-11bb"), Device(uuid="GPU-22cc")
PART, OTHER = Device(uuid="MIG-44dd", parent=0), Device(uuid="MIG-GPU-11aa/1/0", parent=0)
WITHOUT_VISIBLE = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}


@pytest.fixture
def nvml(tmp_path: Path) -> Nvml:
    return Nvml(tmp_path)


def run(nvml: Nvml, directory: Path, count: int, visible: str | None) -> tuple[list[dict[str, Any]], str]:
    """The ends of `count` tasks that want a GPU each, all at the same time, and one that wants none; the log."""
    tasks = directory / "tasks.jsonl"
    barrier = f"echo x >> {directory}/began; until [ $(wc -l < {directory}/began) -ge {count} ]; do sleep 0.05; done"
    line = 'echo "$CUDA_VISIBLE_DEVICES"'
    gpu = {"command": f"{barrier}; {line}", "requested_resources": {"cores": 0.1, "gpus": 1}}
    tasks.write_text("\n".join(json.dumps(each) for each in [*[gpu] * count, {"command": f"{line}; echo ran"}]))
    environment = WITHOUT_VISIBLE | nvml.variables | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    command = [sys.executable, "-m", "banyan", "worker", "--tasks", str(tasks), "--cores", "2"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120, cwd=directory
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize(
    ("visible", "handed_out"),
    [
        (None, ["0", "1", "2"]),
        ("", []),
        ("2,0", ["0", "2"]),
        ("GPU-22cc,GPU-11bb", ["GPU-11bb", "GPU-22cc"]),
        ("2,MIG-44dd,MIG-GPU-11aa/1/0", ["2", "MIG-44dd", "MIG-GPU-11aa/1/0"]),
    ],
)
def test_a_worker_hands_out_what_it_may_use_itself(
    nvml: Nvml, tmp_path: Path, visible: str | None, handed_out: list[str]
) -> None:
    nvml.answers(FIRST, SECOND, THIRD, PART, OTHER)
    ends, log = run(nvml, tmp_path, len(handed_out), visible)
    assert [end["exit_status"] for end in ends] == ["success"] * (len(handed_out) + 1), log
    assert sorted(end["stdout_tail"].strip() for end in ends) == sorted([*handed_out, "ran"])


NAMES = """
import json, sys
from worker.gpus import survey
print(json.dumps([[gpu.name for gpu in survey(visible).gpus] for visible in json.loads(sys.argv[1])]))
"""


def test_visible_gpus_are_named_as_cuda_names_them(nvml: Nvml) -> None:
    nvml.answers(FIRST, SECOND, THIRD, PART, OTHER)
    named = {
        "-1": [],
        "1, 1": ["1"],
        "0,7,1": ["0"],
        "0,-1,1": ["0"],
        "NoDevFiles": [],
        "GPU-22": ["GPU-22"],
        "GPU-11": [],
        "GPU-99,GPU-22cc": ["GPU-22cc"],
        "gpu-22CC,2": ["gpu-22CC"],
        "MIG-99,MIG-44dd": ["MIG-44dd"],
        "0,GPU-22cc,": ["0", "GPU-22cc"],
    }
    command = [sys.executable, "-c", NAMES, json.dumps(list(named))]
    said = subprocess.run(command, env=os.environ | nvml.variables, capture_output=True, check=True, timeout=60).stdout
    assert dict(zip(named, json.loads(said), strict=True)) == named


def test_a_task_that_wants_more_gpus_than_the_worker_may_use_does_not_run(nvml: Nvml, tmp_path: Path) -> None:
    nvml.answers(FIRST, SECOND)
    ends, _ = run(nvml, tmp_path, 1, "")
    assert sorted(end["exit_status"][:30] for end in ends) == ["failure (worker: it needs more", "success"]


@pytest.mark.parametrize(
    ("devices", "codes", "handed_out", "said"),
    [
        ([FIRST, Device(uuid="GPU-x", memory=NOT_SUPPORTED)], {}, ["0"], "GPU 1 cannot be used"),
        ([FIRST], {"count": UNKNOWN}, [], "the GPUs cannot be used"),
        ([FIRST], {"hang": True}, [], "the driver does not answer"),
    ],
)
def test_what_does_not_answer_is_left_out_and_said(
    nvml: Nvml, tmp_path: Path, devices: list[Device], codes: dict[str, Any], handed_out: list[str], said: str
) -> None:
    nvml.answers(*devices, **codes)
    ends, log = run(nvml, tmp_path, len(handed_out), None)
    assert [end["exit_status"] for end in ends] == ["success"] * (len(handed_out) + 1), log
    assert sorted(end["stdout_tail"].strip() for end in ends) == sorted([*handed_out, "ran"])
    assert said in log


LOOKS = """
import sys
from worker.gpus import Gpus
gpus = Gpus(None, lambda note: print("said", note.text, flush=True), lambda event: None)
for line in sys.stdin:
    print("found", *[gpu.index for gpu in gpus.look()], gpus.memory({1}), flush=True)
"""


@pytest.fixture
def looker(nvml: Nvml) -> Iterator["subprocess.Popen[str]"]:
    """A program that looks for GPUs at each line that it gets."""
    nvml.answers(FIRST, SECOND)
    program = subprocess.Popen(
        [sys.executable, "-c", LOOKS],
        env=os.environ | nvml.variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield program
    program.kill()
    program.communicate()


def look(program: "subprocess.Popen[str]") -> list[str]:
    """Its lines while it looks."""
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write("look\n")
    program.stdin.flush()
    lines = [program.stdout.readline().strip()]
    while not lines[-1].startswith("found"):
        lines.append(program.stdout.readline().strip())
    return lines


def test_a_gpu_that_falls_off_the_bus_is_left_out_until_it_is_back(nvml: Nvml, looker: "subprocess.Popen[str]") -> None:
    lost = Device(uuid=SECOND.uuid, handle=GPU_IS_LOST, processes=GPU_IS_LOST)
    assert look(looker) == ["found 0 1 0"]
    nvml.answers(FIRST, lost)
    assert look(looker) == ["said GPU 1 cannot be used: GPU is lost", "found 0 0"]
    assert look(looker) == ["found 0 0"]
    nvml.answers(lost, SECOND)
    assert look(looker) == ["said GPU 0 cannot be used: GPU is lost", "said GPU 1 can be used again", "found 1 0"]
    nvml.answers(FIRST, SECOND)
    assert look(looker) == ["said GPU 0 can be used again", "found 0 1 0"]
    nvml.answers(init=UNKNOWN)
    assert look(looker)[-1] == "found None"


def test_a_driver_that_hangs_is_asked_again_once_it_answers(nvml: Nvml, looker: "subprocess.Popen[str]") -> None:
    nvml.answers(FIRST, hang=True)
    lines = look(looker)
    assert lines[0].startswith("said the GPUs cannot be used: the driver does not answer")
    assert lines[1:] == ["found None"]
    nvml.answers(FIRST)
    eventually(lambda: look(looker)[-1] == "found 0 0")
