"""After a run with everything in it no token can be read anywhere but where it belongs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

import banyan.api.app  # noqa: F401 - it registers every route
from banyan.api.routes import ROUTES
from banyan.api.schema import RESOURCES
from banyan.client import Client
from banyan.storage.meta import MetaStore
from banyan.transport import Connection
from tests.support.up import Up, eventually, started

ROOT = Path(__file__).parents[2]
NOSY = "env; cat /proc/self/environ /proc/$PPID/environ /proc/$PPID/cmdline; ps -ef; ls -l /proc/self/fd /proc/$PPID/fd"
"""What a curious task prints of itself and of the process that started it."""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Up]:
    """A `banyan up` of its own that logs all that it can."""
    models = json.dumps([str(ROOT / "models")])
    settings = {"BANYAN_LOG__LEVEL": "debug", "BANYAN_MODELS__PATH": models}
    with started(tmp_path / "run", "--cores", "2", env=settings) as up:
        yield up


@contextmanager
def second_worker(up: Up, directory: Path, token: str, *, by_environment: bool) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that was given its token where every process can see it."""
    command = [sys.executable, "-m", "banyan", "worker", "--url", up.url, "--workdir", str(directory / "work")]
    environment = {**up.environment, "BANYAN_LOG__LEVEL": "debug"}
    if by_environment:
        environment["BANYAN_TOKEN"] = token
    else:
        command += ["--token=not-this-one", "--token", token]
    directory.mkdir()
    with (directory / "worker.log").open("wb") as log:
        process = subprocess.Popen([*command, "--name", directory.name, "--cores", "1"], env=environment, stderr=log)
        try:
            yield process
        finally:
            eventually(partial(_ended, process), bool)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Ask once more: the first signal drains, the next ones end also the tasks that still run."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(1)
    return process.returncode is not None


def campaign(client: Client) -> str:
    """Tasks of all kinds; the id of one that still runs."""
    ended: list[dict[str, Any]] = [
        *({"command": NOSY}, {"command": "exit 3", "max_retry_count": 1}, {"command": ["no-such-program"]}),
        *({"command": "sleep 60", "timeout": 0.2}, {"model": "sum", "inputs": {"x": 1, "y": 2}}),
    ]
    running = {"command": f"{NOSY}; echo begun; sleep 600"}
    *ids, last = (made["_id"] for made in client.submit([{**task, "state": "available"} for task in (*ended, running)]))
    client.wait(ids, timeout=60)
    eventually(lambda: client.log(last), lambda text: b"begun" in text)
    return str(last)


def misuse(url: str, tokens: dict[str, str]) -> None:
    """Requests with tokens where none belongs."""
    with Client(url, tokens["provider"]) as client:
        connection: Connection = client._connection
        for token in tokens.values():
            for method, path, body in (
                ("POST", "tasks", {"command": "true", "token": token}),
                ("POST", f"tasks?token={token}", {"command": "true"}),
                ("GET", f"{token}/x", None),
                ("PATCH", f"tasks/{'0' * 24}", {"update_execution_data": {"token": token}}),
                ("GET", f'tasks?where={{"token":"{token}"}}', None),
            ):
                connection.send(method, path, body=body, accept=frozenset(range(400, 500)))
    for wrong in ("wrong" * 5, tokens["rotated"]):
        with Client(url, wrong) as client:
            client._connection.send("GET", "tasks", accept=frozenset({401}))


def processes() -> Iterator[tuple[str, bytes]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            for name in ("cmdline", "environ"):
                try:
                    yield f"{entry}/{name}", (entry / name).read_bytes()
                except OSError:
                    continue  # it has ended


def files(directory: Path) -> Iterator[tuple[str, bytes]]:
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            try:
                yield str(path.relative_to(directory)), path.read_bytes()
            except FileNotFoundError:
                continue


def answers(url: str, token: str, task: str) -> Iterator[tuple[str, bytes]]:
    """Every GET of every resource, with its references as documents, and the interface's own description."""
    with Client(url, token) as client:
        for resource, schema in RESOURCES.items():
            references = json.dumps({name: 1 for name, rules in schema.items() if "data_relation" in rules})
            query = {"embedded": references, "max_results": "1000"}
            yield resource, client._connection.send("GET", resource, query=query, accept=frozenset({403})).body
        for route in ROUTES.values():
            if route.method == "GET" and "sweep" not in route.path:
                path = route.path.replace("<path:path>", "a").replace("<path:name>", "sum")
                path = path.replace("<objectid:task_id>", task).replace("<objectid:task>", task).lstrip("/")
                path += f"?ids={task}" if path == "tasks/explain" else ""
                yield path, client._connection.send("GET", path, accept=frozenset({404})).body


def found_in(places: Iterator[tuple[str, bytes]], secrets: dict[str, str]) -> list[tuple[str, str]]:
    return [(name, place) for place, text in places for name, secret in secrets.items() if secret.encode() in text]


def test_no_token_is_anywhere_but_where_it_belongs(run: Up, tmp_path: Path) -> None:
    data = tmp_path / "run" / "data"
    kept = json.loads((data / "credentials.json").read_text())
    tokens = {"admin": kept["admin"], "provider": kept["user"], "worker": kept["worker"]}
    tokens["rotated"] = run.json("user", "add", "ann", "--role", "provider", "--expires", "1h")["token"]
    tokens["ann"] = run.json("user", "rotate", "ann")["token"]
    tokens |= {name: run.json("user", "add", name, "--role", "worker")["token"] for name in ("flag", "variable")}
    with (
        second_worker(run, tmp_path / "flag", tokens["flag"], by_environment=False),
        second_worker(run, tmp_path / "variable", tokens["variable"], by_environment=True),
    ):
        with Client(run.url, tokens["provider"]) as client:
            eventually(lambda: {worker["name"] for worker in client.workers()}, {"flag", "variable"}.issubset)
            running = campaign(client)
        misuse(run.url, tokens)
        with MongoClient[dict[str, Any]](run.ready["mongo_uri"]) as mongo:
            db = mongo["banyan"]
            attempts = [each["_id"] for each in db["executions"].find()]
            attempt_tokens = {f"attempt {id}": MetaStore(db).attempt_token(id) for id in attempts}
            stored = {name: repr(list(db[name].find())).encode() for name in db.list_collection_names()}
        assert len(attempt_tokens) >= 6
        secrets = tokens | attempt_tokens

        assert found_in(iter(stored.items()), secrets) == []
        assert found_in(processes(), secrets) == []
        for token in (tokens["provider"], tokens["admin"], tokens["worker"]):
            assert found_in(answers(run.url, token, running), secrets) == []
        with Client(run.url, tokens["provider"]) as client:
            client.cancel(running)
            client.wait([running], timeout=60)

    found = found_in(files(tmp_path), secrets)
    places = {place for _, place in found}
    spools = {place for place in places if ".banyan-spool" in place}
    pointer = f"run/home/.local/state/banyan/up/{run.process.pid}.json"
    assert places - spools == {"run/data/credentials.json", pointer}
    assert {name for name, place in found if place in spools} <= attempt_tokens.keys()
    assert {(tmp_path / place).stat().st_mode & 0o077 for place in places} == {0}
    assert len((data / "logs" / "audit.log").read_text().splitlines()) > 10
    run.stop()
    assert found_in(iter([("what it printed", run.rest_of_output().encode())]), secrets) == []
