"""Field by field, made from the schemas and from what is stored: what nobody may set, and what nobody may see."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from banyan.api.app import create_app
from banyan.api.data import COLLECTIONS, OWNED
from banyan.api.query import AUTOMATIC
from banyan.api.routes import ROUTES
from banyan.api.schema import RESOURCES
from banyan.api.schema.reports import CURL_DATA, REPORT
from banyan.config import Auth
from banyan.queue.context import Context
from tests.integration.conftest import Api
from tests.support.access import Things, done, query

Document = dict[str, Any]

INTERNAL = (
    "attempt_count avoid class_key claim_request disk_fills host_deaths has_continuations order task_class token "
    "unpromoted unsettled worker files_root replaced last_seen claims digest leaving password"
).split()
"""What is stored beside the documented fields, or might be."""
NO_ID = "0" * 24


@pytest.fixture
def things(provider: Api, worker: Api, admin: Api) -> Things:
    """What alice owns and node runs, all of it made."""
    return made(Things(provider.call, worker.call, admin.call, "alices"))


def made(things: Things) -> Things:
    for each in (things.edge, things.ended, things.sample, things.sweep):
        assert each
    return things


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """A request that writes documents of a resource: a right body, and which of its fields are the resource's own."""

    method: str
    path: str
    body: Document
    resource: str
    may: frozenset[str] = frozenset()


def writings(things: Things) -> Iterator[Writing]:
    """All requests whose bodies are documents; `may` names read-only fields that are something else in this body."""
    task, worker = things.waiting, things.worker
    registration = {"name": "n", "resources": {"cores": 1}}
    yield Writing(method="POST", path="/tasks", body={"command": "true"}, resource="tasks")
    yield Writing(method="PATCH", path=f"/tasks/{task}", body={"name": "x"}, resource="tasks")
    yield Writing(method="PATCH", path="/tasks?where={}", body={"name": "x"}, resource="tasks")
    body = {"command": "true", "points": [{}]}
    yield Writing(method="POST", path="/sweeps", body=body, resource="sweeps", may=frozenset(body) | SWEEP_GIVEN)
    yield Writing(method="POST", path="/sweeps", body=body, resource="tasks")
    sample = things.sample_of(task)
    yield Writing(method="POST", path="/memory_usage", body=sample, resource="memory_usage")
    given = frozenset("name host pid resources labels capabilities models queues available_until version".split())
    may = given | {"replaces"}
    yield Writing(method="POST", path="/workers", body=registration, resource="workers", may=may)
    yield Writing(method="PATCH", path=f"/workers/{worker}", body={"state": "active"}, resource="workers")
    yield Writing(method="POST", path="/queues", body={"name": "q"}, resource="queues")
    yield Writing(method="PATCH", path="/queues/default", body={"weight": 1}, resource="queues")
    yield Writing(method="POST", path="/users", body={"name": "u", "role": "worker"}, resource="users", may=EXPIRES)
    yield Writing(method="POST", path=f"/users/{things.user}/rotate", body={}, resource="users", may=EXPIRES)


EXPIRES = frozenset({"expires"})
SWEEP_GIVEN = frozenset(RESOURCES["sweeps"]) - {"_id", "owner", "count", "input_names", "progress"}


def read_only(resource: str) -> set[str]:
    return {name for name, rules in RESOURCES[resource].items() if rules.get("readonly")} | AUTOMATIC.keys()


def test_nobody_sets_what_only_the_server_writes(things: Things, admin: Api) -> None:
    wanted = list(writings(things))
    before = everything(admin)
    for writing in wanted:
        for name in sorted((read_only(writing.resource) | {"owner", "sweep", "index", *INTERNAL}) - writing.may):
            for value in ("root", 1, NO_ID):
                answer = admin.call(writing.method, writing.path, {**writing.body, name: value})
                told = (writing.method, writing.path, name, value)
                assert (told, answer.status_code) == (told, 422)
                assert name in answer.get_data(as_text=True)
    assert everything(admin) == before


def test_an_attempt_is_told_only_what_an_attempt_may_say(things: Things, worker: Api) -> None:
    body = {"execution": things.execution, "token": things.token}
    names = read_only("execution_history") | read_only("tasks") | {"state", "name", "command", "env", *INTERNAL}
    for name in sorted(names - REPORT.keys() - CURL_DATA.keys()):
        report = worker.post(f"/workers/{things.worker}/report", {"reports": [{**body, name: "x"}]})
        by_hand = worker.post(f"/tasks/{things.ended}/update_execution_data", {"token": things.token, name: "x"})
        assert (name, report.status_code, by_hand.status_code) == (name, 422, 422)


def test_only_an_admin_gives_roles_and_nobody_changes_one(provider: Api, worker: Api, admin: Api) -> None:
    for api in (provider, worker):
        assert api.post("/users", {"name": "me", "role": "admin"}).status_code == 403
        assert api.patch("/users/alice", {"role": "admin"}).status_code in (403, 405)
    assert admin.patch("/users/alice", {"role": "admin"}).status_code == 405
    assert admin.post("/users", {"name": "alice", "role": "admin"}).status_code == 422
    assert admin.get("/users/alice").get_json()["role"] == "provider"


def everything(api: Api) -> list[str]:
    """What a user sees of every resource, the references shown as documents."""
    return [api.get(f"/{resource}{embedding(resource)}").get_data(as_text=True) for resource in RESOURCES]


def embedding(resource: str) -> str:
    """The query that shows all of a resource, with every reference as a document."""
    references = {name: 1 for name, rules in RESOURCES[resource].items() if "data_relation" in rules}
    return query(embedded=json.dumps(references), max_results="1000")


def stored_names(context: Context, resource: str) -> set[str]:
    documents = context.storage.db[COLLECTIONS.get(resource, resource)].find()
    return {name for document in documents for name in document}


def test_what_is_stored_and_not_documented_is_hidden(context: Context, things: Things, admin: Api) -> None:
    for resource, schema in RESOURCES.items():
        hidden = (stored_names(context, resource) | set(INTERNAL)) - schema.keys() - AUTOMATIC.keys()
        shown = admin.get(f"/{resource}?max_results=1000").get_json()["_items"]
        assert shown
        assert not {name for document in shown for name in document} & hidden
        for path in (path for name in sorted(hidden) for path in askings(resource, name)):
            assert (path, admin.get(path).status_code) == (path, 400)


def askings(resource: str, name: str) -> Iterator[str]:
    """Ways to ask for a field of a resource, and for that of the document which a reference of another one shows."""
    there = json.dumps({name: {"$exists": True}})
    inner = json.dumps({"$or": [{f"{name}.x": {"$gt": "y"}}]})
    yield from (f"/{resource}{query(where=where)}" for where in (there, inner))
    yield f"/{resource}{query(sort=f'-{name}')}"
    yield from (f"/{resource}{query(projection=json.dumps({name: value}))}" for value in (0, 1))
    for holder, rules in RESOURCES.items():
        for field, rule in rules.items():
            if rule.get("data_relation", {}).get("resource") == resource:
                path, shown = f"{field}.{name}", json.dumps({field: 1})
                yield f"/{holder}{query(where=json.dumps({path: 'x'}), embedded=shown)}"
                yield f"/{holder}{query(projection=json.dumps({path: 1}), embedded=shown)}"
                yield f"/{holder}{query(sort=path, embedded=shown)}"
                yield f"/{holder}{query(embedded=json.dumps({path: 1}))}"


def test_no_answer_to_reading_has_a_secret(
    context: Context, things: Things, provider: Api, worker: Api, admin: Api
) -> None:
    db = context.storage.db
    secret = db["meta"].find_one({"_id": "secret"})
    assert secret is not None
    attempts = [context.storage.meta.attempt_token(each["_id"]) for each in db["executions"].find()]
    digests = [user["digest"] for user in db["users"].find()]
    secrets = [provider.token, worker.token, admin.token, *attempts, *digests, secret["key"].hex()]
    for api in (provider, worker, admin):
        texts = [*everything(api), *(api.get(path).get_data(as_text=True) for path in readings(things))]
        assert not [each for each in secrets if any(each in text for text in texts)]
    tokens = [provider.token, worker.token, admin.token, *attempts]
    kept = {name: repr(list(db[name].find())) for name in db.list_collection_names()}
    assert not [name for name, text in kept.items() if any(token in text for token in tokens)]


def readings(things: Things) -> Iterator[str]:
    """The path of every route of ours that reads, with the things in it."""
    named: Mapping[str, str] = {"task": things.ended, "task_id": things.ended, "sweep_id": things.sweep, "name": "sum"}
    for route in ROUTES.values():
        if route.method != "GET":
            continue
        path = route.path.replace("<path:path>", "a.txt").replace("path:", "").replace("objectid:", "")
        for name, value in named.items():
            path = path.replace(f"<{name}>", value)
        assert "<" not in path
        yield path
    yield f"/sweeps/{things.sweep}/results?format=csv"
    yield f"/tasks/{things.linked}/explain"
    yield f"/tasks/{things.child}/explain"


BOBS = '{"owner": "bob"}'


def test_where_reads_are_private_others_are_neither_shown_nor_counted(
    context: Context, provider: Api, other: Api, things: Things, worker: Api, admin: Api
) -> None:
    bobs = made(Things(other.call, worker.call, admin.call, "bobs"))
    linked = {"name": "alices", "dependencies": [bobs.ended, bobs.waiting]}  # from before reads became private
    asked = [done(provider.post("/tasks", linked))["_id"], *(things.ended, things.linked, things.child)]
    settings = context.settings.model_copy(update={"auth": Auth(private=True)})
    client = create_app(replace(context, settings=settings)).test_client()
    alice, root = (Api(client=client, token=api.token) for api in (provider, admin))

    paths = [f"/{resource}{embedding(resource)}" for resource in OWNED]
    paths += [path for path in readings(things) if not path.startswith(("/models", "/explain"))]
    paths += [f"/tasks/{task}/explain" for task in asked]
    for text in (alice.get(path).get_data(as_text=True) for path in paths):
        assert not [word for word in ("bobs", '"bob"') if word in text], text
    everybodys = "".join(root.get(path).get_data(as_text=True) for path in paths)
    assert [word for word in ("bobs", '"bob"') if word in everybodys] == ["bobs", '"bob"']

    for resource in OWNED:
        listed = alice.get(f"/{resource}?max_results=1000").get_json()
        assert {document["owner"] for document in listed["_items"]} == {"alice"}
        assert listed["_meta"]["total"] == len(listed["_items"])
        for where in (BOBS, '{"owner": {"$ne": "alice"}}', '{"$or": [{"owner": "bob"}, {"owner": "x"}]}'):
            assert alice.get(f"/{resource}{query(where=where)}").get_json()["_meta"]["total"] == 0
    tasks = alice.get("/tasks").get_json()["_meta"]["total"]
    assert alice.get("/statistics").get_json()["total"] == tasks
    assert alice.get(f"/statistics{query(where=BOBS)}").get_json()["total"] == 0
    assert alice.patch("/tasks?where={}&dry_run=true", {"name": "x"}).get_json()["matched"] == tasks
    edges = alice.get(f"/continuations{embedding('continuations')}").get_json()["_items"]
    assert [e["parent"] for e in edges if not isinstance(e["parent"], dict)] == [None, None]


def test_where_a_result_comes_from_is_for_commands_alone(provider: Api) -> None:
    task = provider.post("/tasks", {"command": "true", "result_from": "stdout"}).get_json()["_id"]
    assert provider.get(f"/tasks/{task}").get_json()["result_from"] == "stdout"
    assert provider.patch(f"/tasks/{task}", {"result_from": "file"}).status_code == 200
    assert provider.patch(f"/tasks/{task}", {"result_from": None}).status_code == 200
    for body in ({"result_from": "stdout"}, {"result_from": "stdout", "model": "sum"}):
        refused = provider.post("/tasks", body)
        assert refused.status_code == 422
        assert "it needs a 'command'" in refused.get_json()["_issues"]["result_from"]
    provider.patch(f"/tasks/{task}", {"result_from": "stdout"})
    assert provider.patch(f"/tasks/{task}", {"command": None}).status_code == 422
    swept = provider.post("/sweeps", {"command": "echo {x}", "grid": {"x": [1]}, "result_from": "stdout"}).get_json()
    (made,) = provider.get(f'/tasks?where={{"sweep":"{swept["_id"]}"}}').get_json()["_items"]
    assert made["result_from"] == "stdout"
