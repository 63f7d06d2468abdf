"""Sessions of the benchmark: what is asked, what is kept in the file, and what stands in the table."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from banyan.errors import NotFound, SetupError
from bench import table
from bench.errors import Incomplete, Missing
from bench.page import write
from bench.question import OURS, Answer, Question, Size, Target
from bench.questions import QUESTIONS, named
from bench.session import Line, Session, measure
from bench.turns import Contestant, Run, Watch, in_turns

TWICE = Target(text="at least 2x the peer", relative_to="peer", at_least=2)
HALF = Target(text="at least 0.5x the floor", relative_to="floor", floor=True, at_least=0.5)
SOON = Target(text="under 20 ms", at_most=20)


def answer(**series: list[float]) -> Answer:
    return Answer(unit="tasks/s", series=series, details={"missing": {"peer": "it is not installed"}})


def line(answered: Answer | None, *targets: Target, error: str = "", why: str = "") -> Line:
    return Line(name="q", text="a question", conditions="none", targets=targets, answer=answered, error=error, why=why)


def session(*lines: Line) -> Session:
    machine = {"cores": 2, "memory_bytes": 2**34, "processor": "p", "kernel": "6", "python": "3.11"}
    return Session(
        begun="2026-01-02T03:04:05+00:00",
        size=Size.QUICK,
        machine={**machine, "load_before": [0.5, 0, 0]},
        versions={"eve": "2.3"},
        lines=lines,
    )


def asked(name: str, measured: Answer | Exception) -> Question:
    def answer_or_fail(_: Size) -> Answer:
        if isinstance(measured, Exception):
            raise measured
        return measured

    return Question(name=name, text=name, conditions="none", targets=(TWICE,), measure=answer_or_fail)


def test_a_ratio_is_that_of_the_medians() -> None:
    assert TWICE.reached(answer(banyan=[100, 300, 200], peer=[90, 110, 100])) == (2.0, True)
    assert TWICE.reached(answer(banyan=[199], peer=[100])) == (1.99, False)


def test_a_bound_without_a_peer_is_held_against_the_median_itself() -> None:
    assert SOON.reached(answer(banyan=[10, 30, 19])) == (19, True)
    assert SOON.reached(answer(banyan=[21])) == (21, False)


def test_a_target_is_not_judged_without_what_it_needs() -> None:
    assert TWICE.reached(answer(banyan=[100])) is None
    assert TWICE.reached(answer(banyan=[100], peer=[])) is None


@pytest.mark.parametrize(
    ("answered", "holds"),
    [
        (answer(banyan=[100], peer=[10], floor=[100]), True),
        (answer(banyan=[100], peer=[90], floor=[100]), False),
        (answer(banyan=[100], floor=[100]), None),
        (answer(banyan=[100], floor=[900]), False),
        (None, None),
    ],
)
def test_a_line_holds_if_all_of_its_targets_do(answered: Answer | None, holds: bool | None) -> None:
    assert line(answered, TWICE, HALF).holds() is holds


def test_results_come_back_from_their_file_as_they_were() -> None:
    whole = session(line(answer(banyan=[1.5], peer=[]), TWICE, SOON), line(None, HALF, error="it broke", why="because"))
    assert Session.from_json(whole.to_json()) == whole


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "size": "quick", "lines": []}'])
def test_a_file_that_holds_no_results_is_refused(text: str) -> None:
    with pytest.raises(SetupError):
        Session.from_json(text)


def test_the_table_has_a_row_for_each_target() -> None:
    shown = table.rows(session(line(answer(banyan=[100, 120], peer=[60], floor=[300]), TWICE, HALF, SOON)))
    assert [row.cells() for row in shown] == [
        ("q", "at least 2x the peer", "-", "60 tasks/s", "110 tasks/s (100 to 120)", "1.83", "no"),
        ("q", "at least 0.5x the floor", "300 tasks/s", "-", "110 tasks/s (100 to 120)", "0.37", "no"),
        ("q", "under 20 ms", "-", "-", "110 tasks/s (100 to 120)", "-", "no"),
    ]


def test_the_table_says_what_could_not_be_measured() -> None:
    without_peer = line(answer(banyan=[100]), TWICE)
    failed = line(None, HALF, error="it broke")
    assert [row.cells()[-1] for row in table.rows(session(without_peer, failed))] == ["not measured", "not measured"]
    assert table.remarks(without_peer) == ["q was measured without peer: it is not installed"]
    assert table.remarks(failed) == ["q was not measured: it broke"]


def test_a_reason_is_shown_only_where_a_line_does_not_hold() -> None:
    slow, fast = Answer(unit="ms", series={OURS: [30]}), Answer(unit="ms", series={OURS: [3]})
    assert table.remarks(line(slow, SOON, why="w")) == ["q does not hold: w"]
    assert table.remarks(line(fast, SOON, why="w")) == []


def test_a_line_that_does_not_hold_tells_where_the_time_went() -> None:
    spent = {
        "cpu_seconds": {"mongod": [0.1], "server": [0.05], "wall": [9]},
        "cpu_ms_a_task": {OURS: [1.5], "peer": [2]},
    }
    slow = Answer(unit="ms", series={OURS: [30]}, details={"tasks": {OURS: 100}, **spent})
    assert table.remarks(line(slow, SOON)) == [
        "q does not hold: ms of CPU time a task: banyan 1.50, peer 2.00 (of ours: mongod 1.00, server 0.50)"
    ]


def test_a_value_that_nothing_is_asked_of_is_shown_without_a_verdict() -> None:
    cold = Answer(unit="ms", series={"cold": [350.4]})
    shown = table.rows(session(line(cold, Target(text="cold", series="cold"))))
    assert shown[0].cells() == ("q", "cold", "-", "-", "350 ms", "-", "-")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12345.6, "12,346"), (999.6, "1,000"), (12.34, "12.3"), (0.0123, "0.0123"), (0.0000651, "6.51e-05")],
)
def test_figures_have_three_digits_that_count(value: float, text: str) -> None:
    assert table.figure(value) == text


def test_a_question_that_fails_is_told_and_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    good = answer(banyan=[2], peer=[1])
    questions = [asked("broken", ValueError("no")), asked("short", Incomplete("3 are missing")), asked("good", good)]
    kept: list[int] = []
    measured = measure(questions, Size.QUICK, lambda so_far: kept.append(len(so_far.lines)))
    assert kept == [1, 2, 3]
    assert [(each.name, each.answer, each.error) for each in measured.lines] == [
        ("broken", None, "ValueError: no"),
        ("short", None, "3 are missing"),
        ("good", good, ""),
    ]
    assert "Traceback" in capsys.readouterr().err


def at_once() -> None:
    """Nothing is waited for."""


def contestant(name: str, log: list[str], *, rounds: int, missing: str = "") -> Contestant:
    @contextmanager
    def opened() -> Iterator[Run]:
        if missing:
            raise Missing(missing)
        yield run
        log.append(f"{name} closed")

    def run(count: int, watch: Watch) -> float:
        with watch:
            log.append(f"{name} {count}")
        return float(count)

    return Contestant(name=name, open=opened, count=100, rounds=rounds, warm_up=10)


def test_contestants_take_turns_and_the_first_one_changes() -> None:
    log: list[str] = []
    rounds = {"a": 2, "b": 2, "c": 1}
    turns = in_turns([contestant(name, log, rounds=each) for name, each in rounds.items()], at_once)
    warm_ups, runs = ["a 10", "b 10", "c 10"], ["a 100", "b 100", "c 100", "b 100", "a 100"]
    assert log == [*warm_ups, *runs, "c closed", "b closed", "a closed"]
    assert turns.series == {"a": [100, 100], "b": [100, 100], "c": [100]}


def test_a_peer_that_is_not_installed_is_told_and_left_out() -> None:
    log: list[str] = []
    turns = in_turns(
        [contestant("a", log, rounds=1), contestant("b", log, rounds=1, missing="apt-get install -y b")], at_once
    )
    assert turns.series == {"a": [100]}
    assert turns.missing == {"b": "apt-get install -y b"}
    assert turns.counts == {"a": 100}


def test_a_question_is_asked_once_more_for_a_profile_only_if_it_does_not_hold(
    capsys: pytest.CaptureFixture[str],
) -> None:
    profiled = []

    def again(watch: Watch) -> None:
        profiled.append(watch)

    questions = [
        replace(asked("slow", answer(banyan=[1], peer=[1])), again=again),
        replace(asked("fast", answer(banyan=[2], peer=[1])), again=again),
        replace(asked("broken", ValueError("no")), again=again),
        asked("unprofiled", answer(banyan=[1], peer=[1])),
    ]
    lines = measure(questions, Size.QUICK).lines
    assert len(profiled) == 1
    assert ["profile" in each.answer.details for each in lines if each.answer] == [True, False, False]


def test_whatever_has_a_target_can_be_profiled() -> None:
    assert [each.name for each in QUESTIONS if each.targets and each.again is None] == []


def test_questions_have_names_of_their_own() -> None:
    assert len({each.name for each in QUESTIONS}) == len(QUESTIONS)
    assert named("echo").name == "echo"
    with pytest.raises(NotFound, match="echo"):
        named("nothing")


def written(docs: Path, *lines: Line) -> str:
    page = docs / "performance.md"
    page.write_text("# Performance\n\n<!-- measured: begin -->\nearlier results\n<!-- measured: end -->\n\nThe rest.\n")
    write(session(*lines), docs)
    return page.read_text()


def test_the_page_gets_table_plots_and_machine_between_its_markers(tmp_path: Path) -> None:
    text = written(tmp_path, line(answer(banyan=[100], peer=[60]), TWICE), line(None, HALF, error="it broke"))
    assert text.startswith(
        "# Performance\n\n<!-- measured: begin -->\n\nMeasured on 2026-01-02 (quick size): 2 cores (p), 16.0 GiB"
    )
    assert "earlier results" not in text
    assert "| q | at least 2x the peer | - | 60 tasks/s | 100 tasks/s | 1.67 | no |" in text
    assert "- q was not measured: it broke" in text
    assert "![q](plots/q.svg)" in text
    assert text.endswith("<!-- measured: end -->\n\nThe rest.\n")


def test_the_page_shows_the_profile_beneath_the_line_that_does_not_hold(tmp_path: Path) -> None:
    function = {"name": "claim", "file": "banyan/queue/claim.py", "share": 0.4, "own": 0.1}
    profile = {"server": {"samples": 1234, "packages": {"pymongo": 0.5}, "functions": [function]}}
    slow = Answer(unit="ms", series={OURS: [30]}, details={"profile": profile})
    text = written(tmp_path, line(slow, SOON, why="w"), line(None, HALF, error="it broke"))
    shown = text.partition("- q does not hold: w\n")[2].partition("- q was not measured: it broke\n")[0]
    assert shown == (
        "\nq: the server's time in Python (1,234 samples, pymongo 50%) by functions, with all that they call, and "
        "alone with libraries:\n\n"
        "| with all | alone | function |\n| --: | --: | --- |\n| 40% | 10% | `claim (banyan/queue/claim.py)` |\n\n"
    )


def test_the_same_results_make_the_same_page_and_plots(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        text = written(tmp_path / name, line(answer(banyan=[100, 900], peer=[1]), TWICE))
        made.append((text, (tmp_path / name / "plots" / "q.svg").read_bytes()))
    assert made[0] == made[1]
    assert made[0][1].startswith(b"<?xml")


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "performance.md").write_text("# Performance\n")
    with pytest.raises(SetupError, match="measured: begin"):
        write(session(), tmp_path)
