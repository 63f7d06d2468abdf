"""Bodies against schemas, without a server."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson import ObjectId
from bson.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from banyan.api.schema import RESOURCES
from banyan.api.schema.workers import CLAIM, REGISTRATION
from banyan.api.validation import Checker, check_task, validated, validated_changes, validated_new
from banyan.errors import Invalid, TooLarge

ID = "56a210d5e7794978227cb2f4"

DEFAULTS = {
    "queue": "default",
    "priority": 0,
    "workdir": "attempt",
    "max_shutdown_time": 30.0,
    "requested_resources": {"cores": 1},
    "max_retry_count": 0,
    "retry_delay": 0.0,
    "hold": False,
    "state": "inactive",
}


def task(**fields: Any) -> dict[str, Any]:
    return validated_new("tasks", fields)[0]


def issues(**fields: Any) -> dict[str, object]:
    with pytest.raises(Invalid) as refused:
        validated_new("tasks", fields)
    return refused.value.issues


def test_the_documented_defaults_are_filled_in() -> None:
    assert task() == DEFAULTS


def test_null_means_not_given() -> None:
    assert task(name=None, timeout=None, command=None) == DEFAULTS


def test_what_is_sent_becomes_what_is_stored() -> None:
    given_task = task(
        _id=ID,
        command=["echo", "a"],
        requested_resources={"memory": "1 GiB", "gpu_compute_capability": 8.6, "custom": {"licence": 1.5}},
        timeout="2h",
        not_before="Tue, 02 Apr 2013 10:29:13 GMT",
        continuations=[ID],
        dependencies=[ID, {"task": "66a210d5e7794978227cb2f4", "on": "any"}],
        env={"A": "b"},
    )
    assert given_task == DEFAULTS | {
        "_id": ObjectId(ID),
        "command": ["echo", "a"],
        "requested_resources": {
            "cores": 1,
            "memory": 2**30,
            "gpu_compute_capability": Timestamp(8, 6),
            "custom": {"licence": 1.5},
        },
        "timeout": 7200.0,
        "not_before": datetime(2013, 4, 2, 10, 29, 13, tzinfo=UTC),
        "continuations": [ObjectId(ID)],
        "dependencies": [
            {"task": ObjectId(ID), "on": "success"},
            {"task": ObjectId("66a210d5e7794978227cb2f4"), "on": "any"},
        ],
        "env": {"A": "b"},
    }


def test_inputs_of_a_point_of_a_sweep_need_no_model() -> None:
    assert check_task({"command": "true", "inputs": {"x": 1}}).keys() == {"inputs"}
    assert check_task({"command": "true", "inputs": {"x": 1}, "sweep": ObjectId()}) == {}


def test_an_input_is_given_once() -> None:
    refs = {"x": {"task": ObjectId()}}
    assert check_task({"model": "m", "inputs": {"y": 1}, "input_refs": refs}) == {}
    assert check_task({"model": "m", "inputs": {"x": 1}, "input_refs": refs}).keys() == {"input_refs"}


def test_any_name_stands_in_free_fields() -> None:
    inputs = {"a.b": 1, "$ref": {"$id": 2}, "": 3, "😀": float("inf"), "list": [{"x.y": None}]}
    assert task(model="m", inputs=inputs)["inputs"] == inputs


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("command", "", "empty"),
        ("command", "  ", "empty"),
        ("command", [], "empty"),
        ("command", [1], "list of texts"),
        ("command", 5, "a text or a list"),
        ("command", "a\0b", "NUL"),
        ("command", ["a", "b\0"], "NUL"),
        ("command", ["", "a"], "empty"),
        ("command", ["echo", "x" * 131_072], "word 1 has 131072 bytes"),
        ("command", ["echo", "ü" * 65_536], "word 1 has 131072 bytes"),
        ("command", ["a" * 256], "its program has a name of 256 bytes"),
        ("command", ["/a" * 2048], "its program is a path of 4096 bytes"),
        ("command", ["echo", *["😀" * 32_000] * 16], "command and environment have"),
        ("command", ["echo", *[""] * 300_000], "command and environment have"),
        ("directory", "ü" * 128, "a name of 256 bytes"),
        ("directory", "ü/" * 1400, "a path of 4200 bytes"),
        ("directory", "a\0", "NUL"),
        ("env", {"A": "x" * 131_070}, "'A' has 131072 bytes"),
        ("env", {"A": "ü" * 65_536}, "'A' has"),
        ("env", {"ü" * 1000: "x" * 129_072}, "has 131073 bytes"),
        ("env", {f"A{n}": "x" * 131_000 for n in range(16)}, "command and environment have"),
        ("env", {"A": "b\0"}, "NUL"),
        ("env", {"A\0": "b"}, "NUL"),
        ("name", 5, "a text"),
        ("name", "x" * 1001, "too long"),
        ("queue", "a b", "letters"),
        ("queue", None, "null"),
        ("priority", True, "whole number"),
        ("priority", 1.5, "whole number"),
        ("priority", 2**40, "at most"),
        ("timeout", 0, "at least"),
        ("timeout", "soon", "not a duration"),
        ("timeout", float("nan"), "out of range"),
        ("retry_delay", -1, "out of range"),
        ("not_before", "soon", "not a date"),
        ("hold", 1, "true or false"),
        ("hold", "yes", "true or false"),
        ("state", "running", "begins inactive or available"),
        ("state", "x", "one of"),
        ("workdir", "here", "one of"),
        ("tags", "x", "a list"),
        ("tags", [""], "texts"),
        ("env", {"A=B": "x"}, "name"),
        ("env", {"A": 1}, "text"),
        ("env", {"": "x"}, "name"),
        ("env", [], "an object"),
        ("metadata", [], "an object"),
        ("metadata", {"a": {"b\0": 1}}, "NUL"),
        ("metadata", {"a": 2**64}, "64 bits"),
        ("metadata", {"a": "\ud800"}, "surrogate"),
        ("continuations", [ID, ID], "twice"),
        ("continuations", ["x"], "not an id"),
        ("continuations", ID, "list"),
        ("dependencies", [{"task": ID, "on": "never"}], "'on'"),
        ("dependencies", [{"on": "any"}], "needs 'task'"),
        ("dependencies", [{"task": ID, "x": 1}], "'x'"),
        ("dependencies", [ID, {"task": ID}], "twice"),
        ("inputs", {"a": 1}, "model"),
        ("max_retry_count", -1, "at least"),
        ("owner", "me", "read-only"),
        ("owner", None, "read-only"),
        ("retry_count", 0, "read-only"),
        ("class_key", "x", "unknown field"),
        ("attempt_count", 0, "unknown field"),
        ("_etag", "x", "unknown field"),
        ("nmae", "x", "did you mean 'name'"),
        ("cores", 2, 'belongs to \'requested_resources\': {"requested_resources": {"cores": 2}}'),
        ("memory", "1 GiB", '{"requested_resources": {"memory": "1 GiB"}}'),
        ("gpu_memory", 1, "belongs to 'requested_resources'"),
        ("custom", {"licence": 1}, '{"requested_resources": {"custom": {"licence": 1}}}'),
        ("core", 2, "did you mean 'cores'?"),
        ("cpus", 2, "did you mean 'cores'?"),
        ("depends_on", [], "did you mean 'dependencies'?"),
        ("max_retries", 1, "did you mean 'max_retry_count'?"),
        ("state", "runing", "did you mean 'running'?"),
        ("state", "queued", "did you mean 'available'?"),
        ("stdin", 5, "a text"),
        ("result_from", "stdot", "did you mean 'stdout'?"),
    ],
)
def test_a_wrong_value_is_named_with_the_reason(field: str, value: object, told: str) -> None:
    found = issues(**{field: value})
    assert list(found) == [field]
    assert told in str(found[field])


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        ({"memory": "lots"}, "'lots' is not a size"),
        ({"memory": 0}, "at least"),
        ({"memory": -1}, "out of range"),
        ({"cores": 0}, "at least"),
        ({"cores": float("nan")}, "at least"),
        ({"cores": float("inf")}, "at most"),
        ({"cores": "2"}, "a number"),
        ({"gpus": 1.5}, "whole number"),
        ({"gpu_compute_capability": "new"}, "not a compute capability"),
        ({"gpu_compute_capability": "8.0.1"}, "not a compute capability"),
        ({"gpu_compute_capability": "8." + "1" * 5}, "not a compute capability"),
        ({"gpu_compute_capability": -8}, "not a compute capability"),
        ({"gpu_compute_capability": True}, "not a compute capability"),
        ({"gpu_compute_capability": ["8", "0"]}, "not a compute capability"),
        ({"custom": {"x": -1}}, "amount"),
        ({"custom": {"x": float("nan")}}, "amount"),
        ({"cpus": 1}, "unknown field; did you mean 'cores'?"),
        ({"priority": 1}, "it belongs to the top level"),
        ({"licence": 1}, '{"requested_resources": {"custom": {"licence": 1}}}'),
    ],
)
def test_wrong_resources_are_named_inside(resources: dict[str, object], told: str) -> None:
    found = issues(requested_resources=resources)["requested_resources"]
    assert isinstance(found, dict)
    assert list(found) == list(resources)
    assert told in str(found)


def test_what_a_kernel_just_takes_is_accepted() -> None:
    longest = {"A": "x" * 131_069}
    assert task(command="ü" * 1_000_000, env=longest)["env"] == longest
    assert task(command=["echo", "x" * 131_071])["command"][1] == "x" * 131_071
    assert task(command="x" * 1_000_000, env={f"A{n:02}": "x" * 131_000 for n in range(14)})["command"]
    assert task(directory="/" + "ü" * 127)["directory"]


def test_a_command_and_an_environment_are_counted_together() -> None:
    words, variables = ["echo", *["x" * 130_000] * 7], {f"A{n}": "x" * 130_000 for n in range(9)}
    assert task(command=words, env={})
    assert task(command="echo", env=variables)
    assert list(issues(command=words, env=variables)) == ["env"]
    assert check_task({"command": words, "env": variables}).keys() == {"env"}


def test_all_faults_are_listed_at_once() -> None:
    found = issues(command="", priority="high", requested_resources={"memory": "lots", "cpus": 1}, nothing=1)
    assert set(found) == {"command", "priority", "requested_resources", "nothing"}


def test_a_task_has_one_thing_to_do() -> None:
    assert "model" in issues(command="a", model="b")


def test_deep_nesting_is_refused() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    assert "nested deeper" in str(issues(metadata={"a": deep})["metadata"])


def test_a_list_tells_the_faults_of_each_item() -> None:
    with pytest.raises(Invalid) as refused:
        validated_new("tasks", [{"command": "a"}, {"command": ""}, 5])
    assert refused.value.items is not None
    assert [list(item) for item in refused.value.items] == [[], ["command"], ["_body"]]


@pytest.mark.parametrize("body", [None, 5, "x", [], True])
def test_a_body_that_is_no_task_is_refused(body: object) -> None:
    with pytest.raises(Invalid):
        validated_new("tasks", body)


def test_equal_objects_in_a_list_are_each_stored_and_wrong_ones_each_told() -> None:
    resources = {"memory": "1 kB", "custom": {"x": 1}}
    first, second = validated_new("tasks", [{"requested_resources": resources, "env": {"A": "b"}}] * 2)
    assert (
        first
        == second
        == DEFAULTS | {"requested_resources": {"cores": 1, **resources, "memory": 1000}} | {"env": {"A": "b"}}
    )
    assert first["requested_resources"] is not second["requested_resources"]
    with pytest.raises(Invalid) as refused:
        validated_new("tasks", [{"env": {"A": "b"}}, {"env": {"A": 1}}, {"env": {"A": 1}}])
    assert refused.value.items is not None
    assert [list(item) for item in refused.value.items] == [[], ["env"], ["env"]]


def test_a_required_object_may_be_the_same_in_each_item() -> None:
    item = {"name": "w", "resources": {"cores": 1}}
    documents, faults = Checker(REGISTRATION).new([item, item, {"name": "w"}])
    assert documents[:2] == [item, item]
    assert faults == [{}, {}, {"resources": "is required"}]


def test_a_list_has_a_limit() -> None:
    with pytest.raises(TooLarge, match="at most 2"):
        validated_new("tasks", [{}, {}, {}], max_items=2)


def test_changes_get_no_defaults_and_may_clear_a_field() -> None:
    assert validated_changes("tasks", {"timeout": None, "requested_resources": {"memory": "1 kB"}}) == {
        "timeout": None,
        "requested_resources": {"cores": 1, "memory": 1000},
    }


@pytest.mark.parametrize("changes", [{"_id": ID}, {"owner": "x"}, {"queue": None}, {"nothing": 1}, [], None])
def test_changes_that_may_not_be_are_refused(changes: object) -> None:
    with pytest.raises(Invalid):
        validated_changes("tasks", changes)


def test_a_call_that_is_no_document_is_checked_too() -> None:
    body = {"request": "r", "resources": {"cores": 1, "memory": "1 kB"}, "max_tasks": 1, "held": [ID]}
    assert validated(CLAIM, body) == body | {"resources": {"cores": 1, "memory": 1000}, "held": [ObjectId(ID)]}
    with pytest.raises(Invalid) as refused:
        validated(CLAIM, {"resources": {"cores": -1}, "max_tasks": 1})
    assert set(refused.value.issues) == {"request", "resources"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(RESOURCES["tasks"])) | st.text(max_size=8), _JSON, max_size=5))
def test_whatever_is_sent_is_refused_or_can_be_stored(body: dict[str, Any]) -> None:
    checks: list[Callable[[], Any]] = [
        lambda: validated_new("tasks", body)[0],
        lambda: validated_changes("tasks", body),
    ]
    for check in checks:
        try:
            accepted = check()
        except Invalid:
            continue
        assert bson.encode(accepted)


@given(st.dictionaries(st.text(), _JSON, max_size=4))
def test_free_fields_are_kept_unchanged_or_refused(metadata: dict[str, Any]) -> None:
    try:
        kept = task(metadata=metadata)["metadata"]
    except Invalid:
        return
    assert repr(kept) == repr(metadata)


@pytest.mark.parametrize("name", ["runing", "fraction", "wholly_unlike", "progres"])
def test_nothing_is_suggested_that_is_unlike_or_may_not_be_set(name: str) -> None:
    assert issues(**{name: 1}) == {name: "unknown field"}
