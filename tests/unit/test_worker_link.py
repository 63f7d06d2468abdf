"""What the worker does with a report that its server does not accept."""

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from banyan.errors import Invalid
from tests.support.fake_server import FakeServer
from worker.actions import Note, Send
from worker.events import Event, Registered, Reported
from worker.link import Link
from worker.spool import Spool

GOOD = {"execution": "good", "token": "t", "exit_status": "success", "result": {"x": 1}}
BAD = {"execution": "bad", "token": "t", "exit_status": "failure (exit code 3)", "exit_code": 3, "result": "bad"}


class Picky(FakeServer):
    """A server that refuses what has a bad result, or a bad exit status."""

    def report(self, worker: str, body: dict[str, Any], /) -> dict[str, Any]:
        if any(each.get("result") == "bad" for each in body["reports"]):
            raise Invalid({"reports": "a bad result"})
        if any(each.get("exit_status") == "bad" for each in body["reports"]):
            raise Invalid({"reports": "a bad end"})
        return super().report(worker, body)


@pytest.fixture
def said() -> SimpleQueue[Event]:
    return SimpleQueue()


@pytest.fixture
def server() -> Picky:
    return Picky([{}] * 5)


@pytest.fixture
def link(tmp_path: Path, server: Picky, said: SimpleQueue[Event]) -> Iterator[Link]:
    spool = Spool(tmp_path)
    made = Link(server, spool, said.put, lambda note: None, lambda: "2026-01-01T00:00:00+00:00")
    yield made
    made.close(None, [])
    spool.close()


def test_an_end_with_details_that_the_server_does_not_take_is_told_without_them(
    link: Link, server: Picky, said: SimpleQueue[Event]
) -> None:
    link.send(Send(worker="w", reports=[GOOD, BAD, {**GOOD, "execution": "better"}], samples=()))
    answer = said.get(timeout=30)
    assert isinstance(answer, Reported)
    assert (sorted(answer.accepted), list(answer.stale)) == (["bad", "better", "good"], [])
    told = server.ends["bad"]
    assert {name: told[name] for name in ("exit_status", "exit_code")} == {
        "exit_status": "failure (exit code 3)",
        "exit_code": 3,
    }
    assert "result" not in told
    assert "a bad result" in told["error"]
    assert server.ends["good"] == GOOD


def test_what_is_refused_even_then_is_given_up(link: Link, server: Picky, said: SimpleQueue[Event]) -> None:
    link.send(Send(worker="w", reports=[{**BAD, "exit_status": "bad"}, GOOD], samples=()))
    answer = said.get(timeout=30)
    assert isinstance(answer, Reported)
    assert (list(answer.accepted), list(answer.stale)) == (["good"], ["bad"])


def test_progress_that_is_refused_is_not_told_again(link: Link, server: Picky, said: SimpleQueue[Event]) -> None:
    link.send(Send(worker="w", reports=[{"execution": "e", "token": "t", "result": "bad"}], samples=()))
    answer = said.get(timeout=30)
    assert isinstance(answer, Reported)
    assert (list(answer.stale), server.reports) == (["e"], [])


class Noting(FakeServer):
    """A server that has something to say to a new worker."""

    def register_worker(self, worker: dict[str, Any], /) -> dict[str, Any]:
        return super().register_worker(worker) | {"notes": ["there is no queue 'defualt'"]}


def test_what_a_server_says_to_a_new_worker_is_logged(tmp_path: Path, said: SimpleQueue[Event]) -> None:
    notes: list[Note] = []
    spool = Spool(tmp_path)
    link = Link(Noting([]), spool, said.put, notes.append, lambda: "2026-01-01T00:00:00+00:00")
    link.register(lambda: {"name": "w"})
    assert isinstance(said.get(timeout=30), Registered)
    link.close(None, [])
    spool.close()
    assert [(note.text, note.warning) for note in notes] == [
        ("registered as worker worker-1, ready for tasks", False),
        ("there is no queue 'defualt'", True),
    ]
