"""Reading where, sort, projection and the rest of a query, without a server."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import ObjectId
from bson.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import MultiDict

from banyan import wire
from banyan.api.query import parse_where
from banyan.api.schema import RESOURCES
from banyan.api.selection import (
    LISTING,
    check_parameters,
    leave_out,
    parse_projection,
    parse_sort,
    refuse_unknown,
)
from banyan.errors import BadRequest

ID = "56a210d5e7794978227cb2f4"
TIME = "Tue, 02 Apr 2013 10:29:13 GMT"
DATE = datetime(2013, 4, 2, 10, 29, 13, tzinfo=UTC)


def where(text: str, resource: str = "tasks") -> Any:
    return parse_where(resource, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "task 1"}', {"name": "task 1"}),
        ('{"retry_count": {"$lt": 10}}', {"retry_count": {"$lt": 10}}),
        (f'{{"_id": "{ID}"}}', {"_id": ObjectId(ID)}),
        (f'{{"_id": {{"$in": ["{ID}"]}}}}', {"_id": {"$in": [ObjectId(ID)]}}),
        (f'{{"execution": {{"$not": {{"$eq": "{ID}"}}}}}}', {"execution": {"$not": {"$eq": ObjectId(ID)}}}),
        (f'{{"cancelled_by.task": "{ID}"}}', {"cancelled_by.task": ObjectId(ID)}),
        (f'{{"cancelled_by": {{"task": "{ID}"}}}}', {"cancelled_by": {"task": ObjectId(ID)}}),
        (f'{{"_created": {{"$gte": "{TIME}"}}}}', {"_created": {"$gte": DATE}}),
        ('{"time_started": {"$lt": "2013-04-02T10:29:13Z"}}', {"time_started": {"$lt": DATE}}),
        ('{"requested_resources.memory": {"$gte": "1 GiB"}}', {"requested_resources.memory": {"$gte": 2**30}}),
        ('{"timeout": {"$gt": "2h"}}', {"timeout": {"$gt": 7200.0}}),
        ('{"timeout": {"$in": ["90s", 1.5, null]}}', {"timeout": {"$in": [90.0, 1.5, None]}}),
        (
            '{"requested_resources.gpu_compute_capability": {"$gte": "8", "$nin": ["10.0", 9]}}',
            {
                "requested_resources.gpu_compute_capability": {
                    "$gte": Timestamp(8, 0),
                    "$nin": [Timestamp(10, 0), Timestamp(9, 0)],
                }
            },
        ),
        (
            '{"requested_resources": {"cores": 1, "gpu_compute_capability": "8.10", "memory": "1 GiB"}}',
            {"requested_resources": {"cores": 1, "gpu_compute_capability": Timestamp(8, 10), "memory": 2**30}},
        ),
        ('{"command": ["echo", "a"]}', {"command": ["echo", "a"]}),
        ('{"cpu_seconds": 1, "priority": {"$ne": 1.5}}', {"cpu_seconds": 1, "priority": {"$ne": 1.5}}),
        ('{"result.x": "5", "metadata.y": 5}', {"result.x": "5", "metadata.y": 5}),
        ('{"metadata.any.thing": 1}', {"metadata.any.thing": 1}),
        ('{"metadata": {"a": {"b": 1}}}', {"metadata": {"a": {"b": 1}}}),
        ('{"result": null}', {"result": None}),
        ('{"tags": "x", "tags.0": "y"}', {"tags": "x", "tags.0": "y"}),
        ('{"tags": {"$all": ["a"], "$size": 2}}', {"tags": {"$all": ["a"], "$size": 2}}),
        ('{"tags": {"$elemMatch": {"$regex": "^a"}}}', {"tags": {"$elemMatch": {"$regex": "^a"}}}),
        ('{"name": {"$regex": "a", "$options": "i"}}', {"name": {"$regex": "a", "$options": "i"}}),
        ('{"priority": {"$mod": [2, 0]}}', {"priority": {"$mod": [2, 0]}}),
        ('{"not_before": {"$exists": true, "$type": "date"}}', {"not_before": {"$exists": True, "$type": "date"}}),
        (
            f'{{"$or": [{{"hold": true}}, {{"$and": [{{"_id": "{ID}"}}]}}]}}',
            {"$or": [{"hold": True}, {"$and": [{"_id": ObjectId(ID)}]}]},
        ),
        ("", {}),
    ],
)
def test_a_filter_becomes_what_is_stored(text: str, expected: Any) -> None:
    assert where(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "line 1"),
        ('{"priority": "5"}', "the field is a number, which stands without quotes, and '5' never is"),
        ('{"priority": {"$in": [1, "5"]}}', "'priority': "),
        ('{"priority": {"$not": {"$gt": "5"}}}', "the field is a number"),
        ('{"priority": true}', "the field is a number"),
        ('{"requested_resources.cores": {"$gt": "2"}}', "the field is a number"),
        ('{"requested_resources.custom.licence": "2"}', "the field is a number"),
        ('{"requested_resources": {"cores": "2"}}', "'requested_resources.cores'"),
        ('{"cpu_seconds": {"$gt": "2h"}}', "the field is a number"),
        ('{"requested_resources.memory": "much"}', "is not a size"),
        ('{"peak_memory_bytes": true}', "the field is a number"),
        ('{"timeout": {"$gt": "long"}}', "is not a duration"),
        ('{"hold": "true"}', "the field is true or false, and 'true' never is"),
        ('{"hold": 1}', "the field is true or false"),
        ('{"name": 5}', "the field is a text, which stands in quotes, and 5 never is"),
        ('{"tags": 5}', "the field is a text"),
        ('{"env.A": 5}', "the field is a text"),
        ('{"requested_resources.gpu_compute_capability": "new"}', "is not a compute capability"),
        ('{"requested_resources.gpu_compute_capability": true}', "is not a compute capability"),
        ('{"requested_resources.gpu_compute_capability": {"$regex": "^8"}}', "$regex looks into texts"),
        ('{"priority": {"$regex": "5"}}', "$regex looks into texts"),
        ('{"_created": {"$regex": "2026"}}', "$regex looks into texts"),
        ('name == "a"', "where is not JSON"),
        ("[]", "object"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"nothing": 1}', "'nothing'"),
        ('{"cores": 1}', "did you mean 'requested_resources.cores'?"),
        ('{"requested_resources.memry": 1}', "did you mean 'requested_resources.memory'?"),
        ('{"exit_staus": "success"}', "did you mean 'exit_status'?"),
        ('{"state": "runing"}', "there is no state 'runing'; did you mean 'running'?"),
        ('{"state": {"$in": ["available", "done"]}}', "did you mean 'terminated'?"),
        ('{"$or": [{"state": {"$ne": "Running"}}]}', "did you mean 'running'?"),
        ('{"name": {"$regx": "a"}}', "did you mean '$regex'?"),
        ('{"class_key": "x"}', "'class_key'"),
        ('{"order": 1}', "'order'"),
        ('{"$nor": [{"claim_request": "x"}]}', "'claim_request'"),
        ('{"requested_resources.secret": 1}', "'requested_resources.secret'"),
        ('{"requested_resources": {"secret": 1}}', "'secret'"),
        ('{"metadata.$where": 1}', "'metadata.$where'"),
        ('{"metadata..a": 1}', "'metadata..a'"),
        ('{"continuations": "x"}', "/continuations"),
        ('{"$where": "sleep(1000)"}', "$where"),
        ('{"$expr": {"$eq": [1, 1]}}', "$expr"),
        ('{"name": {"$where": "1"}}', "$where"),
        ('{"metadata": {"$where": "1"}}', "$where"),
        ('{"name": {"$not": {"$where": "1"}}}', "$where"),
        ('{"tags": {"$elemMatch": {"$where": "1"}}}', "$where"),
        ('{"$text": {"$search": "a"}}', "$text"),
        ('{"_id": "short"}', "'short' is not an id"),
        ('{"_id": {"$in": ["short"]}}', "'short' is not an id"),
        ('{"_id": {"$in": 5}}', "list"),
        ('{"_created": {"$gt": "yesterday"}}', "'yesterday' is not a date"),
        ('{"requested_resources.memory": "lots"}', "'lots' is not a size"),
        ('{"priority": {"$gt": 99999999999999999999}}', "64 bits"),
        ('{"name": "\\ud800"}', "surrogate"),
        ('{"metadata.a": {"x\\u0000": 1}}', "NUL"),
        ('{"name": {"$regex": "a\\u0000"}}', "NUL"),
        ('{"name": {"$options": "i"}}', "$regex"),
        ('{"name": {"$regex": "a", "$options": "q"}}', "i, m, s, x"),
        ('{"$or": []}', "$or"),
        ('{"$or": [1]}', "object"),
        ('{"name": {"$exists": 1}}', "true or false"),
        ('{"tags": {"$size": -1}}', "$size"),
        ('{"name": {"$type": "javascript"}}', "$type"),
        ('{"priority": {"$mod": [0, 1]}}', "$mod"),
        ('{"name": {"$eq": "a", "x": 2}}', "'x'"),
        ("9" * 5000, "where"),
        ("[" * 100_000, "where"),
        ('{"$and": [' * 40 + "{}" + "]}" * 40, "deep"),
    ],
)
def test_a_wrong_filter_is_refused_and_the_fault_named(text: str, told: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(told)):
        where(text)


def test_no_operator_that_runs_code_gets_through_wherever_it_stands() -> None:
    """Whatever is built around it, a `$where` never reaches MongoDB as an operator."""

    @given(st.sampled_from(["$where", "$expr", "$function", "$accumulator", "$jsonSchema", "$comment"]), _nests())
    def check(operator: str, nest: Any) -> None:
        with pytest.raises(BadRequest):
            where(wire.dumps(nest({operator: "1"})).decode())

    check()


def _nests() -> st.SearchStrategy[Any]:
    wraps: list[Any] = [
        lambda inner: {"$and": [inner]},
        lambda inner: {"$or": [{"hold": True}, inner]},
        lambda inner: {"$nor": [inner]},
    ]
    ends: list[Any] = [
        lambda inner: inner,
        lambda inner: {"name": inner},
        lambda inner: {"metadata.deep": inner},
        lambda inner: {"tags": {"$elemMatch": inner}},
        lambda inner: {"name": {"$not": inner}},
        lambda inner: {"inputs": {"$has": {"c.x": inner}}},
        lambda inner: {"inputs": {"$not": {"$has": {"c.x": {"$has": {"": inner}}}}}},
        lambda inner: {"inputs": {"$has": inner} | inner},
    ]

    def chain(parts: tuple[Any, list[Any]]) -> Any:
        def build(inner: Any) -> Any:
            value = parts[0](inner)
            for wrap in parts[1]:
                value = wrap(value)
            return value

        return build

    return st.tuples(st.sampled_from(ends), st.lists(st.sampled_from(wraps), max_size=5)).map(chain)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (
        lambda: where(text),
        lambda: parse_sort("tasks", text),
        lambda: parse_projection("tasks", text),
    ):
        try:
            read()
        except BadRequest:
            continue


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=5)
            | st.sampled_from(
                ["$in", "$not", "$or", "$elemMatch", "_id", "tags", "metadata", "progress", "$mod", "$has", "a.b"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*RESOURCES["tasks"], "$and", "$or", "nothing"]), _JSON, max_size=3))
def test_any_json_is_read_or_refused(value: Any) -> None:
    try:
        result = where(wire.dumps(value).decode(errors="replace"))
    except BadRequest:
        return
    assert isinstance(result, dict)


@pytest.mark.parametrize("resource", RESOURCES)
def test_every_stored_field_can_be_filtered_sorted_and_projected(resource: str) -> None:
    for field, rules in RESOURCES[resource].items():
        if "virtual" in rules.get("meta", {}):
            continue
        assert where(f'{{"{field}": null}}', resource) == {field: None}
        assert parse_sort(resource, f"-{field}")[0] == (field, -1)
        assert field in parse_projection(resource, f'{{"{field}": 1}}').stored


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, [("_id", 1)]),
        ("-priority,name", [("priority", -1), ("name", 1), ("_id", 1)]),
        ('[("priority", -1)]', [("priority", -1), ("_id", 1)]),
        ('[["_id", -1]]', [("_id", -1)]),
        ("requested_resources.memory", [("requested_resources.memory", 1), ("_id", 1)]),
        ("metadata.x", [("metadata.x", 1), ("_id", 1)]),
    ],
)
def test_sort_takes_both_of_eves_syntaxes(text: str | None, expected: Any) -> None:
    assert parse_sort("tasks", text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "class_key",
        "-order",
        "a b",
        ",",
        "-",
        "name,name",
        '[("name", 2)]',
        "[name]",
        "[",
        "[1]",
        "[()]",
        "continuations",
    ],
)
def test_a_wrong_sort_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="sort"):
        parse_sort("tasks", text)


def test_a_projection_shows_these_fields_and_what_every_document_has() -> None:
    selection = parse_projection("tasks", '{"name": 1, "requested_resources.memory": 1, "continuations": 1}')
    automatic = {"_id": 1, "_created": 1, "_updated": 1, "_etag": 1}
    assert selection.stored == {"name": 1, "requested_resources.memory": 1} | automatic
    assert selection.virtual == {"continuations"}


def test_a_projection_leaves_fields_out() -> None:
    selection = parse_projection("tasks", '{"metadata": 0, "inputs.big": 0, "continuations": 0}')
    assert "metadata" not in selection.stored
    assert "inputs" in selection.stored
    assert selection.virtual == {"dependencies"}
    document = {"inputs": {"big": 1, "small": 2}}
    leave_out(document, selection.without)
    assert document == {"inputs": {"small": 2}}


def test_a_projection_with_a_path_inside_another_is_made_shorter() -> None:
    assert "metadata.a" not in parse_projection("tasks", '{"metadata": 1, "metadata.a": 1}').stored


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "x",
        '{"class_key": 1}',
        '{"digest": 1}',
        '{"name": 2}',
        '{"name": "1"}',
        '{"name": 1, "tags": 0}',
        '{"name": {"$slice": 1}}',
    ],
)
def test_a_wrong_projection_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="projection"):
        parse_projection("tasks", text)


def test_nothing_hidden_is_ever_projected() -> None:
    hidden = {"class_key", "task_class", "order", "claim_request", "worker", "avoid", "attempt_count", "unsettled"}
    assert not hidden & set(parse_projection("tasks", None).stored)
    assert not {"digest", "leaving"} & set(parse_projection("users", None).stored)
    assert not {"claim_request", "files"} & set(parse_projection("workers", None).stored)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([("wher", "{}")], "'wher'"),
        ([("where", "{}"), ("where", "{}")], "twice"),
        ([("max_results", "0")], "max_results"),
        ([("max_results", "-1")], "max_results"),
        ([("max_results", "inf")], "max_results"),
        ([("page", "1.5")], "page"),
        ([("page", "9" * 30)], "page"),
        ([("embedded", "{")], "embedded"),
        ([("embedded", '{"name": 1}')], "'name'"),
        ([("embedded", '{"execution": 2}')], "embedded"),
    ],
)
def test_wrong_parameters_are_refused(args: list[tuple[str, str]], told: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(told)):
        check_parameters("tasks", MultiDict(args), LISTING)


def test_right_parameters_pass() -> None:
    check_parameters(
        "tasks", MultiDict([("page", "2"), ("max_results", "50"), ("embedded", '{"execution": 1}')]), LISTING
    )
    refuse_unknown(MultiDict(), ())
