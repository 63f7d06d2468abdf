"""Every route and method, made from the application's own map, times everyone who may ask: the expected statuses.

A route that has no row fails the test, and so does a row whose route is gone.
"""

import re
import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from pymongo.database import Database
from werkzeug.test import TestResponse

from banyan.api.app import create_app
from banyan.config import Auth, Models, ServerSettings
from banyan.domain.roles import Role
from banyan.queue.context import Context
from banyan.queue.hub import Hub
from banyan.storage.mongo import Storage
from tests.integration.conftest import Api
from tests.support.access import Things

COLUMNS = (
    *("no token", "a wrong one", "an expired one"),
    *("provider, own", "provider, another's", "private, own", "private, another's"),
    *("worker, own", "worker, another's", "admin"),
)
TABLE = """
no  wrong expired
token        provider:   if private:  worker:
             own another own another  own ano. admin thing
401 401 401  200 200     200 200      200 200  200  -           GET /
200 200 200  200 200     200 200      200 200  200  -           GET /health
401 401 401  200 200     403 403      200 200  200  -           GET /metrics
401 401 401  200 200     200 200      200 200  200  -           GET /openapi.json
401 401 401  200 200     200 200      200 200  200  -           GET /statistics

401 401 401  200 200     200 200      200 200  200  waiting     GET /tasks
401 401 401  201 403     201 422      403 403  201  waiting     POST /tasks
401 401 401  200 200:403 200 200:404  403 403  200  waiting     PATCH /tasks
401 401 401  200 200     200 200      403 403  200  ended       DELETE /tasks
401 401 401  200 200     200 404      200 200  200  waiting     GET /tasks/<_id>
401 401 401  200 403     200 404      403 403  200  waiting     PATCH /tasks/<task_id>
401 401 401  403 403     403 403      200 409  200  grant       PATCH /tasks/<task_id>
401 401 401  200 403     200 404      403 403  200  ended       DELETE /tasks/<task_id>
401 401 401  200 403     200 404      403 403  200  waiting     POST /tasks/<task_id>/cancel
401 401 401  200 403     200 404      403 403  200  ended       POST /tasks/<task_id>/retry
401 401 401  200 200:403 200 200:404  403 403  200  waiting     POST /tasks/cancel
401 401 401  200 200:403 200 200:404  403 403  200  ended       POST /tasks/retry
401 401 401  200 200     200 404      200 200  200  waiting     GET /tasks/<task_id>/explain
401 401 401  200 200     200 200      200 200  200  waiting     GET /tasks/explain
401 401 401  200 200     200 200      200 200  200  waiting     GET /explain
401 401 401  403 403     403 403      200 409  200  running     POST /tasks/<task_id>/update_execution_data
401 401 401  403 403     403 403      200 409  200  running     PATCH /tasks/<task_id>/update_execution_data
401 401 401  200 403     200 422      403 403  200  waiting     POST /tasks/add_continuations
401 401 401  200 403     200 422      403 403  200  linked      POST /tasks/remove_continuations
401 401 401  200 403     200 404      403 403  200  waiting     POST /tasks/<task_id>/add_continuations
401 401 401  200 403     200 404      403 403  200  waiting     PATCH /tasks/<task_id>/add_continuations
401 401 401  200 403     200 404      403 403  200  linked      POST /tasks/<task_id>/remove_continuations
401 401 401  200 403     200 404      403 403  200  linked      PATCH /tasks/<task_id>/remove_continuations
401 401 401  200 200     200 404      200 200  200  running     GET /tasks/<task>/execution_history
401 401 401  200 200     200 404      200 200  200  printed     GET /tasks/<task>/stdout
401 401 401  200 200     200 404      200 200  200  printed     GET /tasks/<task>/stderr
401 401 401  200 200     200 404      200 200  200  printed     GET /tasks/<task>/files/
401 401 401  200 200     200 404      200 200  200  printed     GET /tasks/<task>/files/<path>

401 401 401  200 200     200 200      200 200  200  edge        GET /continuations
401 401 401  200 200     200 404      200 200  200  edge        GET /continuations/<_id>
401 401 401  200 200     200 200      200 200  200  execution   GET /execution_history
401 401 401  200 200     200 404      200 200  200  execution   GET /execution_history/<_id>
401 401 401  403 403     403 403      200 409  200  execution   PUT /execution_history/<execution>/stdout
401 401 401  403 403     403 403      200 409  200  execution   PUT /execution_history/<execution>/stderr
401 401 401  403 403     403 403      200 409  200  execution   PUT /execution_history/<execution>/files/<path>
401 401 401  200 200     200 200      200 200  200  sample      GET /memory_usage
401 401 401  200 200     200 404      200 200  200  sample      GET /memory_usage/<_id>
401 401 401  201 403     201 422      201 403  201  running     POST /memory_usage

401 401 401  200 200     200 200      200 200  200  sweep       GET /sweeps
401 401 401  201 403     201 422      403 403  201  waiting     POST /sweeps
401 401 401  200 200     200 404      200 200  200  sweep       GET /sweeps/<_id>
401 401 401  200 403     200 404      403 403  200  ended_sweep DELETE /sweeps/<sweep_id>
401 401 401  200 403     200 404      403 403  200  sweep       POST /sweeps/<sweep_id>/cancel
401 401 401  200 403     200 404      403 403  200  ended_sweep POST /sweeps/<sweep_id>/retry
401 401 401  200 200     200 404      200 200  200  sweep       GET /sweeps/<sweep_id>/results
401 401 401  200 200     200 404      200 200  200  sweep       GET /sweeps/<sweep_id>/statistics

401 401 401  200 200     200 200      200 200  200  worker      GET /workers
401 401 401  403 403     403 403      201 422  201  worker      POST /workers
401 401 401  200 200     200 200      200 200  200  worker      GET /workers/<_id>
401 401 401  403 403     403 403      403 403  200  worker      PATCH /workers/<worker_id>
401 401 401  403 403     403 403      200 403  200  worker      DELETE /workers/<worker_id>
401 401 401  403 403     403 403      200 403  200  worker      POST /workers/<worker_id>/claim
401 401 401  403 403     403 403      200 403  200  worker      POST /workers/<worker_id>/report

401 401 401  200 200     200 200      200 200  200  served      GET /models
401 401 401  200 200     200 200      200 200  200  served      GET /models/<name>
401 401 401  200 200     200 200      200 200  200  served      GET /models/<name>/defaults
401 401 401  403 403     403 403      403 403  200  served      PUT /models/<name>/defaults
401 401 401  200 200     200 200      200 200  200  queue       GET /queues
401 401 401  403 403     403 403      403 403  201  -           POST /queues
401 401 401  200 200     200 200      200 200  200  queue       GET /queues/<name>
401 401 401  403 403     403 403      403 403  200  queue       PATCH /queues/<name>
401 401 401  403 403     403 403      403 403  200  user        GET /users
401 401 401  403 403     403 403      403 403  201  -           POST /users
401 401 401  403 403     403 403      403 403  200  user        GET /users/<name>
401 401 401  403 403     403 403      403 403  204  user        DELETE /users/<name>
401 401 401  403 403     403 403      403 403  200  user        POST /users/<name>/rotate
"""
"""What each route answers; `thing` is what its path or body names. In `200:403` the second is the status of an item."""

REFUSED = (401, 403, 404)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    method: str
    path: str
    thing: str
    statuses: tuple[str, ...]

    @property
    def route(self) -> str:
        return f"{self.method} {self.path}"


def rows() -> Iterator[Row]:
    for line in TABLE.splitlines():
        words = line.split()
        if words and words[0].isdecimal():
            *statuses, thing, method, path = words
            yield Row(method=method, path=path, thing=thing, statuses=tuple(statuses))


ROWS = list(rows())


BODIES: Mapping[str, Callable[[Things, Things], Any]] = {
    "POST /tasks": lambda things, _: {"continuations": [things.waiting]},
    "PATCH /tasks": lambda things, _: [{"_id": things.waiting, "name": "x"}],
    "PATCH /tasks/<task_id> waiting": lambda *_: {"name": "x"},
    "PATCH /tasks/<task_id> grant": lambda things, asking: {"update_execution_data": {"token": asking.token}},
    "POST /tasks/<task_id>/update_execution_data": lambda things, asking: {"token": asking.token},
    "PATCH /tasks/<task_id>/update_execution_data": lambda things, asking: {"token": asking.token},
    "POST /tasks/cancel": lambda things, _: {"ids": [things.waiting]},
    "POST /tasks/retry": lambda things, _: {"ids": [things.ended]},
    "POST /tasks/add_continuations": lambda things, _: [{"targets": [things.waiting], "values": [things.child]}],
    "POST /tasks/remove_continuations": lambda things, _: [{"targets": [things.linked], "values": [things.child]}],
    "POST /tasks/<task_id>/add_continuations": lambda things, _: [things.child],
    "PATCH /tasks/<task_id>/add_continuations": lambda things, _: [things.child],
    "POST /tasks/<task_id>/remove_continuations": lambda things, _: [things.child],
    "PATCH /tasks/<task_id>/remove_continuations": lambda things, _: [things.child],
    "POST /memory_usage": lambda things, _: things.sample_of(things.running, execution=things.execution),
    "POST /sweeps": lambda things, _: {
        "command": "true",
        "points": [{}],
        "barrier": {"command": "true", "continuations": [things.waiting]},
    },
    "POST /workers": lambda things, _: {"name": "x", "resources": {"cores": 1}, "replaces": things.worker},
    "PATCH /workers/<worker_id>": lambda *_: {"state": "draining"},
    "POST /workers/<worker_id>/claim": lambda *_: {"request": secrets.token_hex(8), "resources": {}, "max_tasks": 0},
    "POST /workers/<worker_id>/report": lambda things, asking: {
        "reports": [{"execution": things.execution, "token": asking.token}]
    },
    "PUT /models/<name>/defaults": lambda *_: {"x": 1},
    "POST /queues": lambda *_: {"name": f"q-{secrets.token_hex(4)}"},
    "PATCH /queues/<name>": lambda *_: {"paused": True},
    "POST /users": lambda *_: {"name": f"u-{secrets.token_hex(4)}", "role": "admin"},
}


QUERIES: Mapping[str, str] = {"DELETE /tasks": "?where={{}}", "GET /tasks/explain": "?ids={things.waiting}"}


class World:
    """Two providers, two workers and an admin, before a public and a private server of one queue."""

    def __init__(self, context: Context) -> None:
        self.context = context
        private = replace(context, settings=context.settings.model_copy(update={"auth": Auth(private=True)}))
        self.apps = {False: create_app(context), True: create_app(private)}
        self.clients = {private: app.test_client() for private, app in self.apps.items()}
        users, now = context.storage.users, context.now()
        roles = {"alice": Role.PROVIDER, "bob": Role.PROVIDER, "node": Role.WORKER, "far": Role.WORKER}
        self.tokens = {name: users.add(name, role, now) for name, role in (roles | {"root": Role.ADMIN}).items()}
        users.add("late", Role.ADMIN, now)
        self.tokens["late"] = users.rotate("late", now, now - timedelta(seconds=1))
        self.tokens |= {"unknown": secrets.token_urlsafe(24), "nobody": ""}

    def api(self, name: str, *, private: bool = False) -> Api:
        return Api(client=self.clients[private], token=self.tokens[name])

    def things(self, provider: str = "alice", worker: str = "node") -> Things:
        return Things(self.api(provider).call, self.api(worker).call, self.api("root").call)

    def ask(self, row: Row, name: str, things: Things, asking: Things, *, private: bool) -> TestResponse:
        """Send the row's request for `things` by `name`, who has the attempt tokens of `asking`."""
        path, _, rest = row.path.partition("<")
        if rest:
            found = things.running if row.thing == "grant" else getattr(things, row.thing)
            path += str(found) + rest.partition(">")[2].replace("<path>", "a.txt")
        elif row.thing != "-":
            getattr(things, row.thing)
        more: dict[str, Any] = {}
        if row.method == "PUT" and "execution" in row.path:
            more = {"data": b"x", "headers": {"Banyan-Attempt-Token": asking.token}}
        elif body := BODIES.get(row.route) or BODIES.get(f"{row.route} {row.thing}"):
            more = {"json": body(things, asking)}
        path += QUERIES.get(row.route, "").format(things=things)
        before = self.hash()
        send = self.api(name, private=private).call
        answer = send(row.method, path, **more)
        if row.method == "GET":
            assert (row.route, send("HEAD", path).status_code) == (row.route, answer.status_code)
        if answer.status_code in REFUSED:
            assert (row.route, name, self.hash()) == (row.route, name, before)
        return answer

    def hash(self) -> str:
        """A digest of all that is stored."""
        db: Database[Any] = self.context.storage.db
        return str(db.command("dbHash")["md5"])


@pytest.fixture(scope="module")
def world(mongo_uri: str) -> Iterator[World]:
    """One for all rows; each of them makes its own things."""
    storage = Storage.connect(mongo_uri, f"test_{uuid.uuid4().hex}")
    hub = Hub(storage)
    yield World(Context(storage=storage, hub=hub, settings=ServerSettings(models=Models(path=()))))
    hub.close()
    storage.db.client.drop_database(storage.db.name)
    storage.close()


def routes_of(app: Flask) -> set[str]:
    """`METHOD /path/<name>` of everything that the application answers; HEAD and OPTIONS come with them."""
    return {
        f"{method} {re.sub('<[^>]*:', '<', rule.rule)}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def test_each_route_has_a_row_and_each_row_a_route(world: World) -> None:
    assert {row.route for row in ROWS} == routes_of(world.apps[False])
    assert {row.statuses[:3] for row in ROWS if row.path != "/health"} == {("401", "401", "401")}


def test_not_even_the_methods_of_a_path_are_told_without_a_token(world: World) -> None:
    for row in ROWS:
        answer = world.clients[False].options(re.sub("<path>", "a.txt", re.sub("<[a-z_]*id>", "5" * 24, row.path)))
        assert (row.path, answer.status_code) == (row.path, 200 if row.path == "/health" else 401)


def status_of(answer: TestResponse) -> str:
    """The status; for a list that is answered item by item with that of its item, if it was refused."""
    body = answer.get_json(silent=True)
    items = body.get("_items") if isinstance(body, dict) else None
    code = items[0].get("_error", {}).get("code") if answer.status_code == 200 and items else None
    return f"{answer.status_code}:{code}" if code else str(answer.status_code)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.route} {row.thing}")
def test_everyone_gets_the_status_that_the_table_says(world: World, row: Row) -> None:
    own, far = world.things(), world.things("alice", "far")
    found: list[str] = []
    for name in ("nobody", "unknown", "late"):
        shared = world.things()
        found.append(status_of(world.ask(row, name, shared, shared, private=False)))
    for private in (False, True):
        for owner in ("alice", "bob"):
            things = world.things(owner)
            found.append(status_of(world.ask(row, "alice", things, things, private=private)))
    found.append(status_of(world.ask(row, "node", own, own, private=False)))
    found.append(status_of(world.ask(row, "node", far, own if row.thing != "-" else far, private=False)))
    everything = world.things()
    found.append(status_of(world.ask(row, "root", everything, everything, private=False)))
    assert dict(zip(COLUMNS, found, strict=True)) == dict(zip(COLUMNS, row.statuses, strict=True))
