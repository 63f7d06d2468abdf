"""The quick way through a schema against Cerberus: sure only of what Cerberus takes, and of the very same values."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banyan.api.checks import CHECKS
from banyan.api.coercion import COERCIONS
from banyan.api.schema import RESOURCES
from banyan.api.schema.kinds import Rules, text
from banyan.api.schema.reports import CURL_DATA, REPORT, SAMPLE
from banyan.api.schema.sweeps import NEW_SWEEP
from banyan.api.schema.workers import CLAIM, REGISTRATION
from banyan.api.validation import Checker
from banyan.api.validator import Validator
from banyan.errors import Invalid
from tests.support.documents import DATE, ID, Document, odd_documents, right_documents, spoilt_documents

SCHEMAS: dict[str, Mapping[str, Rules]] = {
    **RESOURCES,
    "report": REPORT,
    "sample": SAMPLE,
    "claim": CLAIM,
    "registration": REGISTRATION,
    "curl_data": CURL_DATA,
    "new_sweep": NEW_SWEEP,
}
OUTPUT = {"stdout_tail": "done\n", "stderr_tail": "", "stdout_bytes": 5, "stderr_bytes": 0, "files_bytes": 2**40}
GRANTED = {"cores": 2, "memory": 2**30, "gpus": 1, "custom": {"licence": 0.5}, "gpu_indexes": [0]}
START = {"execution": ID, "token": "t" * 43, "time_started": "2013-04-02T10:29:13.5+00:00", "pid": 4711}


@cache
def quick(name: str) -> Checker:
    return Checker(SCHEMAS[name])


@cache
def slow(name: str) -> Checker:
    return Checker(SCHEMAS[name], quick=False)


@cache
def right(name: str) -> st.SearchStrategy[Document]:
    return right_documents(SCHEMAS[name])


@cache
def spoilt(name: str) -> st.SearchStrategy[Document]:
    return spoilt_documents(SCHEMAS[name])


def outcome(checker: Checker, document: Document, update: bool) -> tuple[bool, str]:
    """Whether a document is taken, and what is stored or wrong, written so that True, 1 and 1.0 differ."""
    if not update:
        documents, faults = checker.new([document])
        return not faults[0], repr(faults[0] or documents[0])
    try:
        return True, repr(checker.changes(document))
    except Invalid as refused:
        return False, repr(refused.issues)


def agree(name: str, document: Document, update: bool) -> bool:
    """Assert that both ways come to the same and are sure of nothing wrong; whether the document is taken."""
    before = repr(document)
    taken, expected = outcome(slow(name), document, update)
    assert outcome(quick(name), document, update) == (taken, expected)
    assert taken or quick(name).sure(document, update=update) is None
    assert repr(document) == before
    return taken


@pytest.mark.parametrize("name", SCHEMAS)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_a_right_document_needs_no_cerberus(name: str, data: st.DataObject) -> None:
    document = data.draw(right(name))
    for update in (False, True):
        assert agree(name, document, update)
        assert quick(name).sure(document, update=update) is not None


@pytest.mark.parametrize("name", SCHEMAS)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_of_a_spoilt_document_both_ways_find_the_same(name: str, data: st.DataObject) -> None:
    document = data.draw(spoilt(name))
    agree(name, document, update=True)
    assert agree(name, document, update=False) == (quick(name).sure(document) is not None)


@pytest.mark.parametrize("name", SCHEMAS)
def test_of_each_odd_value_both_ways_find_the_same(name: str) -> None:
    for document in odd_documents(SCHEMAS[name]):
        agree(name, document, update=True)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("tasks", {}),
        ("tasks", {"command": "echo a", "name": None, "timeout": None}),
        ("tasks", {"command": ["echo", "ä"], "requested_resources": {"cores": 2, "memory": "1 GiB", "gpus": 1}}),
        ("tasks", {"command": "a", "env": {"A": "b"}, "requires": {"site": "x"}, "tags": ["x"], "state": "available"}),
        ("tasks", {"model": "m", "inputs": {"a.b": [1.5, None]}, "metadata": {"seed": 1}, "priority": 5}),
        ("tasks", {"command": "a", "dependencies": [ID], "continuations": [ID], "timeout": "2h", "not_before": DATE}),
        ("tasks", {"command": "a", "_id": ID, "queue": "q", "max_retry_count": 3, "retry_delay": 1.5, "hold": True}),
        ("report", {**START, "granted_resources": GRANTED, "directory": {"logs": "/l", "work": None}}),
        ("report", {**START, **OUTPUT, "time_terminated": DATE, "exit_status": "success", "exit_code": 0}),
        ("report", {**START, "signal": "SIGKILL", "error": "killed", "peak_memory_bytes": 2**30, "cpu_seconds": 1.5}),
        ("report", {**START, "peak_memory_bytes": 2**30, "peak_memory_source": "samples"}),
        ("report", {**START, "result": [1, {"a": None}], "progress": {"fraction": 0.5, "message": None}}),
        ("report", {"execution": ID, "token": "t", "task": ID, "given_back": True}),
        ("sample", {"task": ID, "execution": ID, "time": DATE, "resident_memory_bytes": 2**30, "cpu_percent": 99.5}),
        ("claim", {"request": "r", "resources": {"cores": 1, "memory": 2**30}, "max_tasks": 9, "held": [ID]}),
        ("registration", {"name": "w", "resources": {"cores": 1}, "labels": {"a": "b"}, "files": None}),
        ("registration", {"name": "w", "resources": {}, "files": {"root": "/r", "probe": "p"}, "queues": ["q"]}),
        ("curl_data", {"token": "t", "worker": None, "result": 1, "progress": {"fraction": 1}}),
    ],
)
def test_typical_documents_take_the_quick_way(name: str, document: Document) -> None:
    assert quick(name).sure(document) is not None
    assert agree(name, document, update=False)


@pytest.mark.parametrize(
    "document", [{"priority": 1}, {"timeout": None}, {"requested_resources": {"memory": "1 GiB"}}, {"hold": True}]
)
def test_typical_changes_take_the_quick_way(document: Document) -> None:
    assert quick("tasks").sure(document, update=True) is not None
    assert agree("tasks", document, update=True)


@pytest.mark.parametrize(
    ("rules", "value"),
    [
        ({"type": "string", "empty": False}, "x"),
        ({"type": "string", "min": "a"}, "b"),
        ({"type": "string", "coerce": str}, "x"),
        ({"type": "capability", "coerce": ["capability"]}, "8.0"),
        ({"type": "string", "check_with": ["no_nul"]}, "x"),
        ({"type": "binary"}, b"x"),
        ({"type": ["string", "integer"], "max": 5}, 1),
        ({"type": "list", "schema": {"type": "integer"}}, [1]),
        ({"type": "integer", "anyof": [{"min": 1}, {"max": -1}]}, 1),
        ({"type": "dict", "valuesrules": {"type": "integer"}}, {"a": 1}),
        ({"type": "dict", "schema": {"a": {"type": "integer", "forbidden": [2]}}}, {"a": 1}),
        ({"type": "dict", "schema": {"a": {"type": "dict", "schema": {"b": {"default": 1}}}}}, {"a": {}}),
        ({"allowed": [1]}, 1),
        ({"type": "integer", "dependencies": []}, 1),
    ],
)
def test_an_unknown_rule_leaves_its_field_to_cerberus(rules: Rules, value: object) -> None:
    checker = Checker({"odd": rules, "other": text()})
    assert checker.sure({"odd": value}) is None
    assert checker.sure({"other": "x"}) == {"other": "x"}
    assert checker.new([{"odd": value}])[1] == [{}]


def test_depth_is_counted_from_the_top_of_the_document() -> None:
    deep: list[Any] = []
    for _ in range(62):
        deep = [deep]
    assert quick("curl_data").sure({"granted_resources": {"gpu_indexes": deep}}) is not None
    assert agree("curl_data", {"granted_resources": {"gpu_indexes": deep}}, update=False)
    assert not agree("curl_data", {"granted_resources": {"gpu_indexes": [deep]}}, update=False)


@pytest.mark.parametrize("body", [None, 5, "x", [], True])
def test_what_is_no_object_is_left_to_cerberus(body: Any) -> None:
    assert quick("tasks").sure(body) is None


def test_both_ways_coerce_and_check_by_the_same_functions() -> None:
    assert set(Validator.coercers) == set(COERCIONS)
    assert all(getattr(Validator, f"_normalize_coerce_{name}") is coerce for name, coerce in COERCIONS.items())
    assert set(Validator.checkers) >= set(CHECKS)


@pytest.mark.parametrize("name", COERCIONS)
def test_no_coercion_takes_null(name: str) -> None:
    with pytest.raises(ValueError, match=r"None|must be"):
        COERCIONS[name](None)
