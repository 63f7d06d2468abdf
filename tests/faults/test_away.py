"""MongoDB away, killed or hung: a 503 within a bounded time on every route, and workers that go on."""

import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from banyan.api.app import create_app
from banyan.config import Models, ServerSettings
from banyan.domain.roles import Role
from banyan.errors import Unavailable
from banyan.models.checker import Checker
from banyan.queue.context import Context
from banyan.queue.hub import Hub
from banyan.storage import embedded
from banyan.storage.embedded import EmbeddedMongo
from banyan.storage.mongo import Storage
from tests.support import processes
from tests.support.leaving_mongo import LeavingMongo
from tests.support.waiting import eventually

Request = tuple[str, str]

BOUND_SECONDS = 30.0
"""Nobody waits so long, on whatever machine this runs: the driver alone would need a minute and more."""
NOBODY = "0" * 24


@pytest.fixture
def mongo(tmp_path: Path) -> Iterator[EmbeddedMongo]:
    """A mongod of the test's own."""
    with embedded.start(tmp_path / "mongo", log=tmp_path / "mongod.log", cache_gigabytes=0.25) as mongo:
        yield mongo
        mongo.process.send_signal(signal.SIGCONT)


@pytest.fixture
def context(mongo: EmbeddedMongo) -> Iterator[Context]:
    """A server's storage, hub and settings on it."""
    storage = Storage.connect(mongo.uri, "away")
    settings = ServerSettings(models=Models(path=()))
    hub, models = Hub(storage), Checker(settings.models, settings.posting.check_seconds)
    yield Context(storage=storage, hub=hub, settings=settings, models=models)
    hub.close()
    models.close()
    storage.close()


def requests_of(app: Flask) -> list[Request]:
    """One request for each method of each route."""
    found = []
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<[^>]*path[^>]*>", "a", rule.rule)
        path = re.sub(r"<[^>]*>", NOBODY, path)
        found += [(method, path) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}]
    return found


def all_at_once(app: Flask, token: str, requests: list[Request]) -> dict[Request, TestResponse]:
    """The answers, each of which has to come within `BOUND_SECONDS`."""

    def ask(request: Request) -> TestResponse:
        method, path = request
        headers = {"Authorization": f"Bearer {token}"}
        return app.test_client().open(path, method=method, headers=headers, json={})

    with ThreadPoolExecutor(len(requests)) as pool:
        asked = {pool.submit(ask, request): request for request in requests}
        done, late = wait(asked, timeout=BOUND_SECONDS)
        assert [asked[each] for each in late] == []
        return {asked[each]: each.result() for each in done}


def hang(mongo: EmbeddedMongo) -> None:
    mongo.process.send_signal(signal.SIGSTOP)


def kill(mongo: EmbeddedMongo) -> None:
    mongo.process.kill()
    mongo.process.wait()


@pytest.mark.parametrize("take_away", [hang, kill])
def test_every_route_says_so_within_a_bounded_time(
    mongo: EmbeddedMongo, context: Context, take_away: Callable[[EmbeddedMongo], None]
) -> None:
    app = create_app(context)
    token = context.storage.users.add("root", Role.ADMIN, context.now())
    requests = requests_of(app)
    assert len(requests) > 50
    assert all_at_once(app, token, [("GET", "/health"), ("GET", "/tasks")])["GET", "/health"].status_code == 200
    take_away(mongo)
    first = all_at_once(app, token, requests)
    assert {answer.status_code for answer in first.values() if answer.status_code >= 500} == {503}
    assert first["GET", "/health"].get_json()["mongo"] == "away"
    eventually(lambda: away(context))
    later = all_at_once(app, token, requests)
    told = {request: (answer.status_code, answer.headers.get("Retry-After")) for request, answer in later.items()}
    assert told == dict.fromkeys(requests, (503, "2"))


def away(context: Context) -> bool:
    try:
        context.storage.reach.require()
    except Unavailable:
        return True
    return False


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_workers_go_on_and_tell_later(tmp_path: Path) -> None:
    """Tasks run and end while MongoDB hangs, and while it is dead; what they left is told later, each once."""
    with ExitStack() as stack:
        mongo = LeavingMongo.start(tmp_path)
        stack.callback(mongo.stop)
        server = processes.server(tmp_path, "server", mongo.now.uri, "away", BANYAN_MODELS__PATH="[]")
        server.start()
        stack.callback(server.stop)
        server.wait_until_healthy()
        worker = processes.worker(tmp_path, "worker", server.url, server.token("worker"), BANYAN_MODELS__PATH="[]")
        worker.start()
        stack.callback(worker.stop)
        provider = stack.enter_context(server.client("user"))
        for name, hang in (("hung", True), ("killed", False)):
            begun, go, done = (tmp_path / f"{name} {what}" for what in ("begun", "go", "done"))
            script = f"echo x >> '{begun}'; while [ ! -e '{go}' ]; do sleep 0.05; done; echo x >> '{done}'"
            ids = [each["_id"] for each in provider.submit([{"command": script, "state": "available"}] * 2)]
            ids.append(provider.submit({"command": "true", "state": "available", "dependencies": ids})["_id"])
            eventually(lambda: lines(begun) == 2, seconds=60, show=worker.tail)  # noqa: B023 - called at once
            mongo.leave(hang=hang)
            eventually(lambda: not server.healthy, seconds=60)
            go.touch()
            eventually(lambda: lines(done) == 2, seconds=60, show=worker.tail)  # noqa: B023
            mongo.come_back()
            assert [task["exit_status"] for task in provider.wait(ids, timeout=120)] == ["success"] * 3
            assert [len(provider.attempts(id)) for id in ids] == [1, 1, 1]
            assert (lines(begun), lines(done)) == (2, 2)
