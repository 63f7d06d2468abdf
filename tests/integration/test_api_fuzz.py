"""No input, however wrong, gets anything but a clear answer, and what is refused leaves no trace.

About `REQUESTS` requests in all: BANYAN_FUZZ_REQUESTS=20000 for a long run.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import schemathesis
from bson import ObjectId
from flask import Flask
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from banyan.api.routes import ROUTES
from banyan.api.schema import RESOURCES
from banyan.domain.roles import Role
from banyan.queue.context import Context
from tests.integration.conftest import Api
from tests.support.hostile import HEADERS, Known, bodies, filters, queries, spoilt

REQUESTS = int(os.environ.get("BANYAN_FUZZ_REQUESTS", "2000"))

pytestmark = pytest.mark.timeout(300 + REQUESTS)

SHARES = {"bodies": 0.5, "queries": 0.2, "anything": 0.1, "documented": 0.2}
"""Of the requests, by what they vary."""


@dataclass
class Fuzzer:
    """Sends requests, and looks at each answer and at what is stored then."""

    app: Flask
    context: Context
    tokens: dict[Role, str]
    known: Known
    statuses: Counter[int] = field(default_factory=Counter)
    state: str = ""

    def send(self, method: str, path: str, role: Role | None, body: Any = b"", **more: Any) -> None:
        """One request; whoever refuses it keeps nothing of it."""
        headers = {"Content-Type": "application/json", **more.pop("headers", {})}
        if role is not None:
            headers = {"Authorization": f"Bearer {self.tokens[role]}", **headers}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.app.test_client().open(path, method=method, data=data, headers=headers, **more)
        self.look(answer.status_code, (method, path, role, data[:2000], headers, more, answer.get_data()[:2000]))

    def look(self, status: int, request: object) -> None:
        """Whether an answer is right, and the state with it."""
        self.statuses[status] += 1
        assert status < 500, request
        state = self.hash()
        if status >= 400:
            assert state == self.state, ("a refused request changed what is stored", request)
        self.state = state

    def hash(self) -> str:
        """The same as long as nothing is stored or removed, but for the counter by which edits of the graph meet."""
        hashes = self.context.storage.db.command("dbHash")["collections"]
        return str(sorted((name, value) for name, value in hashes.items() if name != "meta"))

    def alive(self) -> None:
        """The server still does its work."""
        provider = Api(client=self.app.test_client(), token=self.tokens[Role.PROVIDER])
        worker = Api(client=self.app.test_client(), token=self.tokens[Role.WORKER])
        admin = Api(client=self.app.test_client(), token=self.tokens[Role.ADMIN])
        assert provider.get("/health").status_code == 200
        queue = f"after-{ObjectId()}"
        assert admin.post("/queues", {"name": queue}).status_code == 201
        task = provider.post("/tasks", {"command": "true", "state": "available", "queue": queue}).get_json()["_id"]
        resources = {"cores": 1000, "memory": 2**50}
        id = worker.post("/workers", {"name": "w", "resources": resources, "queues": [queue]}).get_json()["_id"]
        claim = {"request": "r", "resources": resources, "max_tasks": 1, "held": [], "wait": 0}
        (grant,) = worker.post(f"/workers/{id}/claim", claim).get_json()["tasks"]
        end = {"execution": grant["execution"], "token": grant["token"], "exit_status": "success"}
        assert worker.post(f"/workers/{id}/report", {"reports": [end]}).get_json()["accepted"] == [grant["execution"]]
        assert provider.get(f"/tasks/{task}").get_json()["exit_status"] == "success"


@pytest.fixture
def fuzzer(app: Flask, context: Context, provider: Api, worker: Api, admin: Api) -> Iterator[Fuzzer]:
    """With some of everything stored, in many states; afterwards the server must still work."""
    app.testing = False
    tokens = {Role.PROVIDER: provider.token, Role.WORKER: worker.token, Role.ADMIN: admin.token}
    fuzzer = Fuzzer(app=app, context=context, tokens=tokens, known=furnished(provider, worker, admin))
    fuzzer.state = fuzzer.hash()
    yield fuzzer
    fuzzer.alive()


def furnished(provider: Api, worker: Api, admin: Api) -> Known:
    """Tasks, attempts, a sweep, a worker, files, and how to reach them."""
    shared = {"command": "true", "state": "available"}
    tasks = [each["_id"] for each in provider.post("/tasks", [shared] * 6).get_json()["_items"]]
    waits = provider.post("/tasks", {"command": "true", "dependencies": tasks[:1]}).get_json()["_id"]
    group = provider.post("/tasks", {}).get_json()["_id"]
    sweep = provider.post("/sweeps", {"command": "{x}", "grid": {"x": [1, 2]}}).get_json()["_id"]
    resources = {"cores": 3, "memory": 2**40, "gpus": 1, "gpu_memory": 2**30, "gpu_compute_capability": "8.0"}
    id = worker.post("/workers", {"name": "w", "resources": resources}).get_json()["_id"]
    claim = {"request": "r", "resources": resources, "max_tasks": 3, "held": [], "wait": 0}
    grants = worker.post(f"/workers/{id}/claim", claim).get_json()["tasks"]
    attempts = {grant["execution"]: grant["token"] for grant in grants}
    first, token = next(iter(attempts.items()))
    for path in ("stdout", "files/a/b.txt"):
        sent = {"data": b"0123456789", "headers": {"Banyan-Attempt-Token": token}}
        assert worker.call("PUT", f"/execution_history/{first}/{path}", **sent).status_code == 200
    assert admin.put("/models/m/defaults", {"x": 1}).status_code == 200
    return Known(tasks=[*tasks, waits, group], workers=[id], sweeps=[sweep], attempts=attempts)


def examples(share: str, parts: int = 1) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """So many examples, none of them made smaller: each leaves the next one another state."""
    return hypothesis_settings(
        max_examples=max(2, int(REQUESTS * SHARES[share] / parts)),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def report(record_property: Callable[[str, object], None], share: str, statuses: Counter[int]) -> None:
    counted = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    record_property("summary", f"fuzzed by {share}: {sum(statuses.values())} requests, {counted}")


def test_bodies(fuzzer: Fuzzer, record_property: Callable[[str, object], None]) -> None:
    roles = st.sampled_from([*Role, *Role, None])

    @examples("bodies")
    @given(
        request=bodies(fuzzer.known), role=roles, rightful=st.sampled_from(range(8)), headers=HEADERS, spoil=spoilt()
    )
    def send(
        request: Any, role: Role | None, rightful: int, headers: dict[str, str], spoil: Callable[[bytes], bytes]
    ) -> None:
        method, path, sent, own = request
        data = sent if isinstance(sent, bytes) else spoil(json.dumps(sent).encode())
        fuzzer.send(method, path, own if rightful != 7 else role, data, headers=headers)

    send()
    report(record_property, "bodies", fuzzer.statuses)


def test_queries(fuzzer: Fuzzer, record_property: Callable[[str, object], None]) -> None:
    listed = [
        *(f"/{resource}" for resource in RESOURCES),
        *(f"/tasks/{id}/execution_history" for id in fuzzer.known.tasks[:1]),
    ]

    @examples("queries")
    @given(st.data())
    def send(data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(["list", "list", "statistics", "change", "delete"]))
        if kind == "list":
            path = data.draw(st.sampled_from(listed))
            resource = path.rpartition("/")[2]
            fuzzer.send("GET", path, Role.ADMIN, query_string=data.draw(queries(resource)), headers=data.draw(HEADERS))
        elif kind == "statistics":
            fuzzer.send("GET", "/statistics", Role.PROVIDER, query_string={"where": data.draw(filters("tasks"))})
        elif kind == "change":
            body = data.draw(st.sampled_from([{"priority": 1}, {"state": "available"}, {"state": "cancelled"}]))
            query = {"where": data.draw(filters("tasks")), "dry_run": data.draw(st.sampled_from(["1", "true", "x"]))}
            fuzzer.send("PATCH", "/tasks", Role.PROVIDER, body, query_string=query)
        else:
            query = {"where": f'{{"$and": [{{"name": "nobody"}}, {data.draw(filters("tasks"))}]}}'}
            fuzzer.send("DELETE", "/tasks", Role.ADMIN, query_string=query)

    send()
    report(record_property, "queries", fuzzer.statuses)


def test_anything(fuzzer: Fuzzer, record_property: Callable[[str, object], None]) -> None:
    routed = [(route.method, route.path) for route in ROUTES.values()]
    read = [("GET", f"/{resource}{item}") for resource in RESOURCES for item in ("", "/<objectid:id>", "/<name>")]
    odd = ["BREW", "TRACE", "OPTIONS", "HEAD", "PUT", "DELETE", "PATCH", "POST"]
    pieces = st.sampled_from(
        ["..", "%2e%2e", "%252e", "%2f", "%5c", "\\", "%00", "%c0%ae", "//", ";", "?", "#", "%", "*"]
    )
    names = st.lists(pieces | st.text(st.characters(codec="utf-8"), max_size=5), min_size=1, max_size=4).map("".join)

    @examples("anything")
    @given(
        target=st.sampled_from([*routed, *read]),
        method=st.none() | st.sampled_from(odd),
        id=st.sampled_from(fuzzer.known.ids),
        name=st.sampled_from(["default", "node", "m", "a/b.txt"]) | names,
        role=st.sampled_from([*Role, None]),
        query=st.dictionaries(
            st.sampled_from(["attempt", "offset", "dry_run", "format", "where", "x"]), names, max_size=2
        ),
        body=st.binary(max_size=20)
        | st.recursive(st.none() | st.floats() | st.text(max_size=5), st.lists, max_leaves=5),
        headers=HEADERS,
    )
    def send(
        target: tuple[str, str],
        method: str | None,
        id: str,
        name: str,
        role: Role | None,
        query: dict[str, str],
        body: Any,
        headers: dict[str, str],
    ) -> None:
        path = re.sub(r"<[a-z:]+>", lambda _: name, re.sub(r"<objectid:[a-z_]+>", id, target[1]))
        fuzzer.send(
            method or target[0], path.replace("?", "").replace("#", ""), role, body, query_string=query, headers=headers
        )

    send()
    report(record_property, "anything", fuzzer.statuses)


TRUTHS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]
"""What schemathesis looks at; not whether right data is always accepted, for more is asked than a schema can say."""


def in_items(response: Any) -> bool:
    """Whether it says item by item what is refused, as the answer to many changes at once does: with status 200."""
    items = response.json().get("_items", ()) if response.headers["content-type"][0] == "application/json" else ()
    return any(item.get("_status") == "ERR" for item in items)


def test_the_openapi_document_is_true(fuzzer: Fuzzer, record_property: Callable[[str, object], None]) -> None:
    admin = Api(client=fuzzer.app.test_client(), token=fuzzer.tokens[Role.ADMIN])
    schema = schemathesis.openapi.from_dict(admin.get("/openapi.json").get_json())
    schema.app = fuzzer.app
    headers = {"Authorization": f"Bearer {admin.token}"}
    operations: list[Any] = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]

    def check(operation: Any, mode: GenerationMode) -> None:
        known = st.sampled_from(fuzzer.known.of(operation.path))

        @examples("documented", 2 * len(operations))
        @given(case=operation.as_strategy(mode), id=known, use=st.booleans())
        def call(case: Any, id: str, use: bool) -> None:
            if use and "id" in (case.path_parameters or {}) and mode == GenerationMode.POSITIVE:
                case.path_parameters["id"] = id
            if isinstance(case.body, dict) and "wait" in case.body:
                case.body["wait"] = 0
            response = case.call(headers=headers)
            fuzzer.look(response.status_code, (case, response.text[:2000]))
            truths = [each for each in TRUTHS if each is not checks.negative_data_rejection or not in_items(response)]
            case.validate_response(response, checks=truths, headers=headers)

        call()

    for operation in operations:
        check(operation, GenerationMode.POSITIVE)
        if operation.label not in ("GET /health", "GET /metrics", "GET /openapi.json", "GET /models"):
            check(operation, GenerationMode.NEGATIVE)  # the others take nothing that could be wrong
    report(record_property, "the OpenAPI document", fuzzer.statuses)
