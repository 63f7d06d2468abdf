"""Any text is a name of an input and of a result, and comes back exactly from wherever it is read."""

import math
from typing import Any

import pytest
from flask import Flask

from banyan.client import Client
from banyan.domain.roles import Role
from banyan.errors import Invalid
from banyan.queue.context import Context
from tests.support.hand_worker import HandWorker
from tests.support.wsgi import WSGITransport

INNER = {"": None, "$id": 1, "c.x": [1, {"$ref": "a", "$id": 2}], "𝛑": math.inf}
NAMES = [
    *("c.x", "CITYOPT.simulation_start", "$ref", "$id", "$db", "$set", "$where", "$$ROOT", "", " ", ".", "..", "a..b."),
    *("🌳", "ü", "\u202e", "line\nbreak", "_id", "_etag", "__proto__", "0", "x" * 5000, "'\"\\`;", "%2e", "true"),
]
ODD: dict[str, Any] = {name: INNER if number % 3 else number for number, name in enumerate(NAMES)}
ODD |= {
    "inf": math.inf,
    "-inf": -math.inf,
    "-0.0": -0.0,
    "large": 2**62,
    "nested": {"a": {"b.c": {"$d": [ODD["c.x"]]}}},
}
REFERENCES: list[dict[str, Any]] = [
    {"$ref": "a", "$id": 1},
    {"$ref": "a", "$id": {"$ref": "b", "$id": 2, "$db": "c"}, "$db": "d", "e.f": 3},
    {"$id": None, "$ref": "a"},
    {"$ref": 1, "$id": 2, "$db": 3},
    {"$ref": {"$ref": "a", "$id": 1}},
]


@pytest.fixture
def admin(app: Flask, context: Context) -> Client:
    """An admin, who may do all that is needed here."""
    return Client(
        "http://banyan.test", context.storage.users.add("root", Role.ADMIN, context.now()), WSGITransport(app)
    )


@pytest.mark.parametrize("inputs", [ODD, *REFERENCES], ids=["all", *map(str, range(len(REFERENCES)))])
def test_names_come_back_exactly_from_everywhere(admin: Client, inputs: dict[str, Any]) -> None:
    worker = HandWorker(admin, ["m"])
    id = admin.submit({"model": "m", "metadata": inputs, "inputs": inputs})["_id"]
    assert (admin.task(id)["inputs"], admin.task(id)["metadata"]) == (inputs, inputs)
    admin.update(id, {"inputs": {"replaced": inputs}})
    assert admin.task(id)["inputs"] == {"replaced": inputs}
    admin.update(id, {"inputs": inputs, "state": "available"})
    (grant,) = worker.claim()
    assert grant["inputs"] == inputs
    worker.end(grant, result=inputs)
    (attempt,) = admin.attempts(id)
    assert (admin.task(id)["result"], attempt["result"]) == (inputs, inputs)
    (listed,) = admin.tasks({"_id": id}, projection=["inputs", "result"]).items
    assert (listed["inputs"], listed["result"]) == (inputs, inputs)
    admin.set_model_defaults("m", inputs)
    assert admin.model_defaults("m") == admin.model("m")["defaults"] == inputs
    name = next(iter(inputs))
    refs = {name: {"task": id, "result": name}}
    child = admin.submit({"model": "m", "input_refs": refs, "state": "available"})["_id"]
    (grant,) = worker.claim()
    assert (grant["_id"], grant["inputs"], admin.task(child)["input_refs"]) == (child, inputs, refs)


def test_nan_comes_back_as_nan(admin: Client) -> None:
    worker = HandWorker(admin, ["m"])
    id = admin.submit({"model": "m", "inputs": {"x": math.nan, "y": [{"z": math.nan}]}, "state": "available"})["_id"]
    (grant,) = worker.claim()
    worker.end(grant, result=grant["inputs"])
    for shown in (admin.task(id)["inputs"], admin.task(id)["result"], admin.attempts(id)[0]["result"]):
        assert math.isnan(shown["x"])
        assert math.isnan(shown["y"][0]["z"])


def test_plain_names_are_found_by_their_values(admin: Client) -> None:
    ids = [admin.submit({"model": "m", "inputs": {"x": x, "in": {"y": [x]}, "c.z": x}})["_id"] for x in (2, 3)]
    for where in ({"inputs.x": 3}, {"inputs.in.y": 3}, {"inputs": {"$exists": True}, "inputs.x": {"$gt": 2.5}}):
        assert [task["_id"] for task in admin.tasks(where).items] == ids[1:]


@pytest.mark.parametrize("inputs", [{"a\0b": 1}, {"x": {"\0": 1}}, {"$ref": "a", "$id": 1, "$db": None}])
def test_what_cannot_come_back_exactly_is_refused(admin: Client, inputs: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="inputs"):
        admin.submit({"model": "m", "inputs": inputs})
