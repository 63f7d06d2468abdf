"""The part of a file that a request asks for, as RFC 9110 has it: `Range` and `If-Range`."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from banyan.wire import format_date

_BYTES = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.ASCII | re.IGNORECASE)
_STILL = timedelta(seconds=2)
"""A date with whole seconds names one content only if the file has not changed for so long."""


class Unsatisfiable(Exception):
    """None of the bytes that are asked for is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The headers `Range` and `If-Range` of a request, empty and None where they are missing."""

    range: str
    if_range: str | None


def span_of(asked: Asked, size: int, modified: datetime | None, now: datetime) -> tuple[int, int] | None:
    """Where the part begins and where it ends (exclusively), of a file of `size` bytes; None for the whole file.

    A header that is malformed, names another unit, or more than one range, asks for the whole file, and so does an
    `If-Range` that does not name just what is there now. Raises `Unsatisfiable`.
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
        return None  # all of it, and there is no way to write a range without bytes
    return max(0, size - int(length)), size


def _unchanged(named: str | None, modified: datetime | None, now: datetime) -> bool:
    """Whether the file is the one that `If-Range` names, if it names one; files have no entity tags."""
    if named is None:
        return True
    return modified is not None and named.strip() == format_date(modified) and now - modified >= _STILL
