"""A token that was rotated: who is refused looks for the new one, with a real server and real processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from banyan.client import Client
from banyan.config import WorkerSettings
from banyan.errors import SetupError, Unauthorized
from tests.support.processes import worker
from tests.support.server import Server, running
from tests.support.waiting import eventually
from worker.token_file import newer_token, token_of

REFUSED = "this token is not known"


@pytest.fixture
def server(mongo_uri: str, database_name: str, tmp_path: Path) -> Iterator[Server]:
    """A server whose workers are heard of every second, so that they soon notice what has changed."""
    variables = {"BANYAN_LEASES__HEARTBEAT": "1", "BANYAN_MODELS__PATH": "[]"}
    with running(mongo_uri, database_name, tmp_path, **variables) as server:
        yield server


def test_a_worker_goes_on_with_the_token_that_its_file_has_by_then(server: Server, tmp_path: Path) -> None:
    program = worker(tmp_path, "worker", server.url, server.token("worker"), cores=1, BANYAN_MODELS__PATH="[]")
    go = tmp_path / "go"
    program.start()
    try:
        with server.client("admin") as admin, server.client("user") as provider:
            task = provider.submit({"command": f"until [ -e {go} ]; do sleep 0.05; done", "state": "available"})["_id"]
            eventually(lambda: provider.attempts(task) and provider.attempts(task)[0].get("pid"), show=program.tail)
            fresh = admin.rotate_user("worker")["token"]
            eventually(lambda: REFUSED in program.tail(), show=program.tail)
            assert program.alive
            (tmp_path / "worker.token").write_text(fresh)
            eventually(lambda: "the server answers again" in program.tail(), show=program.tail)
            go.touch()
            assert provider.wait([task], timeout=60)[0]["exit_status"] == "success"
            assert [each["exit_status"] for each in provider.attempts(task)] == ["success"]
            assert [each["state"] for each in provider.workers()] == ["active"]
            assert fresh not in program.tail()
    finally:
        program.stop()


def test_a_worker_whose_file_is_changed_in_time_notices_nothing(server: Server, tmp_path: Path) -> None:
    """A server's own credentials file is such a file: the server writes there what it has rotated."""
    program = worker(tmp_path, "worker", server.url, "", cores=1, BANYAN_MODELS__PATH="[]")
    (tmp_path / "worker.token").unlink()
    (tmp_path / "worker.token").symlink_to(server.credentials)
    program.start()
    try:
        with server.client("admin") as admin, server.client("user") as provider:
            eventually(lambda: provider.workers({"state": "active"}), show=program.tail)
            old = server.token("worker")
            admin.rotate_user("worker")
            assert server.token("worker") != old
            for _ in range(3):
                task = provider.submit({"command": "true", "state": "available"})["_id"]
                assert provider.wait([task], timeout=60)[0]["exit_status"] == "success"
            assert "trying again" not in program.tail()
    finally:
        program.stop()


def test_a_command_that_waits_goes_on_with_the_token_that_its_file_has_by_then(server: Server, tmp_path: Path) -> None:
    with server.client("admin") as admin:
        file = tmp_path / "token"
        file.write_text(admin.add_user("ann", "provider")["token"])
        known = {name: value for name, value in os.environ.items() if not name.startswith(("BANYAN_", "XDG_"))}
        environment = {**known, "HOME": str(tmp_path), "BANYAN_URL": server.url, "BANYAN_TOKEN_FILE": str(file)}
        command = [sys.executable, "-m", "banyan", "submit", "--hold", "--wait", "--", "true"]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as waiting:
            assert waiting.stdout is not None
            task = waiting.stdout.readline().strip()
            file.write_text(admin.rotate_user("ann")["token"])
            admin.cancel(task)
            _, said = waiting.communicate(timeout=60)
    assert (waiting.returncode, said.splitlines()[-1]) == (1, f"{task}: cancelled")


def test_the_token_may_stand_in_a_file_alone_or_beside_others(tmp_path: Path) -> None:
    file = tmp_path / "token"
    settings = WorkerSettings(token_file=str(file))
    with pytest.raises(SetupError, match=f"cannot read the token file {file}: No such file"):
        token_of(settings)
    file.write_text("alone\n")
    assert (token_of(settings), newer_token(settings, "old")) == ("alone", "alone")
    file.write_text(json.dumps({"admin": "a", "user": "u", "worker": "beside"}))
    assert (token_of(settings), newer_token(settings, "alone")) == ("beside", "beside")
    with pytest.raises(SetupError, match=f"{file} still has this one"):
        newer_token(settings, "beside")
    for text in ('{"admin": "a"}', "{", b"\xff\xfe"):
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(SetupError, match="no worker's token"):
            token_of(settings)
    given = WorkerSettings(token="given", token_file=str(file))
    assert token_of(given) == "given"
    with pytest.raises(SetupError, match="was not read from a file"):
        newer_token(given, "given")


def test_a_client_says_why_there_is_no_newer_token(server: Server) -> None:
    def none_at_all(refused: str) -> str:
        raise SetupError("the file is gone")

    for renew, words in ((lambda refused: refused, ""), (none_at_all, ", and there is no newer one: the file is gone")):
        with (
            Client(server.url, "wrong", renew=renew) as client,
            pytest.raises(Unauthorized, match=f"^{REFUSED}{words}$"),
        ):
            client.tasks()
    with Client(server.url, "wrong", renew=lambda _: server.token("user")) as client:
        assert client.tasks().total == 0
