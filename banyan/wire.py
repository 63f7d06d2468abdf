"""JSON and plain values between client, server and worker, and their text forms.

Server, client and worker share these, so that each size, duration and date is read in one way. Dask, which knows the
units, is imported only when a text is read: it costs a fifth of a second and 15 MB.
"""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

MAX_INTEGER = 2**63 - 1
"""The largest integer that MongoDB stores."""

MAX_DEPTH = 64
"""The deepest nesting of lists and objects in a stored value."""

MAX_RESULT_BYTES = 64 * 1024
"""The longest result of a task that is not stored in a file."""

MAX_MESSAGE = 10_000
"""The most characters of the message in a task's progress."""


def parse_size(value: object) -> int:
    """Return the bytes of `1073741824`, `"1 GiB"` or `"500 MB"`; ValueError shows the form of a size."""
    if type(value) is int and 0 <= value <= MAX_INTEGER:
        return value
    problem = f"{value!r} is not a size; write bytes (1073741824) or a text such as '1 GiB' or '500 MB'"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(problem)
    if isinstance(value, str) and not any(c.isdigit() for c in value):
        raise ValueError(problem)
    try:
        size = _bytes_of(value) if isinstance(value, str) else int(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(problem) from error
    if not 0 <= size <= MAX_INTEGER:
        raise ValueError(f"{value!r} is out of range; a size is between 0 and {MAX_INTEGER} bytes")
    return int(size)


def parse_duration(value: object) -> float:
    """Return the seconds of `90`, `1.5`, `"2h"` or `"10 minutes"`; ValueError shows the form of a duration."""
    problem = f"{value!r} is not a duration; write seconds (90) or a text such as '90s', '10 minutes' or '2h'"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(problem)
    if isinstance(value, str) and not any(c.isdigit() for c in value):
        raise ValueError(problem)
    try:
        seconds = _seconds_of(value) if isinstance(value, str) else float(value)
    except (ValueError, KeyError, OverflowError) as error:
        raise ValueError(problem) from error
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{value!r} is out of range; a duration is finite and not negative")
    return float(seconds)


def _bytes_of(text: str) -> int:
    from dask.utils import parse_bytes

    return int(parse_bytes(text))


def _seconds_of(text: str) -> float:
    from dask.utils import parse_timedelta

    return float(parse_timedelta(text))


def format_size(size_bytes: float) -> str:
    """Return a size for people: `1.00 GiB`."""
    size, larger = float(int(size_bytes)), iter(("KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = ""
    while size >= 1024 and unit != "PiB":
        size, unit = size / 1024, next(larger)
    return f"{size:.2f} {unit}" if unit else f"{size:.0f} B"


def format_duration(seconds: float) -> str:
    """Return a duration for people: `0.24s`, `12.3s`, `4m 05s`, `2h 03m`, `3d 04h`."""
    if seconds < 10:
        return f"{seconds:.2f}s"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h {minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d {hours:02d}h"


def parse_date(text: object) -> datetime:
    """Return the UTC time of `Tue, 02 Apr 2013 10:29:13 GMT`, also with `+0200` as zone, or `2013-04-02T10:29:13Z`.

    A text is read completely and means one moment: its zone is GMT, UTC, Z or an offset, its weekday fits the day, and
    nothing is left over. ISO 8601 without a zone is UTC, and a day alone is its midnight. ValueError names the fault.
    """
    if isinstance(text, str) and _WORKERS_DATE.fullmatch(text):
        with suppress(ValueError):  # there is no such day; the reason follows below
            return datetime.fromisoformat(text)
    problem = f"{text!r} is not a date; write it as 'Tue, 02 Apr 2013 10:29:13 GMT'"
    parts = (_HTTP_DATE.fullmatch(text) or _ISO_DATE.fullmatch(text)) if isinstance(text, str) else None
    if parts is None:
        raise ValueError(problem)
    try:
        return _date_of(parts.groupdict())
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{problem} ({error})") from error


_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HTTP_DATE = re.compile(
    rf"(?:(?P<weekday>{'|'.join(_WEEKDAYS)}), )?(?P<day>[0-9]{{1,2}}) (?P<month>{'|'.join(_MONTHS)})"
    r" (?P<year>[0-9]{2,4}) (?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2}))?(?: (?P<zone>\S+))?"
)
_ISO_DATE = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
    r"(?:[Tt ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]{1,9}))?)?"
    r"(?: ?(?P<zone>[A-Za-z+-]\S*))?)?"
)
_WORKERS_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3])(?::[0-5][0-9]){2}(?:\.[0-9]{6})?\+00:00")
"""The form in which workers write dates, thousands of them a second: Python reads it itself, several times as fast."""
_OFFSET = re.compile(r"([+-])([0-9]{2}):?([0-9]{2})")


def _date_of(parts: dict[str, str | None]) -> datetime:
    year, month = parts["year"] or "", parts["month"] or ""
    if len(year) != 4:
        raise ValueError(f"the year {year} needs four digits")
    if parts["second"] == "60":
        raise ValueError("a leap second cannot be kept; seconds end at 59")
    iso = month not in _MONTHS
    date = datetime(
        int(year),
        int(month) if iso else _MONTHS.index(month) + 1,
        int(parts["day"] or 0),
        int(parts["hour"] or 0),
        int(parts["minute"] or 0),
        int(parts["second"] or 0),
        int((parts.get("fraction") or "0").ljust(6, "0")[:6]),
        tzinfo=UTC if iso and parts["zone"] is None else _zone_of(parts["zone"]),
    )
    weekday = parts.get("weekday")
    if weekday and weekday != _WEEKDAYS[date.weekday()]:
        raise ValueError(f"that day is a {_WEEKDAYS[date.weekday()]}, not a {weekday}")
    return date.astimezone(UTC)


def _zone_of(text: str | None) -> timezone:
    if text in ("GMT", "UTC", "Z", "z"):
        return UTC
    offset = _OFFSET.fullmatch(text or "")
    if offset is None:
        given = f"the zone {text!r} is not exact" if text else "it has no zone"
        raise ValueError(f"{given}; end it with GMT or an offset such as +0100")
    sign, hours, minutes = offset.groups()
    if int(hours) > 23 or int(minutes) > 59:
        raise ValueError(f"there is no offset {text}")
    return timezone(timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1))


def format_date(date: datetime) -> str:
    """Return a UTC time as the server writes it: `Tue, 02 Apr 2013 10:29:13 GMT`."""
    return format_datetime(date.astimezone(UTC), usegmt=True)


def url_path(path: str) -> str:
    """Return a file's path for a URL. Bytes that are not UTF-8, lone surrogates in Python, are percent-encoded, too."""
    return quote(path, errors="surrogateescape")


def shown_path(path: str) -> str:
    """Return a file's path as text: bytes that are not UTF-8 are shown as U+FFFD."""
    return path if path.isascii() else path.encode(errors="surrogateescape").decode(errors="replace")


def dumps(value: Any) -> bytes:
    """Return JSON in UTF-8, with NaN and infinities as Python's `json` writes them."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def loads(text: str | bytes) -> Any:
    """Return the value of a JSON text, with NaN and infinities; ValueError names the fault and its place."""
    return json.loads(text)


def unstorable(value: Any, depth: int = 1) -> str | None:
    """Return why MongoDB cannot store a JSON value; None when it can."""
    if isinstance(value, str):
        return _bad_text(value)
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return None
    if isinstance(value, int):
        if -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
            return None
        return "an integer has at most 64 bits; send a larger one as a text"
    if not isinstance(value, (list, dict, Mapping)):  # a dict is found quicker than any mapping
        return None
    if depth > MAX_DEPTH:
        return f"it is nested deeper than {MAX_DEPTH} levels"
    if isinstance(value, list):
        return next((fault for each in value if (fault := unstorable(each, depth + 1))), None)
    return _bad_object(value, depth)


def _bad_object(value: Mapping[str, Any], depth: int) -> str | None:
    if "$ref" in value and "$id" in value and value.get("$db", "") is None:
        return "an object with the names '$ref' and '$id' cannot have null as '$db'"
    for name, each in value.items():
        fault = bad_name(name) or unstorable(each, depth + 1)
        if fault:
            return fault
    return None


def bad_name(name: str) -> str | None:
    """Return why a text cannot be the name of a field; None when it can."""
    if "\0" in name:
        return f"the name {name!r} contains a NUL byte"
    return _bad_text(name)


def _bad_text(text: str) -> str | None:
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"character {error.start} is half of a surrogate pair, which is no text"
    return None
