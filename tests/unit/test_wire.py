"""Sizes, durations and dates: how they are read, and what a wrong one is told."""

import math
import re
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


@pytest.mark.parametrize(
    "text",
    [
        "Tue, 02 Apr 2013 10:29:13 GMT",
        "Tue, 2 Apr 2013 10:29:13 UTC",
        "Tue, 02 Apr 2013 12:29:13 +0200",
        "Wed, 03 Apr 2013 00:14:13 +1345",
        "Tue, 02 Apr 2013 10:29:13 -0000",
        "02 Apr 2013 10:29:13 GMT",
        "2013-04-02T10:29:13",
        "2013-04-02 10:29:13Z",
        "2013-04-02t10:29:13z",
        "2013-04-02T12:29:13+02:00",
        "2013-04-02 05:59:13.000000000 -0430",
    ],
)
def test_a_date_means_the_same_moment_in_every_way_that_it_is_written(text: str) -> None:
    assert wire.parse_date(text) == datetime(2013, 4, 2, 10, 29, 13, tzinfo=UTC)


def test_a_day_alone_is_its_midnight_and_fractions_are_kept() -> None:
    assert wire.parse_date("2013-04-02") == datetime(2013, 4, 2, tzinfo=UTC)
    assert wire.parse_date("2013-04-02T10:29:13.0129999Z") == datetime(2013, 4, 2, 10, 29, 13, 12999, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *(
            (f"Wed, 01 Jan 2031 10:00:00 {zone}", f"zone {zone!r} is not exact")
            for zone in ("CET", "JST", "IST", "EST")
        ),
        *((f"Wed, 01 Jan 2031 10:00:00 {zone}", f"zone {zone!r} is not exact") for zone in ("GMT+2", "gmt", "+1", "A")),
        ("Wed, 01 Jan 2031 10:00:00 (CET)", "zone '(CET)' is not exact"),
        ("2031-01-01T10:00:00 CET", "zone 'CET' is not exact"),
        ("2031-01-01T10:00:00+1", "zone '+1' is not exact"),
        ("2031-01-01T10:00:00+01:00[Europe/Paris]", "is not exact"),
        ("Wed, 01 Jan 2031 10:00:00", "it has no zone"),
        ("Wed, 01 Jan 2031 10:00:00 +2460", "there is no offset +2460"),
        ("2031-01-01T10:00:00-00:60", "there is no offset -00:60"),
        ("Thu, 01 Jan 2031 10:00:00 GMT", "that day is a Wed, not a Thu"),
        ("Wed, 01 Jan 31 10:00:00 GMT", "the year 31 needs four digits"),
        ("Wed, 01 Jan 131 10:00:00 GMT", "the year 131 needs four digits"),
        ("Sun, 30 Feb 2031 10:00:00 GMT", "day is out of range"),
        ("2031-02-29", "day is out of range"),
        ("2031-13-01", "month must be in 1..12"),
        ("2031-01-01T24:00:00Z", "hour must be in 0..23"),
        ("Wed, 01 Jan 2031 10:60:00 GMT", "minute must be in 0..59"),
        ("Sat, 31 Dec 2016 23:59:60 GMT", "a leap second cannot be kept"),
        ("2016-12-31T23:59:60Z", "a leap second cannot be kept"),
        ("0000-01-01", "year 0 is out of range"),
        ("9999-12-31T23:59:59-00:01", "out of range"),
    ],
)
def test_a_date_that_is_not_exact_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"write it as 'Tue, 02 Apr 2013 10:29:13 GMT' \(.*" + re.escape(reason)):
        wire.parse_date(text)


@pytest.mark.parametrize(
    "text",
    [
        "wed, 01 jan 2031 10:00:00 gmt",
        "WED, 01 JAN 2031 10:00:00 GMT",
        "Wednesday, 01-Jan-31 10:00:00 GMT",
        "Wed Jan  1 10:00:00 2031",
        "Wed, 01 Jan 2031 10:00:00 GMT ",
        " Wed, 01 Jan 2031 10:00:00 GMT",
        "Wed,  01 Jan 2031 10:00:00 GMT",
        "Wed, 01 Jan 2031 10:00:00 GMT GMT",
        "Wed, 01 Jan 2031 10:00:00 GMT\n",
        "Wed, 01 Jan 2031 10:00:00 GMT (CET)",
        "Mer, 01 Jan 2031 10:00:00 GMT",
        "01/02/2031",
        "2031-01-01X10:00:00",
        "2031-01-01T10",
        "2031-01-01T10:00:00Z!",
        "2031-01-01 ",
        "2031-1-1",
        "20310101T100000Z",
        "2031-W01-3",
        "2031-001",
        "+2031-01-01",
        "\N{FULLWIDTH DIGIT TWO}031-01-01",
        "1924992000",
    ],
)
def test_what_is_no_date_from_its_beginning_to_its_end_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a date"):
        wire.parse_date(text)


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
