"""The embedded MongoDB, with the real mongod."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from banyan.errors import SetupError
from banyan.storage import embedded
from banyan.storage.embedded import EmbeddedMongo

Start = Callable[[], EmbeddedMongo]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    return lambda: embedded.start(tmp_path / "mongo", log=tmp_path / "logs" / "mongod.log", cache_gigabytes=0.25)


def connect(uri: str) -> MongoClient[dict[str, Any]]:
    return MongoClient(uri, serverSelectionTimeoutMS=5_000)


def address(uri: str) -> str:
    return uri.partition("@")[2].partition("/")[0]


def test_transactions_work_at_once(start: Start) -> None:
    with start() as mongo, connect(mongo.uri) as client:
        with client.start_session() as session, session.start_transaction():
            client.trial.things.insert_one({"_id": 1}, session=session)
        assert client.trial.things.find_one() == {"_id": 1}


def test_nothing_is_answered_without_the_password(start: Start) -> None:
    with start() as mongo, connect(f"mongodb://{address(mongo.uri)}/?directConnection=true") as stranger:
        for command in ("listDatabases", "usersInfo", "replSetGetConfig", "serverStatus"):
            with pytest.raises(OperationFailure, match="requires authentication"):
                stranger.admin.command(command)
        with pytest.raises(OperationFailure, match="requires authentication"):
            stranger.admin.command("createUser", "intruder", pwd="x", roles=["root"])
        with pytest.raises(OperationFailure, match="requires authentication"):
            stranger.trial.things.find_one()


def test_a_wrong_password_is_refused(start: Start) -> None:
    with start() as mongo:
        wrong = f"mongodb://banyan:wrong@{address(mongo.uri)}/?authSource=admin&directConnection=true"
        with connect(wrong) as stranger, pytest.raises(OperationFailure, match="Authentication failed"):
            stranger.trial.things.find_one()


def test_secrets_are_readable_by_their_owner_alone(start: Start, tmp_path: Path) -> None:
    with start() as mongo:
        directory = tmp_path / "mongo"
        assert directory.stat().st_mode & 0o777 == 0o700
        assert (directory / "keyfile").stat().st_mode & 0o777 == 0o600
        assert (directory / "password").stat().st_mode & 0o777 == 0o600
        command = " ".join(psutil.Process(mongo.process.pid).cmdline())
        assert (directory / "password").read_text() not in command


def test_data_survive_a_clean_restart_under_the_same_address(start: Start) -> None:
    with start() as mongo, connect(mongo.uri) as client:
        client.trial.things.insert_one({"_id": 1})
        first = mongo.uri
    assert mongo.process.returncode == 0
    with start() as mongo, connect(mongo.uri) as client:
        assert mongo.uri == first
        assert client.trial.things.find_one() == {"_id": 1}


def test_data_survive_a_kill_and_a_changed_port(start: Start, tmp_path: Path) -> None:
    mongo = start()
    with connect(mongo.uri) as client:
        client.trial.things.insert_one({"_id": 1})
    mongo.process.kill()
    mongo.stop()
    (tmp_path / "mongo" / "port").unlink()
    with start() as again, connect(again.uri) as client:
        assert address(again.uri) != address(mongo.uri)
        assert client.trial.things.find_one() == {"_id": 1}
        client.trial.things.insert_one({"_id": 2})


def test_a_port_that_was_taken_meanwhile_is_replaced(start: Start, tmp_path: Path) -> None:
    with start() as mongo:
        first = address(mongo.uri)
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(first.split(":")[1])))
        with start() as again, connect(again.uri) as client:
            assert address(again.uri) != first
            client.trial.things.insert_one({"_id": 1})


def test_a_directory_in_use_is_refused_and_its_user_named(start: Start) -> None:
    with start(), pytest.raises(SetupError, match=rf"is in use by process {os.getpid()} \(.*py.*\)"):
        start()


def test_a_strangers_mongod_on_the_directory_is_named(start: Start, tmp_path: Path) -> None:
    with start() as mongo:
        (tmp_path / "mongo" / "lock").rename(tmp_path / "mongo" / "lock of another program")
        with pytest.raises(SetupError, match=rf"is in use by process {mongo.process.pid} \(.*mongod"):
            start()


def test_a_lost_password_file_is_replaced(start: Start, tmp_path: Path) -> None:
    with start():
        pass
    (tmp_path / "mongo" / "password").unlink()
    with start() as mongo, connect(mongo.uri) as client:
        client.trial.things.insert_one({"_id": 1})


def test_mongod_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, banyan.storage.embedded as e\n"
        "d = pathlib.Path(sys.argv[1])\n"
        "print(e.start(d / 'mongo', log=d / 'log').process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        mongod = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        mongod.wait(timeout=20)
    with embedded.start(tmp_path / "mongo", log=tmp_path / "log") as mongo:
        assert mongo.process.poll() is None


def test_what_cannot_be_used_as_a_directory_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be used: Not a directory"):
        embedded.start(tmp_path / "file" / "mongo", log=tmp_path / "log")
