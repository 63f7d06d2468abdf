"""What a profile tells of the samples that py-spy took, and what is said where it took none."""

import os
import subprocess
import sys

import pytest

from bench import sampling, table
from bench.question import OURS, Answer, Target
from bench.sampling import folded, profile_of
from bench.session import Line
from bench.turns import Watch

SERVE = "run (threading.py:1002);serve (banyan/api/server.py:9)"
CLAIM = f"{SERVE};claim (banyan/api/workers.py:50);_claim (banyan/queue/claim.py:70)"
STACKS = [
    f"{CLAIM};renew (banyan/storage/workers.py:12);recv (pymongo/network_layer.py:7) 30",
    f"{CLAIM};renew (banyan/storage/workers.py:14) 10",
    f"{CLAIM};grant (banyan/queue/grant.py:3);_claim (banyan/queue/claim.py:71) 20",
    f"{SERVE};report (banyan/queue/report.py:1) 35",
    "run (threading.py:1002);accept (gunicorn/sock.py:5);<lambda> (<string>) 5",
]


def profiled(profile: dict[str, object]) -> Line:
    answer = Answer(unit="ms", series={OURS: [30]}, details={"profile": profile})
    return Line(name="q", text="q", conditions="", targets=(Target(text="t", at_most=1),), answer=answer, why="w")


def test_functions_are_told_with_what_they_call_and_those_that_only_hand_on_are_not() -> None:
    told = folded(STACKS)
    assert told["samples"] == 100
    assert told["packages"] == {"banyan": 0.65, "pymongo": 0.3, "string": 0.05}
    assert [tuple(each.values()) for each in told["functions"]] == [
        ("_claim", "banyan/queue/claim.py", 0.6, 0.2),
        ("renew", "banyan/storage/workers.py", 0.4, 0.4),
        ("report", "banyan/queue/report.py", 0.35, 0.35),
    ]


def test_no_samples_make_an_empty_profile() -> None:
    assert folded([]) == {"samples": 0, "packages": {}, "functions": []}


def test_only_so_many_functions_are_told() -> None:
    stacks = [f"f{number} (worker/core.py:{number}) {100 + number}" for number in range(2 * sampling.LINES)]
    assert [each["name"] for each in folded(stacks)["functions"]] == [f"f{19 - n}" for n in range(sampling.LINES)]


def test_a_profile_stands_below_the_line_that_does_not_hold() -> None:
    ((title, functions),) = table.profiles(profiled({"server": folded(STACKS), "worker": folded([])}))
    assert title.startswith("q: the server's time in Python (100 samples, banyan 65%, pymongo 30%, string 5%)")
    assert functions[0] == ("60%", "20%", "_claim (banyan/queue/claim.py)")


def test_a_work_that_cannot_be_profiled_says_why_and_fails_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "busiest", lambda arguments: [])  # other tests may have servers below this process

    def again(watch: Watch) -> None:
        with watch:  # there is no server
            raise AssertionError("nothing is done without a profile")

    profile = profile_of(again)
    assert profile == {"missing": "there is no process to profile"}
    assert capsys.readouterr().err.endswith("no profile: there is no process to profile\n")
    assert table.remarks(profiled(profile)) == [
        "q does not hold: w; there is no profile of it: there is no process to profile"
    ]
    assert table.profiles(profiled(profile)) == []


def test_the_processes_that_do_the_work_are_found_and_not_those_that_watch_over_them() -> None:
    """A process and its child with the same command line, as gunicorn's are."""
    fork = "import os, signal; child = os.fork(); child and print(child, flush=True); signal.pause()"
    command = [sys.executable, "-c", fork]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            assert [each.pid for each in sampling.busiest(["-c", fork[:6]])] == []
            assert [each.pid for each in sampling.busiest(["-c", fork])] == [child]
        finally:
            os.killpg(process.pid, 9)
