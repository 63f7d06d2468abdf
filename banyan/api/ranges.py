"""The part of a file that a request names, by RFC 9110: `Range` and `If-Range`."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from banyan.wire import format_date

_BYTES = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.ASCII | re.IGNORECASE)
_STILL = timedelta(seconds=2)
"""The time without a change after which a date with whole seconds identifies one content."""


class Unsatisfiable(Exception):
    """No requested byte exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The headers `Range` and `If-Range` of a request, empty and None where they are missing."""

    range: str
    if_range: str | None


def span_of(asked: Asked, size: int, modified: datetime | None, now: datetime) -> tuple[int, int] | None:
    """The start and the end (exclusive) of the part, of a file of `size` bytes; None for the whole file.

    A header that is malformed, or names another unit or more than one range, requests the whole file, and so does an
    `If-Range` that does not name the present content. Raises `Unsatisfiable`.
    """
    span = _BYTES.fullmatch(asked.range)
    if span is None or not _unchanged(asked.if_range, modified, now):
        return None
    first, last = span.groups()
    if not first:
        return _suffix(last, size)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise Unsatisfiable
    return int(first), min(int(last) + 1, size) if last else size


def _suffix(length: str, size: int) -> tuple[int, int] | None:
    if not length:
        return None
    if int(length) == 0:
        raise Unsatisfiable
    if size == 0:
        return None  # the whole file: a range without bytes cannot be written
    return max(0, size - int(length)), size


def _unchanged(named: str | None, modified: datetime | None, now: datetime) -> bool:
    """Return whether the file is the one that `If-Range` names, if it names one; files have no entity tags."""
    if named is None:
        return True
    return modified is not None and named.strip() == format_date(modified) and now - modified >= _STILL
