"""Answers that a reader of strict JSON can read: null and a note in the place of NaN and infinities."""

import json
import math
from typing import Any, NoReturn

import pytest
from werkzeug.test import TestResponse

from banyan.queue.context import Context
from tests.integration.conftest import Api
from tests.support.queue import SimulatedWorker

ODD: dict[str, Any] = {"x": math.nan, "list": [1.5, math.inf, {"a/b~c": -math.inf, "": None}], "text": "NaN"}
PLAIN = {"x": None, "list": [1.5, None, {"a/b~c": None, "": None}], "text": "NaN"}
NOTES = {"/x": "NaN", "/list/1": "Infinity", "/list/2/a~1b~0c": "-Infinity"}


def strictly(answer: TestResponse) -> Any:
    """The body as a strict reader reads it."""

    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(answer.get_data(), parse_constant=refuse)


def below(place: str) -> dict[str, str]:
    return {f"{place}{pointer}": value for pointer, value in NOTES.items()}


@pytest.fixture
def task(provider: Api, context: Context) -> str:
    """An ended task with a result that is no strict JSON."""
    fields = {"command": "true", "state": "available", "metadata": ODD}
    id = str(provider.post("/tasks", fields).get_json()["_id"])
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end(result=ODD)
    return id


WISHES: list[dict[str, Any]] = [
    {"query_string": {"strict_json": "true"}},
    {"query_string": {"strict_json": "1"}},
    {"headers": {"Banyan-Strict-JSON": "true"}},
    {"headers": {"Banyan-Strict-JSON": "1"}, "query_string": {"strict_json": "True"}},
]


@pytest.mark.parametrize("wish", WISHES)
def test_one_document_is_strict_and_notes_what_was_replaced(provider: Api, task: str, wish: dict[str, Any]) -> None:
    answer = provider.get(f"/tasks/{task}", **wish)
    shown = strictly(answer)
    assert (shown["metadata"], shown["result"]) == (PLAIN, PLAIN)
    assert shown["_nulls"] == {**below("/metadata"), **below("/result")}
    assert answer.headers["Banyan-Nulls"] == "6"
    assert "Banyan-Strict-JSON" in answer.headers["Vary"]


@pytest.mark.parametrize(
    "wish", [{}, {"query_string": {"strict_json": "false"}}, {"headers": {"Banyan-Strict-JSON": "0"}}]
)
def test_who_does_not_ask_gets_every_value(provider: Api, task: str, wish: dict[str, Any]) -> None:
    answer = provider.get(f"/tasks/{task}", **wish)
    shown = answer.get_json()
    assert math.isnan(shown["result"]["x"])
    assert shown["result"]["list"][1] == math.inf
    assert not {"_nulls", "Banyan-Nulls"} & {*shown, *answer.headers.keys()}


def test_every_route_that_answers_with_json_can_be_strict(provider: Api, admin: Api, task: str) -> None:
    admin.put("/models/odd/defaults", ODD)
    listed = strictly(provider.get('/tasks?strict_json=true&sort=-_id&max_results=1&projection={"result":1}'))
    assert (listed["_items"][0]["result"], listed["_nulls"]) == (PLAIN, below("/_items/0/result"))
    history = strictly(provider.get(f"/tasks/{task}/execution_history?strict_json=true"))
    assert history["_nulls"] == below("/_items/0/result")
    embedded = '/execution_history?strict_json=true&embedded={"task":1}'
    assert below("/_items/0/task/metadata").items() <= strictly(provider.get(embedded))["_nulls"].items()
    assert strictly(provider.get("/models/odd?strict_json=true"))["_nulls"] == below("/defaults")
    assert strictly(provider.get("/models?strict_json=true"))["_nulls"] == below("/_items/0/defaults")
    for path in (
        "/statistics",
        "/queues",
        "/health",
        "/openapi.json",
        f"/tasks/{task}/explain",
        f"/tasks/{task}/files/",
    ):
        answer = provider.get(f"{path}?strict_json=true")
        assert (path, answer.status_code, "_nulls" in strictly(answer)) == (path, 200, False)
    changed = provider.patch(f"/tasks/{task}?strict_json=true", {"state": "running"})
    assert (changed.status_code, strictly(changed)["_status"]) == (422, "ERR")


def test_inputs_of_a_user_get_no_name_of_ours(provider: Api, admin: Api) -> None:
    admin.put("/models/odd/defaults", ODD)
    answer = provider.get("/models/odd/defaults?strict_json=true")
    assert strictly(answer) == PLAIN
    assert answer.headers["Banyan-Nulls"] == "3"


def test_the_rows_of_a_sweep_are_strict_and_its_notes_come_last(provider: Api, context: Context) -> None:
    points = [{"x": 1}, ODD]
    sweep = provider.post("/sweeps", {"command": ["run"], "points": points}).get_json()["_id"]
    table = strictly(provider.get(f"/sweeps/{sweep}/results?strict_json=true"))
    assert [row.get("x") for row in table["_items"]] == [1, None]
    assert table["_nulls"] == below("/_items/1")
    assert "_nulls" not in provider.get(f"/sweeps/{sweep}/results").get_json()
    rows = provider.get(f"/sweeps/{sweep}/results?format=csv").get_data()
    assert provider.get(f"/sweeps/{sweep}/results?format=csv&strict_json=true").get_data() == rows
    assert b"NaN" in rows


def test_so_many_are_named_and_all_are_counted(provider: Api) -> None:
    many = {"values": [math.nan] * 1500}
    task = provider.post("/tasks", {"command": "true", "metadata": many}).get_json()["_id"]
    answer = provider.get(f"/tasks/{task}?strict_json=true")
    shown = strictly(answer)
    assert shown["metadata"] == {"values": [None] * 1500}
    assert (len(shown["_nulls"]), answer.headers["Banyan-Nulls"]) == (1000, "1500")


def test_a_wish_that_is_not_clear_is_refused(provider: Api, app: Any, task: str) -> None:
    for query in ("strict_json=yes", "strict_json=", "strict_json=true&strict_json=false"):
        refused = provider.get(f"/tasks/{task}?{query}")
        assert (query, refused.status_code) == (query, 400)
        assert "strict_json" in refused.get_json()["_error"]["message"]
    assert provider.get(f"/tasks/{task}", headers={"Banyan-Strict-JSON": "maybe"}).status_code == 400
    assert provider.get(f"/tasks/{task}/stdout?strict_json=true").status_code == 400
    assert app.test_client().get("/tasks?strict_json=yes").status_code == 401
