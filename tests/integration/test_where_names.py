"""Filters on names that no path can say: with periods, dollars, nothing in them, wherever names are free."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.conftest import Api

Document = dict[str, Any]

VALUES: dict[str, Document] = {
    "three": {"c.x": 3, "y": 1},
    "alone": {"c.x": 3.0},
    "five": {"c.x": 5, "$ref": "north", "": None},
    "text": {"c.x": "3", "$ref": "south.east", "$$ROOT": True},
    "list": {"c.x": [1, 3, "three"], "": []},
    "nested": {"c.x": {"d.y": {"$z": 7}, "plain": 3}, "$where": {"": ""}},
    "items": {"c.x": [{"d.y": 1}, {"d.y": 4, "e": 1}, 5]},
    "path": {"c": {"x": 3}},
    "odd": {"c.x": math.nan, "a..b": 1, "🌳.ü": -1, "$": math.inf, "x" * 500 + ".": 2},
    "null": {"c.x": None},
    "none": {},
}

CONDITIONS: list[tuple[Document, str]] = [
    ({"c.x": 3}, "three alone list"),
    ({"c.x": 3, "y": 1}, "three"),
    ({"c.x": {"$eq": "3"}}, "text"),
    ({"c.x": {"$ne": 3}}, "five text nested items path odd null none"),
    ({"c.x": {"$gt": 3}}, "five items"),
    ({"c.x": {"$gte": 3, "$lt": 5}}, "three alone list"),
    ({"c.x": {"$lt": 100}}, "three alone five list items"),
    ({"c.x": {"$gt": ""}}, "text list"),
    ({"c.x": {"$in": [5, "3", None]}}, "five text items path null none"),
    ({"c.x": {"$nin": [3, 5, None]}}, "text nested odd"),
    ({"c.x": {"$all": [1, "three"]}}, "list"),
    ({"c.x": {"$exists": False}}, "path none"),
    ({"c.x": None}, "path null none"),
    ({"c.x": {"$exists": True, "$ne": None}}, "three alone five text list nested items odd"),
    ({"c.x": {"$type": "string"}}, "text list"),
    ({"c.x": {"$type": ["number", "null"]}}, "three alone five list items odd null"),
    ({"c.x": {"$type": "array"}}, "list items"),
    ({"c.x": {"$regex": "^TH", "$options": "i"}}, "list"),
    ({"c.x": {"$size": 3}}, "list items"),
    ({"c.x": {"$not": {"$type": "number"}}}, "text nested path null none"),
    ({"c.x": [1, 3, "three"]}, "list"),
    ({"$ref": "north"}, "five"),
    ({"$ref": {"$regex": "\\."}}, "text"),
    ({"$$ROOT": True}, "text"),
    ({"": {"$type": "null"}}, "five"),
    ({"": []}, "list"),
    ({"c.x": {"$has": {"d.y": {"$has": {"$z": {"$gte": 7}}}}}}, "nested"),
    ({"c.x": {"$has": {"d.y": {"$gt": 1}}}}, "items"),
    ({"c.x": {"$has": {"d.y": 4, "e": 1}}}, "items"),
    ({"c.x": {"$has": {"d.y": 1, "e": 1}}}, ""),
    ({"c.x": {"$not": {"$has": {"plain": 3}}}}, "three alone five text list items path odd null none"),
    ({"$where": {"$has": {"": ""}}}, "nested"),
    ({"a..b": 1}, "odd"),
    ({"🌳.ü": {"$lt": 0}}, "odd"),
    ({"$": math.inf}, "odd"),
    ({"x" * 500 + ".": 2}, "odd"),
    ({"c": {"$has": {"x": 3}}}, "path"),
    ({"no such name": "$y"}, ""),
]


def names(api: Api, where: Mapping[str, Any], resource: str = "tasks") -> list[str]:
    answer = api.get(f"/{resource}?sort=name&max_results=100&where={quote(json.dumps(where))}")
    assert answer.status_code == 200, answer.get_json()
    return [item["name"] for item in answer.get_json()["_items"]]


@pytest.fixture
def tasks(provider: Api) -> None:
    """A task for each of the values, in its inputs and in its metadata."""
    items = [{"name": name, "model": "m", "inputs": value, "metadata": {"in": value}} for name, value in VALUES.items()]
    assert provider.post("/tasks", items).status_code == 201


@pytest.mark.usefixtures("tasks")
def test_whole_names_are_matched_among_others_by_each_operator(provider: Api) -> None:
    for condition, expected in CONDITIONS:
        wanted = sorted(expected.split())
        assert (condition, names(provider, {"inputs": {"$has": condition}})) == (condition, wanted)
        assert (condition, names(provider, {"metadata.in": {"$has": condition}})) == (condition, wanted)


@pytest.mark.usefixtures("tasks")
def test_plain_names_are_matched_as_by_a_path(provider: Api) -> None:
    for operand in [1, {"$ne": 1}, {"$exists": True}, {"$in": [1, None]}, {"$gt": 0}, {"$not": {"$lt": 5}}]:
        assert names(provider, {"inputs": {"$has": {"y": operand}}}) == names(provider, {"inputs.y": operand})


@pytest.mark.usefixtures("tasks")
def test_they_go_with_all_else_of_a_filter(provider: Api, admin: Api) -> None:
    has: Document = {"inputs": {"$has": {"c.x": 3}}}
    cases: list[tuple[Document, list[str] | None]] = [
        (has | {"name": {"$ne": "alone"}}, ["list", "three"]),
        ({"$and": [has, {"inputs": {"$has": {"": []}}}]}, ["list"]),
        ({"$or": [has, {"name": "none"}]}, ["alone", "list", "none", "three"]),
        ({"$nor": [has, {"inputs": {"$not": {"$has": {"c.x": {"$exists": True}}}}}]}, None),
        ({"inputs": {"$has": {"c.x": 3}, "$ne": {"c.x": 3}}}, ["list", "three"]),
        (has | {"metadata": {"$has": {"in": {"$has": {"y": 1}}}}}, ["three"]),
    ]
    for where, expected in cases:
        wanted = expected if expected is not None else sorted(["five", "text", "nested", "items", "odd", "null"])
        assert (where, names(provider, where)) == (where, wanted)
    counted = provider.get(f"/statistics?where={quote(json.dumps(has))}").get_json()
    assert counted["states"] == {"inactive": 3}
    changed = provider.patch(f"/tasks?where={quote(json.dumps(has))}", {"priority": 7}).get_json()
    assert (changed["matched"], changed["updated"]) == (3, 3)
    assert names(provider, {"priority": 7}) == ["alone", "list", "three"]
    page = provider.get(f"/tasks?max_results=2&page=2&where={quote(json.dumps(has))}").get_json()
    assert (page["_meta"]["total"], len(page["_items"])) == (3, 1)
    provider.patch("/tasks?where={}", {"state": "cancelled"})
    gone = admin.delete(f"/tasks?where={quote(json.dumps({'$nor': [has]}))}").get_json()
    assert (gone["deleted"], names(provider, {})) == (len(VALUES) - 3, ["alone", "list", "three"])


def test_every_field_with_free_names_is_reached(provider: Api, worker: Api) -> None:
    resources = {"custom": {"lic.a": 2}}
    body = {"name": "t", "command": "true", "state": "available", "env": {"A.B": "x"}, "requires": {"l.m": "v"}}
    id = provider.post("/tasks", body | {"requested_resources": resources}).get_json()["_id"]
    node = {"name": "n", "resources": {"cores": 1, "custom": {"lic.a": 3}}, "labels": {"l.m": "v"}}
    node_id = worker.post("/workers", node).get_json()["_id"]
    claim = {"state": "running", "update_execution_data": {"worker": node_id}}
    token = worker.patch(f"/tasks/{id}", claim).get_json()["token"]
    end = {"token": token, "exit_status": "success", "result": {"c.x": {"$d": 1}}}
    worker.patch(f"/tasks/{id}", {"state": "terminated", "update_execution_data": end})
    for field, condition in [
        ("env", {"A.B": "x"}),
        ("requires", {"l.m": "v"}),
        ("requested_resources.custom", {"lic.a": {"$gte": 2}}),
        ("result", {"c.x": {"$has": {"$d": 1}}}),
    ]:
        assert names(provider, {field: {"$has": condition}}) == ["t"]
    assert names(provider, {"labels": {"$has": {"l.m": "v"}}}, "workers") == ["n"]
    assert names(provider, {"resources.custom": {"$has": {"lic.a": 3}}}, "workers") == ["n"]
    attempts = provider.get(f"/execution_history?where={quote(json.dumps({'result': {'$has': {'c.x': {'$ne': 1}}}}))}")
    assert attempts.get_json()["_meta"]["total"] == 1


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ({"inputs": {"c.x": 3}}, "the name 'c.x' is no part of a path; ask for whole names with {\"$has\""),
        ({"inputs": {"": 3}}, "the name '' is no part of a path"),
        ({"metadata": {"a": [{"b": {"c.d": 1}}]}}, "the name 'c.d' is no part of a path"),
        ({"inputs": {"$ref": 3}}, "$has for names with any characters"),
        ({"inputs.$ref": 3}, "other names need $has"),
        ({"inputs.": 3}, "other names need $has"),
        ({"inputs": {"$has": 3}}, "$has takes an object"),
        ({"inputs": {"$has": {}}}, "$has takes an object"),
        ({"inputs": {"$has": {"x": {"$where": "1"}}}}, "'$where' is not possible"),
        ({"inputs": {"$has": {"x": {"$expr": {}}}}}, "'$expr' is not possible"),
        ({"inputs": {"$has": {"x": {"$elemMatch": {}}}}}, "'$elemMatch' is not possible"),
        ({"inputs": {"$has": {"x": {"$gt": [1]}}}}, "$gt takes a number"),
        ({"inputs": {"$has": {"x": {"$in": 1}}}}, "take a list"),
        ({"inputs": {"$has": {"x": {"$exists": 1}}}}, "true or false"),
        ({"inputs": {"$has": {"c.x": {"$regex": "("}}}}, "MongoDB refused the query"),
        ({"inputs": {"$has": {"x": {"$options": "i"}}}}, "$regex"),
        ({"inputs": {"$has": {"x": {"$not": 1}}}}, "$not takes"),
        ({"inputs": {"$has": {"x": {"a.b": 1}}}}, "the name 'a.b' is no part of a path"),
        ({"metadata.0": {"$has": {"x": 1}}}, "by their numbers"),
        ({"name": {"$has": {"x": 1}}}, "fields that take any name"),
        ({"requested_resources": {"$has": {"x": 1}}}, "fields that take any name"),
        ({"class_key": {"$has": {"x": 1}}}, "class_key"),
        ({"$expr": {"$has": {"x": 1}}}, "$expr"),
        ({"tags": {"$elemMatch": {"x": {"$has": {"y": 1}}}}}, ""),
        ({"metadata.l": {"$elemMatch": {"x": {"$has": {"y": 1}}}}}, "not possible within $elemMatch"),
    ],
)
@pytest.mark.usefixtures("tasks")
def test_what_cannot_be_asked_is_a_400_that_says_so(provider: Api, where: Document, told: str) -> None:
    for path in ("/tasks", "/statistics"):
        answer = provider.get(f"{path}?where={quote(json.dumps(where))}")
        assert (where, answer.status_code) == (where, 400), answer.get_json()
        assert re.search(re.escape(told), answer.get_json()["_error"]["message"])


@pytest.mark.usefixtures("tasks")
def test_the_deepest_condition_that_is_taken_is_one_that_mongodb_takes(provider: Api) -> None:
    condition: Document = {"x.y": 1}
    deepest = 0
    for depth in range(1, 30):
        answer = provider.get(f"/tasks?where={quote(json.dumps({'inputs': {'$has': condition}}))}")
        if answer.status_code == 400:
            assert "nested deeper" in answer.get_json()["_error"]["message"]
            break
        assert (depth, answer.status_code) == (depth, 200)
        condition, deepest = {"x.y": {"$has": condition}}, depth
    assert deepest >= 5
