"""What a real worker takes while it has nothing to do."""

import os
import sys
import time
from pathlib import Path

from banyan import child
from bench.question import OURS, Answer, Question, Size, Target
from bench.stage import STOP_SECONDS, Scene, cpu_seconds, pss_bytes, stage, tree_of

SETTLE_SECONDS = 5.0
CPU = "percent of one core"


def measure(size: Size) -> Answer:
    """Memory and CPU of an idle worker and its supervisor."""
    repetitions, seconds = (3, 10.0) if size is Size.QUICK else (5, 60.0)
    with stage() as here, here.scene("worker") as scene:
        return _watched(scene, repetitions, seconds)


def _watched(scene: Scene, repetitions: int, seconds: float) -> Answer:
    directory = scene.stage.directory
    token = directory / "worker-token"
    token.write_text(scene.tokens["worker"])
    (directory / "no-models").mkdir()
    command = [sys.executable, "-m", "banyan", "worker", "--url", scene.servers[0].url, "--token-file", str(token)]
    command += ["--workdir", str(directory / "work"), "--models", str(directory / "no-models")]
    process = child.spawn(command, log=directory / "worker.log", env=_environment())
    try:
        _wait_until_registered(scene, directory / "worker.log")
        time.sleep(SETTLE_SECONDS)
        memory, used = [], []
        for _ in range(repetitions):
            tree = tree_of(process.pid)
            before, begun = cpu_seconds(tree), time.monotonic()
            time.sleep(seconds)
            used.append(100 * (cpu_seconds(tree) - before) / (time.monotonic() - begun))
            memory.append(pss_bytes(tree) / 1e6)
        details = {"processes": len(tree), "seconds": seconds}
        return Answer(unit="", series={OURS: memory, CPU: used}, details=details)
    finally:
        child.stop(process, seconds=STOP_SECONDS)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("BANYAN_")}


def _wait_until_registered(scene: Scene, log: Path) -> None:
    deadline = time.monotonic() + 60.0
    while not scene.storage.workers.in_states():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the worker did not register:\n{log.read_text()}")
        time.sleep(0.05)


QUESTION = Question(
    name="idle-worker",
    text="an idle worker without models: what its processes take",
    conditions="1 server, 1 real worker and its supervisor, connected, no tasks; heartbeat 20 s; PSS of both processes",
    targets=(
        Target(text="under 60 MB", at_most=60.0),
        Target(text="under 0.5 percent of a core", series=CPU, at_most=0.5),
    ),
    measure=measure,
)
