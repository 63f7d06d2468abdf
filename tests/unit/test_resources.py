"""Resources as integers: fractions add up, all or nothing fits."""

import pytest
from bson.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from banyan.domain.resources import Resources, capability_text, parse_capability

amounts = st.builds(
    Resources,
    millicores=st.integers(0, 10**6),
    memory_bytes=st.integers(0, 2**50),
    gpus=st.integers(0, 64),
    scratch_bytes=st.integers(0, 2**50),
    custom=st.dictionaries(st.sampled_from(["licence", "tape"]), st.integers(1, 10**6)),
)


def test_ten_tenths_of_a_core_are_one_core() -> None:
    tenth = Resources.from_document({"cores": 0.1})
    free = Resources.from_document({"cores": 1})
    for _ in range(10):
        assert tenth.fits(free)
        free = free.minus(tenth)
    assert not tenth.fits(free)
    assert free.millicores == 0


def test_a_document_reads_back() -> None:
    document = {"cores": 2.5, "memory": 2**30, "gpus": 1, "gpu_memory": 2**33, "gpu_compute_capability": "8.6"}
    document |= {"scratch": 5, "custom": {"licence": 1.5}}
    assert Resources.from_document(document).to_document() == document


def test_what_is_missing_is_named_with_what_was_wanted_and_what_is_there() -> None:
    wanted = Resources.from_document(
        {"cores": 4, "memory": 100, "custom": {"tape": 1}, "gpu_compute_capability": "9.0"}
    )
    there = Resources.from_document({"cores": 2, "memory": 100, "gpu_compute_capability": "8.6"})
    assert wanted.missing(there) == {
        "cores": (4, 2),
        "custom.tape": (1, 0),
        "gpu_compute_capability": ("9.0", "8.6"),
    }


@given(amounts, amounts)
def test_what_is_taken_and_returned_leaves_no_trace(free: Resources, taken: Resources) -> None:
    back = free.minus(taken).plus(taken)
    assert {**back.to_document(), "custom": {}} == {**free.to_document(), "custom": {}}
    assert all(back.custom[name] == free.custom.get(name, 0) for name in back.custom)


@given(amounts, amounts)
def test_it_fits_exactly_when_nothing_would_go_below_zero(free: Resources, wanted: Resources) -> None:
    left = free.minus(wanted)
    numbers = [left.millicores, left.memory_bytes, left.gpus, left.scratch_bytes, *left.custom.values()]
    assert wanted.fits(free) == all(number >= 0 for number in numbers)


@pytest.mark.parametrize("value", ["8.10", "8.9", Timestamp(8, 10), 8, "10.0", Timestamp(9, 0)])
def test_a_compute_capability_is_met_by_a_greater_one_part_by_part(value: object) -> None:
    wanted = Resources.from_document({"gpu_compute_capability": value})
    assert wanted.fits(Resources.from_document({"gpu_compute_capability": "10.0"}))
    assert not wanted.fits(Resources.from_document({"gpu_compute_capability": "7.5"}))
    assert wanted.fits(Resources.from_document({"gpu_compute_capability": capability_text(value)}))


@pytest.mark.parametrize("text", ["", "eight", "8.x", "-8.0", "8.0.0"])
def test_a_wrong_compute_capability_is_explained(text: str) -> None:
    with pytest.raises(ValueError, match=r"write it as '8\.0'"):
        parse_capability(text)
