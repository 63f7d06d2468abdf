"""The output of an ended task: the tails of its streams, its progress, its result."""

import json
import os
import time
from typing import Any, BinaryIO

from banyan import beneath
from banyan.wire import MAX_MESSAGE, MAX_RESULT_BYTES, dumps, unstorable
from worker.events import Document

MAX_PROGRESS_BYTES = 16 * 1024
_STEP = 1 << 16
"""The bytes of a stream that are read at once."""
COUNT_SECONDS = 60.0
"""The time limit for counting the files of a task, so that its end is reported soon."""


class Malformed(ValueError):
    """A file or line that a task wrote for the worker and that cannot be used; the text says why."""


def tail(path: str, limit: int) -> tuple[str, int]:
    """Return the last `limit` bytes of a stream as text, and its whole size; nothing if there is no such file."""
    try:
        if os.lstat(path).st_size == 0:
            return "", 0  # as most of them are
        descriptor = beneath.open_at(path)
        try:
            size = os.fstat(descriptor).st_size
            return os.pread(descriptor, limit, max(0, size - limit)).decode(errors="replace"), size
        finally:
            os.close(descriptor)
    except OSError:
        return "", 0


def total_bytes(work: str) -> int | None:
    """Return the size of all regular files in a work directory; None where counting them takes too long."""
    try:
        if not os.listdir(work):
            return 0  # as most of them are
    except OSError:
        return 0
    total, deadline = 0, time.monotonic() + COUNT_SECONDS
    for _, status in beneath.regular_files(work):
        total += status.st_size
        if time.monotonic() > deadline:
            return None
    return total


def progress(path: str) -> Document | None:
    """Read a task's progress: `fraction` (0 to 1), `message`, both optional; None if there is none.

    Malformed if it is anything else.
    """
    text = _read(path, MAX_PROGRESS_BYTES)
    if not text.strip():
        return None
    said = _parsed(text, "progress")
    if not isinstance(said, dict) or not said.keys() <= {"fraction", "message"}:
        raise Malformed('progress: it must be like {"fraction": 0.5, "message": "half way"}')
    fraction, message = said.get("fraction"), said.get("message")
    if fraction is not None and (
        isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1
    ):
        raise Malformed(f"progress: the fraction must be a number between 0 and 1, not {str(fraction)[:40]}")
    if message is not None and not isinstance(message, str):
        raise Malformed("progress: the message must be a text")
    if message is not None and len(message) > MAX_MESSAGE:
        raise Malformed(f"progress: the message has more than {MAX_MESSAGE} characters")
    return {name: value for name, value in said.items() if value is not None}


def result(path: str, work: str | None) -> Document:
    """Read a task's result: `{"result": value}`, or `{"result_file": path}` when it is large, or `{}`.

    A large one is moved into the work directory as `result.json`. Malformed unless it is JSON that can be stored.
    """
    if not os.path.lexists(path):
        return {}
    try:
        descriptor = beneath.open_at(path)
    except OSError:
        return {}
    size = os.fstat(descriptor).st_size
    os.close(descriptor)
    if size > MAX_RESULT_BYTES:
        if work is None:
            raise Malformed(f"result: {size} bytes are too many for a task without a work directory")
        parent, name = os.path.split(path)
        with beneath.directory(parent) as said, beneath.directory(work) as kept:
            os.rename(name, "result.json", src_dir_fd=said, dst_dir_fd=kept)
        return {"result_file": "result.json"}
    text = _read(path, MAX_RESULT_BYTES)
    return {"result": _parsed(text, "result")} if text.strip() else {}


def printed_result(stdout: str, work: str | None, spare: str) -> Document:
    """Read the last non-blank line of a stream as a result; `spare` is a file that a long one is copied to.

    Malformed unless it is JSON that can be stored.
    """
    try:
        descriptor = beneath.open_at(stdout)
    except OSError:
        return {}
    with open(descriptor, "rb") as file:
        start, end = _last_line(file, os.fstat(descriptor).st_size)
        file.seek(start)
        if end - start > MAX_RESULT_BYTES:
            _copy(file, end - start, spare)
            return result(spare, work)
        text = file.read(end - start).decode(errors="replace")
    return {"result": _parsed(text, "result, the last line of stdout")} if text else {}


def _last_line(file: BinaryIO, size: int) -> tuple[int, int]:
    """Return the begin and the end of the last non-blank line."""
    end = start = size
    found = False
    while start > 0:
        step = min(start, _STEP)
        start -= step
        file.seek(start)
        part = file.read(step)
        if not found:
            kept = part.rstrip()
            end, found = start + len(kept), bool(kept)
            part = kept
        if found and (line_end := part.rfind(b"\n")) >= 0:
            return start + line_end + 1, end
    return 0, end if found else 0


def _copy(file: BinaryIO, count: int, path: str) -> None:
    """Copy so many bytes to a new file."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as target:
        while count and (part := file.read(min(count, _STEP))):
            target.write(part)
            count -= len(part)


def _read(path: str, limit: int) -> str:
    if not os.path.lexists(path):
        return ""
    try:
        with open(beneath.open_at(path), "rb") as file:
            return file.read(limit + 1)[:limit].decode(errors="replace")
    except OSError:
        return ""


def _parsed(text: str, what: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{what}: {error}") from error
    if fault := unstorable(value):
        raise Malformed(f"{what}: {fault}")
    if len(dumps(value)) > 2 * MAX_RESULT_BYTES:
        raise Malformed(f"{what}: its numbers, written out, take more than {2 * MAX_RESULT_BYTES} bytes")
    return value
