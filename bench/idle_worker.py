"""What a real worker takes while it has nothing to do."""

import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext

from bench.processes import cpu_seconds, running
from bench.question import OURS, Answer, Question, Size, Target
from bench.stage import Scene, pss_bytes, stage, tree_of
from bench.turns import Watch

SETTLE_SECONDS = 5.0
CPU = "percent of one core"


def measure(size: Size) -> Answer:
    """Memory and CPU of an idle worker and its supervisors."""
    repetitions, seconds = (3, 10.0) if size is Size.QUICK else (5, 30.0)
    with stage() as here, here.scene("worker") as scene:
        return _watched(scene, repetitions, seconds, nullcontext())


def _again(watch: Watch) -> None:
    with stage() as here, here.scene("worker") as scene:
        _watched(scene, 1, 10.0, watch)


def _watched(scene: Scene, repetitions: int, seconds: float, during: AbstractContextManager[object]) -> Answer:
    directory = scene.stage.directory
    token = directory / "worker-token"
    token.write_text(scene.tokens["worker"])
    (directory / "no-models").mkdir()
    command = [sys.executable, "-m", "banyan", "worker", "--url", scene.servers[0].url, "--token-file", str(token)]
    command += ["--workdir", str(directory / "work"), "--models", str(directory / "no-models")]
    log = directory / "worker.log"
    with running(command, log=log, ready=scene.storage.workers.in_states, env=_environment()) as process:
        time.sleep(SETTLE_SECONDS)
        memory, used = [], []
        tree = tree_of(process.pid)
        with during:
            for _ in range(repetitions):
                before, begun = cpu_seconds(process.pid), time.monotonic()
                time.sleep(seconds)
                used.append(100 * (cpu_seconds(process.pid) - before) / (time.monotonic() - begun))
                memory.append(pss_bytes(tree) / 1e6)
        details = {"processes": len(tree), "seconds": seconds}
        return Answer(unit="", series={OURS: memory, CPU: used}, details=details)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("BANYAN_")}


QUESTION = Question(
    name="idle-worker",
    text="an idle worker without models: what its processes take",
    conditions="1 server, 1 real worker and its two supervisors, connected, no tasks; heartbeat 20 s; PSS of all three",
    targets=(
        Target(text="under 60 MB", at_most=60.0),
        Target(text="under 0.5 percent of a core", series=CPU, at_most=0.5),
    ),
    measure=measure,
    again=_again,
)
