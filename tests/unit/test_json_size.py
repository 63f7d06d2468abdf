"""Counting the values of a JSON text without parsing it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.api.json_size import has_more_values

VALUES = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a,[{"\\:é'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='a,"\\'), inner),
    max_leaves=20,
)


def count(value: Any) -> int:
    """All values in it, itself included."""
    if isinstance(value, list):
        return 1 + sum(map(count, value))
    return 1 + sum(map(count, value.values())) if isinstance(value, dict) else 1


@given(value=VALUES, spaces=st.sampled_from([None, 1]), ascii=st.booleans())
def test_a_text_with_more_values_is_never_taken_for_one_with_fewer(value: Any, spaces: int | None, ascii: bool) -> None:
    text = json.dumps(value, indent=spaces, ensure_ascii=ascii).encode()
    values = count(value)
    assert has_more_values(text, values - 1)
    assert not has_more_values(text, 2 * values)  # an empty list counts as two


@pytest.mark.parametrize(
    "inside", [",[{" * 50_000, '\\"' * 50_000 + ",[{", "\\\\" * 50_000 + ",", "x" * 65_533 + '\\",', "\\\\"]
)
def test_what_is_in_a_string_does_not_count_wherever_it_is_cut(inside: str) -> None:
    for shift in range(4):
        text = f'{" " * shift}["{inside}",1,"{inside}",2]'.encode()
        assert not has_more_values(text, 5)
        assert has_more_values(text, 4)
