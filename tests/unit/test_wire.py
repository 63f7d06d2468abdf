"""Sizes, durations and dates: how they are read, and what a wrong one is told."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan import wire

ANYTHING = st.one_of(
    st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers()),
    st.from_regex(r"[0-9.eE+-]{1,6} ?[a-zA-Zµ]{0,5}", fullmatch=True),
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        (1073741824, 1 << 30),
        ("1 GiB", 1 << 30),
        ("500 MB", 500_000_000),
        ("1073741824", 1 << 30),
        (1.5e3, 1500),
        (0, 0),
    ],
)
def test_a_size_is_bytes_or_a_number_with_a_unit(text: object, size_bytes: int) -> None:
    assert wire.parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["lots", "", "1 lightyear", None, True, [], "-1", -1, float("nan"), 2**63, "9e99 GB"])
def test_what_is_not_a_size_is_explained(text: object) -> None:
    with pytest.raises(ValueError, match=r"write bytes \(1073741824\)|a size is between 0 and"):
        wire.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [(90, 90.0), ("2h", 7200.0), ("10 minutes", 600.0), ("1.5s", 1.5), ("7", 7.0)]
)
def test_a_duration_is_seconds_or_a_number_with_a_unit(text: object, seconds: float) -> None:
    assert wire.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "", "2 fortnights", None, False, {}, "-1s", -0.1, math.inf, math.nan])
def test_what_is_not_a_duration_is_explained(text: object) -> None:
    with pytest.raises(ValueError, match=r"write seconds \(90\)|a duration is finite and not negative"):
        wire.parse_duration(text)


@given(ANYTHING)
def test_no_value_gets_anything_but_a_number_in_range_or_a_reason(value: object) -> None:
    readers: list[Callable[[object], Any]] = [wire.parse_size, wire.parse_duration, wire.parse_date]
    for read in readers:
        answer, reason = _tried(read, value)
        assert repr(value) in reason or isinstance(answer, datetime) or 0 <= answer < math.inf


def _tried(read: Callable[[object], Any], value: object) -> tuple[Any, str]:
    try:
        return read(value), ""
    except ValueError as error:
        return None, str(error)


@pytest.mark.parametrize(
    "text",
    ["yesterday", "", 7, None, "0001-01-01T00:00:00+23:59", "Tue, 02 Apr 2013 10:29:13 +9999999999999", "31 Feb 2013"],
)
def test_what_is_not_a_date_is_explained(text: object) -> None:
    with pytest.raises(ValueError, match="is not a date; write it as 'Tue, 02 Apr 2013 10:29:13 GMT'"):
        wire.parse_date(text)


@given(st.datetimes(min_value=datetime(1900, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - Hypothesis adds the zone
def test_a_date_is_written_in_whole_seconds_and_read_back(date: datetime) -> None:
    whole = date.replace(microsecond=0)
    assert wire.parse_date(wire.format_date(date)) == whole
    assert wire.parse_date(date.isoformat()) == date


def test_dates_are_gmt_whatever_they_were_written_in() -> None:
    expected = datetime(2013, 4, 2, 10, 29, 13, tzinfo=UTC)
    assert wire.format_date(expected.astimezone(timezone(timedelta(hours=2)))) == "Tue, 02 Apr 2013 10:29:13 GMT"
    for text in ("Tue, 02 Apr 2013 10:29:13 GMT", "2013-04-02T10:29:13", "2013-04-02T12:29:13+02:00"):
        assert wire.parse_date(text) == expected


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (10**6, "976.56 KiB"),
        (1 << 30, "1.00 GiB"),
        (1 << 62, "4096.00 PiB"),
    ],
)
def test_sizes_are_shown_with_their_unit(size_bytes: int, text: str) -> None:
    assert wire.format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.244, "0.24s"), (12.34, "12.3s"), (245, "4m 05s"), (7380, "2h 03m"), (273_600, "3d 04h")],
)
def test_durations_are_shown_with_their_unit(seconds: float, text: str) -> None:
    assert wire.format_duration(seconds) == text


def test_json_keeps_odd_numbers_and_names() -> None:
    value = {"c.x": math.inf, "$ref": -math.inf, "": "ü\N{DECIDUOUS TREE}", "list": [1, None, True]}
    assert wire.loads(wire.dumps(value)) == value
