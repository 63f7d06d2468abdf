"""The parts of the models' side that need no process of their own: the flag, results, tracebacks."""

import json
import math
import os
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.models import cancel_memory
from banyan.models.cancel import Cancel, Memory, announce
from banyan.models.results import BadResult, encode, keep
from banyan.models.task_spec import Task_spec
from banyan.models.traces import text_of
from banyan.wire import MAX_RESULT_BYTES

# The flag


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = cancel_memory.create()
    yield made
    os.close(made)


def test_a_flag_is_raised_for_its_task_and_those_before(descriptor: int) -> None:
    memory = Memory(descriptor)
    first, second, third = (memory.flag(number, f"task {number}") for number in (1, 2, 3))
    assert not any(flag.get() for flag in (first, second, third))
    cancel_memory.raise_flag(descriptor, 2)
    assert [flag.get() for flag in (first, second, third)] == [True, True, False]


def test_a_pickled_flag_reads_the_same_memory(descriptor: int) -> None:
    flag = Memory(descriptor).flag(1, "task")
    other: Cancel = pickle.loads(pickle.dumps(flag))
    assert (other.get(), other.name) == (False, "task")
    cancel_memory.raise_flag(descriptor, 1)
    assert other.get()


def test_a_flag_whose_memory_cannot_be_reached_hears_messages() -> None:
    descriptor = cancel_memory.create()
    flag = Memory(descriptor).flag(5, "task")
    pickled = pickle.dumps(flag)
    os.close(descriptor)  # as on another machine: the place is not there
    other: Cancel = pickle.loads(pickled)
    late: Cancel = pickle.loads(pickled)
    assert not other.get()
    announce(*flag.announcement())
    assert other.get()
    assert late.get()
    assert not flag.get()


def test_another_memory_at_the_same_place_is_not_taken_for_ours() -> None:
    first = cancel_memory.create()
    pickled = pickle.dumps(Memory(first).flag(1, "task"))
    os.close(first)
    second = cancel_memory.create()
    assert second == first
    cancel_memory.raise_flag(second, 9)
    other: Cancel = pickle.loads(pickled)
    assert not other.get()
    os.close(second)


def test_a_model_may_raise_the_flag_itself_but_not_lower_it(descriptor: int) -> None:
    flag = Memory(descriptor).flag(3, "task")
    flag.set(False)
    assert not flag.get(timeout=1)
    flag.set(True, timeout="1 s")
    assert flag.get()
    with pytest.raises(ValueError, match="cannot be taken back"):
        flag.set(False)
    flag.delete()


# Results

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0")), inner)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0")), PLAIN))
def test_what_is_json_already_comes_back_as_it_is(result: dict[str, Any]) -> None:
    back = json.loads(encode(result))
    assert repr(back) == repr(result)  # NaN is not equal to itself, and -0.0 is equal to 0


class Similar:
    """Something with an interface like a dict's."""

    def keys(self) -> list[str]:
        return ["a"]

    def __getitem__(self, name: str) -> object:
        return {"a": (1, 2)}[name]


def test_anything_like_a_mapping_is_one() -> None:
    assert json.loads(encode(Similar())) == {"a": [1, 2]}


def test_a_cycle_is_no_result() -> None:
    cycle: dict[str, Any] = {}
    cycle["inner"] = cycle
    with pytest.raises(BadResult, match="contains itself"):
        encode(cycle)
    pair: dict[str, Any] = {}
    pair |= {"left": [pair], "right": (pair,)}
    with pytest.raises(BadResult, match=r"result\['left'\]\[0\]: it contains itself"):
        encode(pair)


def test_a_lone_surrogate_is_no_text() -> None:
    with pytest.raises(BadResult, match="lone surrogate"):
        encode({"text": "\ud800"})


def test_a_result_is_kept_inline_up_to_the_limit(tmp_path: Any) -> None:
    text = "x" * MAX_RESULT_BYTES
    assert keep(text, None) == {"result": text}
    assert keep(text + "x", str(tmp_path)) == {"result_file": "result.json"}
    assert (tmp_path / "result.json").read_text() == text + "x"
    with pytest.raises(BadResult):
        keep(text + "x", None)


def test_infinities_are_written_as_python_writes_them() -> None:
    assert encode({"x": [math.inf, -math.inf, math.nan]}) == '{"x":[Infinity,-Infinity,NaN]}'


# What is said of errors


def _deep(depth: int) -> None:
    if depth:
        _deep(depth - 1)
    else:
        raise ValueError("x" * 200_000)


def test_a_traceback_has_a_bounded_length_and_is_unicode() -> None:
    with pytest.raises(ValueError, match="xxx") as caught:
        _deep(3)
    text = text_of(caught.value, "a note")
    assert text.startswith("a note\nTraceback")
    assert len(text) < 70_000
    assert "characters left out" in text
    assert text_of(ValueError("\ud800")).encode() == b"ValueError: \\ud800" or "?" in text_of(ValueError("\ud800"))


def test_a_spec_shows_what_it_holds() -> None:
    spec = Task_spec({"x": 1}, jobid="5f")
    assert repr(spec) == "Task_spec(inputs={'x': 1}, workdir=None, jobid='5f')"


def test_a_result_that_the_server_would_not_keep_is_none() -> None:
    deep: Any = 1
    for _ in range(64):
        deep = {"x": deep}
    assert json.loads(encode(deep)) == deep
    with pytest.raises(BadResult, match="deeper"):
        encode({"x": deep})
    with pytest.raises(BadResult, match=r"\$db"):
        encode({"x": {"$ref": "a", "$id": 1, "$db": None}})
