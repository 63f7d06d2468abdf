"""The server as a process: it begins with its first users, holds claims open, and lets go of them when it stops."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from pymongo import MongoClient

from banyan import wire
from banyan.client import Client
from banyan.errors import Invalid, Unauthorized
from tests.support.models import SUM, write_models
from tests.support.server import SERVER, STOP_SECONDS, Server, running
from tests.support.waiting import eventually

READY_SECONDS = 30.0

RESOURCES = {"cores": 1, "memory": 2**30}


@pytest.fixture
def server(mongo_uri: str, database_name: str, tmp_path: Path) -> Iterator[Server]:
    with running(mongo_uri, database_name, tmp_path) as started:
        yield started


def test_the_first_users_get_in_by_a_file_that_only_its_owner_reads(server: Server) -> None:
    assert server.credentials.stat().st_mode & 0o777 == 0o600
    with server.client("admin") as admin:
        assert {user["name"]: user["role"] for user in admin.users()} == {
            "admin": "admin",
            "user": "provider",
            "worker": "worker",
        }
    with server.client("user") as provider:
        task = provider.submit({"command": "true"})
        assert provider.task(task["_id"])["owner"] == "user"


def test_the_same_file_serves_again(mongo_uri: str, database_name: str, tmp_path: Path) -> None:
    for _ in range(2):
        with running(mongo_uri, database_name, tmp_path) as server, server.client("admin") as admin:
            assert len(admin.users()) == 3


def test_files_of_any_name_come_through_the_server_and_back(server: Server) -> None:
    names = [
        "line\nbreak",
        "\n",
        "latin-\udce9",
        "\x01\x7f",
        "a%FF?b=c&d#e",
        "d\udcfe/\r\n",
        "ü\N{REPLACEMENT CHARACTER}",
    ]
    with server.client("user") as user, server.client("worker") as worker:
        task = user.submit({"command": "true", "state": "available"})["_id"]
        node = worker.register_worker({"name": "w", "resources": RESOURCES})["_id"]
        (grant,) = worker.claim(node, {"request": "1", "resources": RESOURCES, "max_tasks": 1, "wait": 0})["tasks"]
        for name in names:
            data = os.fsencode(name)
            assert worker.put_file(grant["execution"], name, 0, data, grant["token"]) == len(data)
        listed = user.files(task)
        assert {each["path"] for each in listed} == {wire.shown_path(name) for name in names}
        token = {"Authorization": f"Bearer {server.token('user')}"}
        found = [requests.get(server.url + each["url"], headers=token, timeout=10).content for each in listed]
        assert sorted(found) == sorted(map(os.fsencode, names))
        for name in names:
            assert user.file(task, name) == user.file(task, wire.shown_path(name)) == os.fsencode(name)
            assert user.file(task, name, offset=1, length=2) == os.fsencode(name)[1:3]


def test_a_stopping_server_answers_the_claims_that_it_holds(server: Server, mongo_uri: str, database_name: str) -> None:
    answers: list[dict[str, Any]] = []
    wait = 20
    with server.client("worker") as worker:
        registered = worker.register_worker({"name": "w", "resources": RESOURCES})["_id"]
        body = {"request": "r", "resources": RESOURCES, "max_tasks": 1, "held": [], "wait": wait}
        held = threading.Thread(target=lambda: answers.append(worker.claim(registered, body)))
        held.start()
        with MongoClient[dict[str, Any]](mongo_uri) as mongo:
            workers = mongo[database_name]["workers"]
            eventually(lambda: workers.find_one({"claim_request": "r"}), show=workers.find_one)
        processes = server.processes()
        began = time.monotonic()
        server.process.terminate()
        assert server.process.wait(STOP_SECONDS) == 0
        held.join(STOP_SECONDS)
        assert answers == [{"tasks": [], "cancel": [], "drain": False, "forget": []}]
        assert time.monotonic() - began < wait
        assert not psutil.wait_procs(processes, timeout=STOP_SECONDS)[1]


def test_no_process_outlives_a_killed_server(server: Server) -> None:
    processes = server.processes()
    assert len(processes) > 1
    server.process.send_signal(signal.SIGKILL)
    assert not psutil.wait_procs(processes, timeout=READY_SECONDS)[1]


def test_no_process_of_a_model_outlives_the_server(mongo_uri: str, database_name: str, tmp_path: Path) -> None:
    hang = f"open({str(tmp_path / 'begun')!r}, 'w').close()\ntime.sleep(1000)"
    path = json.dumps([write_models(tmp_path / "models", add=SUM, hang=hang)])
    ways = (signal.SIGTERM, signal.SIGKILL)
    for way in ways:
        with running(mongo_uri, database_name, tmp_path, BANYAN_MODELS__PATH=path) as server:
            with server.client("user") as provider, pytest.raises(Invalid, match="add: ValueError: x is missing"):
                provider.submit({"model": "add", "inputs": {"y": 1}})
            processes = server.processes()
            assert [process for process in processes if "worker.model_host" in " ".join(process.cmdline())]
            server.process.send_signal(way)
            assert not psutil.wait_procs(processes, timeout=READY_SECONDS)[1]
    with (
        running(mongo_uri, database_name, tmp_path, BANYAN_MODELS__PATH=path) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        token = json.loads(server.credentials.read_text())["user"]
        headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
        asked = pool.submit(requests.post, f"{server.url}/tasks", json={"model": "hang"}, headers=headers, timeout=60)
        eventually((tmp_path / "begun").exists, show=(tmp_path / "log").read_text)
        processes = server.processes()
        server.process.send_signal(signal.SIGKILL)
        assert not psutil.wait_procs(processes, timeout=READY_SECONDS)[1]
        assert asked.result().status_code == 503


def test_several_processes_serve_one_queue(mongo_uri: str, database_name: str, tmp_path: Path) -> None:
    with running(mongo_uri, database_name, tmp_path, BANYAN_SERVER__PROCESSES="2") as server:
        eventually(lambda: len(server.processes()) == 3, show=server.processes)
        with server.client("user") as provider:
            tasks = provider.submit([{"command": "true"}] * 20)
            assert {provider.task(task["_id"])["state"] for task in tasks} == {"inactive"}


def test_a_token_is_never_logged(server: Server, tmp_path: Path) -> None:
    with server.client("user") as provider:
        provider.submit({"command": "true"})
        token = json.loads(server.credentials.read_text())["user"]
    assert token not in (tmp_path / "log").read_text()


def test_a_rotated_token_stays_worth_nothing_after_a_restart(
    mongo_uri: str, database_name: str, tmp_path: Path
) -> None:
    with running(mongo_uri, database_name, tmp_path) as server:
        old = json.loads(server.credentials.read_text())
        copy = json.dumps(old)
        with server.client("admin") as admin:
            fresh = {name: admin.rotate_user(name)["token"] for name in ("user", "admin")}
        assert json.loads(server.credentials.read_text()) == old | fresh
        assert server.credentials.stat().st_mode & 0o777 == 0o600
    with running(mongo_uri, database_name, tmp_path) as server, server.client("user") as provider:
        assert provider.tasks().items == []
    server.credentials.write_text(copy)
    with running(mongo_uri, database_name, tmp_path) as server:
        for token, way in ((old["user"], pytest.raises(Unauthorized)), (fresh["user"], nullcontext())):
            with Client(server.url, token) as client, way:
                client.tasks()
    log = (tmp_path / "log").read_text()
    assert "the token of 'user'" in log
    assert not [token for token in (*old.values(), *fresh.values()) if token in log]


@pytest.mark.parametrize("text", ["", "{}", '{"admin": "short", "user": "short", "worker": "short"}', "[]"])
def test_a_credentials_file_that_cannot_be_used_stops_the_start(
    mongo_uri: str, database_name: str, tmp_path: Path, text: str
) -> None:
    credentials = tmp_path / "credentials.json"
    credentials.write_text(text)
    done = subprocess.run(
        [*SERVER, "--port", "0", "--credentials", str(credentials)],
        env={**os.environ, "BANYAN_MONGO__URI": mongo_uri, "BANYAN_MONGO__DATABASE": database_name},
        capture_output=True,
        timeout=READY_SECONDS,
        check=False,
    )
    assert done.returncode not in (0, -9)
    assert str(credentials) in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
