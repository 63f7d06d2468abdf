"""Commands while MongoDB is away: they say so, wait, and are done when it is back; what was not begun is sent again."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest
import requests

from tests.support import processes
from tests.support.leaving_mongo import LeavingMongo
from tests.support.waiting import eventually

LONG_SECONDS = 90.0
BANYAN = [sys.executable, "-m", "banyan"]


@pytest.fixture(scope="module")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LeavingMongo]:
    mongo = LeavingMongo.start(tmp_path_factory.mktemp("mongo"))
    yield mongo
    mongo.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, mongo: LeavingMongo) -> Iterator[processes.ServerProgram]:
    directory = tmp_path_factory.mktemp("server")
    server = processes.server(directory, "server", mongo.now.uri, "away", BANYAN_MODELS__PATH="[]")
    server.start()
    server.wait_until_healthy()
    yield server
    server.stop()


def environment(server: processes.ServerProgram) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BANYAN_", "XDG_"))}
    home = str(server.log.parent)
    return {**kept, "HOME": home, "BANYAN_URL": server.url, "BANYAN_TOKEN": server.token("admin")}


def begins_nothing(server: processes.ServerProgram) -> bool:
    """True if the server refuses requests before it does anything, and says so."""
    answer = requests.get(
        f"{server.url}/queues", headers={"Authorization": f"Bearer {server.token('admin')}"}, timeout=60
    )
    return answer.status_code == 503 and answer.headers.get("Banyan-Begun") == "no"


def line_of(process: "subprocess.Popen[str]") -> str:
    """The next line on its stderr; AssertionError if none comes."""
    assert process.stderr is not None
    ready, _, _ = select.select([process.stderr], [], [], LONG_SECONDS)
    assert ready, process.args
    return process.stderr.readline()


@pytest.mark.parametrize("hang", [True, False], ids=["hung", "killed"])
def test_every_command_says_that_mongodb_is_away_and_is_done_when_it_is_back(
    server: processes.ServerProgram, mongo: LeavingMongo, hang: bool
) -> None:
    with server.client("admin") as client:
        task = client.submit({"command": "true", "hold": True})["_id"]
    commands = [
        ["list"],
        ["submit", "--hold", "--", "true"],
        ["show", task],
        ["cancel", task],
        ["wait", task],
        ["stats"],
        ["queues", "set", "default", "--weight", "2"],
        ["user", "add", f"user{hang:d}", "--role", "provider"],
        ["sweep", "submit", "--hold", "--grid", "x=0:3", "--", "echo", "{x}"],
    ]
    with ExitStack() as stack:
        mongo.leave(hang=hang)
        stack.callback(mongo.come_back)
        eventually(lambda: begins_nothing(server), seconds=60, show=server.tail)  # tokens are remembered for a moment
        started = [
            subprocess.Popen([*BANYAN, *words], env=environment(server), stderr=-1, stdout=-1, text=True)
            for words in commands
        ]
        for process in started:
            assert line_of(process) == "banyan: MongoDB is away; waiting\n", process.args
        mongo.come_back()
        for process in started:
            out, err = process.communicate(timeout=LONG_SECONDS)
            code = 1 if process is started[4] else 0  # its task was cancelled
            assert (process.returncode, "answers again" in err) == (code, True), (process.args, out, err)
    with server.client("admin") as client:
        assert client.task(task)["state"] == "cancelled"


def test_a_terminal_shows_how_long_it_waits_and_is_clean_afterwards(
    server: processes.ServerProgram, mongo: LeavingMongo
) -> None:
    mongo.leave(hang=True)
    screen, terminal = pty.openpty()
    try:
        process = subprocess.Popen([*BANYAN, "list"], env=environment(server), stderr=terminal, stdout=-1)
        os.close(terminal)
        seen = read_until(screen, b"MongoDB is away; waiting (")
        assert b"\r\x1b[Kbanyan: MongoDB is away; waiting (" in seen
        process.send_signal(signal.SIGINT)
        seen = read_until(screen, b"")
        assert seen.endswith(b"\r\x1b[K"), seen
        process.communicate(timeout=LONG_SECONDS)
        assert process.returncode == 130
    finally:
        mongo.come_back()
        os.close(screen)


def read_until(screen: int, words: bytes) -> bytes:
    """The output of a terminal until `words` are in it, or to its end."""
    seen, deadline = b"", time.monotonic() + LONG_SECONDS
    while (not words or words not in seen) and time.monotonic() < deadline:
        if select.select([screen], [], [], 0.5)[0]:
            try:
                seen += os.read(screen, 65536)
            except OSError:  # nobody has the other side any more
                break
    return seen
