"""What sweeps are made of, without a server: points, templates, samples, tables."""

import math
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.domain.sampling import LATIN_HYPERCUBE, METHODS, SOBOL, Range, sample
from banyan.domain.sweeps import Template, grid_points, grid_size, names_of, spread
from banyan.domain.tables import Column, Table
from banyan.errors import Invalid

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


# Points


def test_the_last_name_of_a_grid_varies_fastest() -> None:
    grid: dict[str, list[Any]] = {"x": [1, 2], "y": ["a", None, [3]]}
    assert grid_size(grid) == 6
    assert list(grid_points(grid)) == [
        *({"x": 1, "y": "a"}, {"x": 1, "y": None}, {"x": 1, "y": [3]}),
        *({"x": 2, "y": "a"}, {"x": 2, "y": None}, {"x": 2, "y": [3]}),
    ]


def test_names_come_in_the_order_of_their_first_appearance() -> None:
    assert names_of([{"b": 1}, {"a": 1, "b": 2}, {"": 0}]) == ["b", "a", ""]


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 100, 100_000])
def test_indexes_are_spread_from_the_first_to_the_last(count: int) -> None:
    found = spread(count, 8)
    assert (found[0], found[-1], len(found)) == (0, count - 1, min(count, 8))
    steps = [after - before for before, after in pairwise(found)]
    assert not steps or (min(steps) > 0 and max(steps) - min(steps) <= 1)


# Templates


@pytest.mark.parametrize(
    ("command", "filled"),
    [
        ("run {x} {index}", "run 3 7"),
        ("run {y}x{x}", """run 'it'"'"'s'x3"""),
        (["run", "--x={x}", "{y}", "{x}{x}"], ["run", "--x=3", "it's", "33"]),
        (["awk", "{print $1}", "${HOME}", "{}", "{z"], ["awk", "{print $1}", "${HOME}", "{}", "{z"]),
        (["{{x}}", "{ x }", "{x}}"], ["{3}", "{ x }", "3}"]),
    ],
)
def test_only_names_of_inputs_are_replaced(command: Any, filled: Any) -> None:
    assert Template(command, ["x", "y"]).fill({"x": 3, "y": "it's"}, 7) == filled


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a b", "a b"),
        (0.1, "0.1"),
        (1e22, "1e+22"),
        (True, "true"),
        (None, "null"),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        ([1, "é"], '[1, "é"]'),
        ({"a": {}}, '{"a": {}}'),
    ],
)
def test_texts_stand_for_themselves_and_other_values_are_json(value: Any, text: str) -> None:
    assert Template(["{v}"], ["v"]).fill({"v": value}, 0) == [text]


def test_values_are_put_in_once_and_not_read_as_templates() -> None:
    assert Template(["{x}", "{y}"], ["x", "y"]).fill({"x": "{y}", "y": "{x}{index}"}, 0) == ["{y}", "{x}{index}"]


def test_odd_names_can_be_used_and_the_longest_counts() -> None:
    point = {"": "empty", "c.x": 1, "a}": 2, "a": 3, "$ref": 4, "index": "mine"}
    template = Template(["{}", "{c.x}", "{a}}", "{a}", "{$ref}", "{index}"], point.keys())
    assert template.fill(point, 9) == ["empty", "1", "2", "3", "4", "mine"]


def test_a_name_that_a_point_does_not_have_is_told() -> None:
    template = Template("run {x} {y}", ["x", "y"])
    with pytest.raises(ValueError, match=r"uses \{y\}, and this point has no such input"):
        template.fill({"x": 1}, 0)


@given(st.text("{}ax ", max_size=20), st.dictionaries(names, st.integers(), max_size=3))
def test_a_template_without_its_names_is_left_as_it_is(text: str, point: dict[str, int]) -> None:
    untouched = not any(f"{{{name}}}" in text for name in point)
    if untouched:
        assert Template([text], point.keys()).fill(point, 0) == [text]


# Samples


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 5, 64])
def test_samples_lie_in_their_ranges_and_are_the_same_for_the_same_seed(method: str, count: int) -> None:
    ranges = {"c.x": Range.of([-1, 3]), "": Range.of({"low": 1e-3, "high": 1e3, "scale": "log"})}
    points = sample(method, count, 17, ranges)
    assert len(points) == count
    assert points == sample(method, count, 17, ranges)
    assert points != sample(method, count, 18, ranges)
    for point in points:
        assert list(point) == ["c.x", ""]
        assert -1 <= point["c.x"] <= 3
        assert 1e-3 <= point[""] <= 1e3


def test_a_latin_hypercube_has_one_sample_in_each_slice() -> None:
    points = sample(
        LATIN_HYPERCUBE, 10, 3, {"x": Range.of([0, 10]), "y": Range.of({"low": 1, "high": 1024, "scale": "log"})}
    )
    assert sorted(int(point["x"]) for point in points) == list(range(10))
    assert sorted(int(math.log2(point["y"])) for point in points) == list(range(10))


def test_sobol_halves_each_range_evenly() -> None:
    points = sample(SOBOL, 32, 3, {name: Range.of([0, 1]) for name in "abc"})
    for name in "abc":
        assert sum(point[name] < 0.5 for point in points) == 16


def test_a_range_that_spans_all_numbers_does_not_overflow() -> None:
    assert math.isfinite(Range.of([-1.7e308, 1.7e308]).at(0.75))


def test_without_scipy_samples_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(Invalid, match=r"install 'banyan-queue\[models\]' there, or send 'points'"):
        sample(SOBOL, 2, 1, {"x": Range.of([0, 1])})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1], r"must be \[low, high\]"),
        ({"low": 1}, r"must be \[low, high\]"),
        ({"low": 1, "high": 2, "step": 1}, r"must be \[low, high\]"),
        ([2, 1], "must be less than 'high'"),
        ([1, 1], "a constant belongs in 'inputs'"),
        ([math.nan, 1], "'low' must be a finite number"),
        ([0, math.inf], "'high' must be a finite number"),
        ([0, 10**400], "'high' must be a finite number"),
        ([False, 1], "'low' must be a finite number"),
        ({"low": 0, "high": 1, "scale": "log"}, "begins above 0"),
        ({"low": 0, "high": 1, "scale": "cubic"}, "it is linear or log"),
    ],
)
def test_a_range_that_is_none_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Range.of(value)


# Tables


def test_names_are_told_apart_only_where_they_clash() -> None:
    table = Table.of(["x", "y", "state", ""], ["x", "z", "c.x"])
    assert table.labels == [
        *("index", "task", "state", "exit_status"),
        *("inputs.x", "y", "inputs.state", "", "result.x", "z", "c.x"),
    ]


def test_a_label_that_tells_apart_never_clashes_itself() -> None:
    table = Table.of(["x", "inputs.x", "result"], ["x", "inputs.inputs.x"], ["result"])
    assert table.labels[4:] == [
        "inputs.x",
        "inputs.inputs.x",
        "inputs.result",
        "result.x",
        "result.inputs.inputs.x",
        "result",
    ]


@given(st.lists(names | st.sampled_from(["x", "inputs.x", "result.x", "index"]), unique=True, max_size=6), st.data())
def test_all_labels_differ(inputs: list[str], data: st.DataObject) -> None:
    results = data.draw(
        st.lists(st.sampled_from([*inputs, "x", "result.x", "inputs.inputs.x"]), unique=True, max_size=6)
    )
    labels = Table.of(inputs, results, ["result"]).labels
    assert len(set(labels)) == len(labels) == 5 + len(inputs) + len(results)


def test_a_row_has_what_the_task_has() -> None:
    table = Table.of(["x", "y"], ["x", "z"], ["result", "result_file"])
    task = {"_id": "t", "index": 4, "state": "terminated", "exit_status": "success", "inputs": {"x": 1}}
    fixed = {"index": 4, "task": "t", "state": "terminated", "exit_status": "success"}
    assert dict(table.row({**task, "result": {"x": None, "z": [2]}})) == fixed | {
        "inputs.x": 1,
        "result.x": None,
        "z": [2],
    }
    assert dict(table.row({**task, "result": 5})) == fixed | {"inputs.x": 1, "result": 5}
    assert dict(table.row({**task, "result_file": "r.json"})) == fixed | {"inputs.x": 1, "result_file": "r.json"}
    assert table.columns[0] == Column(kind="inputs", name="x", label="inputs.x")


def test_a_command_that_grows_too_long_is_refused_before_it_is_made() -> None:
    for command in ("{x}" * 1000, ["{x}"] * 1000, ["echo", *["{x}{x}"] * 500]):
        with pytest.raises(ValueError, match="longer than 1000000 characters"):
            Template(command, ["x"]).fill({"x": "y" * 1_000_000}, 0)
    assert len(Template(["{x}"], ["x"]).fill({"x": "y" * 1_000_000}, 0)[0]) == 1_000_000


def test_of_two_names_that_fit_the_longer_one_counts_also_with_braces() -> None:
    point = {"a": "1", "a}b": "2", "{c": "3", "}": "4"}
    assert Template(["{a}b} {a} {{c} {}} {"], list(point)).fill(point, 0) == ["2 1 3 4 {"]


def test_many_braces_and_many_names_with_braces_are_refused_together() -> None:
    names = ["{" * length for length in range(1, 200)]
    with pytest.raises(ValueError, match="braces"):
        Template("{" * 100_000, names)
    assert Template("{" * 100_000, ["x"]).fill({"x": 1}, 0) == "{" * 100_000
