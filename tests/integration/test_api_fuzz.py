"""No input, however wrong, gets anything but a clear answer: random requests to every route never meet a 5xx."""

import re
from typing import Any

from bson import ObjectId
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from banyan import wire
from banyan.api.routes import ROUTES
from banyan.api.schema import RESOURCES
from banyan.domain.roles import Role
from banyan.queue.context import Context
from tests.integration.conftest import Api

ROUTED = [(route.method, route.path) for route in ROUTES.values()]
READ = [("GET", f"/{resource}{item}") for resource in RESOURCES for item in ("", "/<objectid:id>", "/<name>")]
FIELDS = sorted(
    {field for schema in RESOURCES.values() for field in schema}
    | set("add_continuations remove_continuations update_execution_data token worker targets values".split())
    | set("request resources max_tasks held cancelling wait ahead reports memory_usage time files replaces".split())
    | set("exit_status exit_code signal given_back progress result directory granted_resources".split())
)
EXAMPLES = 150
PARAMETERS = ["where", "sort", "projection", "embedded", "max_results", "page", "attempt", "offset", "dry_run"]


def right(ids: list[str]) -> list[tuple[str, str, Any]]:
    """Requests that are right, or nearly so: method, path, body."""
    first, second, worker, unknown = ids
    time = "Tue, 02 Apr 2013 10:29:13 GMT"
    task = {"command": "true", "state": "available", "requested_resources": {"cores": 1, "memory": "1 GiB"}}
    rich = {"metadata": {"x": {}}, "tags": ["a"], "requires": {"a": "b"}, "env": {"A": "b"}, "stdin": "x"}
    resources = {"cores": 4, "memory": 2**30, "gpus": 1, "gpu_memory": 1, "gpu_compute_capability": "8.0"}
    person = {"name": "w", "host": "h", "pid": 1, "resources": resources}
    end = {"execution": unknown, "token": "x", "exit_status": "success", "exit_code": 0, "time_started": time}
    said = {"execution": unknown, "token": "x", "progress": {"fraction": 0.5, "message": "m"}}
    sample = {"task": first, "execution": unknown, "time": time, "resident_memory_bytes": 1}
    edges = [{"targets": [first], "values": [second]}]
    data = {"token": "x", "exit_status": "success", "result": {"a.b": 1}}
    posts = [task, [task, task | {"dependencies": [{"task": first, "on": "any"}]}], task | rich]
    posts += [{"model": "m", "inputs": {"a.b": [1, {"": None}]}}, task | {"_id": unknown, "continuations": [second]}]
    posts += [task | {"not_before": time, "timeout": "1h", "retry_delay": 1, "max_retry_count": 3, "hold": True}]
    patches = [{"state": "cancelled"}, {"hold": True, "priority": 5, "queue": "default"}, {"state": "available"}]
    patches += [{"add_continuations": [second], "remove_continuations": []}, {"continuations": [second]}]
    patches += [{"state": "running", "update_execution_data": {"worker": worker}}]
    patches += [{"state": "terminated", "update_execution_data": data}]
    claims = {"request": "r", "resources": resources, "max_tasks": 1, "held": [], "wait": 0, "ahead": {"c": 1}}
    return [
        *(("POST", "/tasks", each) for each in posts),
        *(("PATCH", f"/tasks/{first}", each) for each in patches),
        ("PATCH", "/tasks", [{"_id": first, "name": "x"}, {"_id": second, "state": "available"}]),
        ("PATCH", '/tasks?where={"name":"x"}', {"priority": 1}),
        *(("POST", f"/tasks/{verb}_continuations", edges) for verb in ("add", "remove")),
        *(("POST", f"/tasks/{first}/{verb}_continuations", [second]) for verb in ("add", "remove")),
        ("POST", f"/tasks/{first}/update_execution_data", data),
        ("POST", f"/tasks/{first}/update_execution_data", {"worker": worker}),
        ("POST", "/workers", person | {"labels": {"a": "b"}, "capabilities": ["shell"], "available_until": time}),
        ("POST", "/workers", person | {"replaces": worker, "files": {"root": "/nowhere", "probe": "x"}}),
        ("POST", f"/workers/{worker}/claim", claims),
        ("POST", f"/workers/{worker}/report", {"time": time, "reports": [end, said], "memory_usage": [sample]}),
        ("PATCH", f"/workers/{worker}", {"state": "draining"}),
        ("POST", "/memory_usage", [sample, sample]),
        ("POST", "/queues", {"name": "q", "paused": True, "max_running": 1, "weight": 2}),
        ("PATCH", "/queues/default", {"max_running": 1, "weight": 2, "paused": False}),
        ("POST", "/users", {"name": "u", "role": "worker"}),
        ("PUT", f"/execution_history/{unknown}/stdout", "x"),
    ]


def changed(body: Any, place: int, value: Any) -> Any:
    """The body with the value at one place, counted from the front, replaced."""
    count = 0

    def walk(inner: Any) -> Any:
        nonlocal count
        count += 1
        if count == place:
            return value
        if isinstance(inner, dict):
            return {name: walk(each) for name, each in inner.items()}
        return [walk(each) for each in inner] if isinstance(inner, list) else inner

    return walk(body)


def values(ids: list[str]) -> st.SearchStrategy[Any]:
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=20)
        | st.sampled_from(
            [*ids, "available", "running", "terminated", "cancelled", "success", "1 GiB", "2h", "default"]
        )
        | st.just("Tue, 02 Apr 2013 10:29:13 GMT")
    )
    names = st.sampled_from([*FIELDS, "$in", "$not", "$or", "$regex", "a.b", "", "cores", "memory"]) | st.text(
        max_size=5
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5),
        max_leaves=12,
    )


def test_no_request_meets_a_server_error(app: Flask, context: Context, provider: Api) -> None:
    app.testing = False
    known = [provider.post("/tasks", {"command": "true", "state": "available"}).get_json()["_id"] for _ in range(2)]
    tokens = {role: context.storage.users.add(f"fuzz-{role}", role, context.now()) for role in Role}
    worker = Api(client=app.test_client(), token=tokens[Role.WORKER])
    body = {"name": "w", "host": "h", "pid": 1, "resources": {"cores": 4, "memory": 2**30}}
    ids = [*known, worker.post("/workers", body).get_json()["_id"], str(ObjectId())]
    client = app.test_client()

    headers = st.dictionaries(
        st.sampled_from(["If-Match", "If-None-Match", "Range", "Idempotency-Key", "Banyan-Attempt-Token"]),
        st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
        max_size=2,
    )
    roles = st.sampled_from(list(Role))

    def send(method: str, path: str, role: Role, body: Any, headers: dict[str, str], query: Any = None) -> None:
        if isinstance(body, dict) and "wait" in body:
            body["wait"] = 0
        answer = client.open(
            path,
            method=method,
            query_string=query,
            data=b"" if method == "GET" else wire.dumps(_encodable(body)),
            content_type="application/json",
            headers={"Authorization": f"Bearer {tokens[role]}", **headers},
        )
        assert answer.status_code < 500, (method, path, query, body, answer.get_data(as_text=True))

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        target=st.sampled_from([*ROUTED, *READ]),
        id=st.sampled_from(ids),
        name=st.sampled_from(["default", "alice", "x"]) | st.text(alphabet=st.characters(codec="utf-8"), max_size=8),
        role=roles,
        query=st.dictionaries(st.sampled_from(PARAMETERS), st.text(max_size=10) | values(ids), max_size=2),
        body=values(ids) | st.dictionaries(st.sampled_from(FIELDS), values(ids), max_size=6),
        headers=headers,
    )
    def anything(
        target: tuple[str, str], id: str, name: str, role: Role, query: Any, body: Any, headers: dict[str, str]
    ) -> None:
        place = re.sub(r"<objectid:[a-z_]+>", id, target[1])
        path = re.sub(r"<[a-z:]+>", lambda _: name.replace("?", ""), place)
        texts = {n: v if isinstance(v, str) else wire.dumps(v).decode(errors="replace") for n, v in query.items()}
        send(target[0], path, role, body, headers, texts)

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        request=st.sampled_from(right(ids)), role=roles, place=st.integers(0, 12), value=values(ids), headers=headers
    )
    def nearly_right(
        request: tuple[str, str, Any], role: Role, place: int, value: Any, headers: dict[str, str]
    ) -> None:
        method, path, body = request
        send(method, path, role, changed(body, place, value), headers)

    anything()
    nearly_right()


def _encodable(value: Any) -> Any:
    """The value without lone surrogates, which no client can send as UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [_encodable(each) for each in value]
    if isinstance(value, dict):
        return {_encodable(name): _encodable(each) for name, each in value.items()}
    return value
