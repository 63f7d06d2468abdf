"""The number of values in a JSON text, counted without parsing: parsed, each takes a hundred bytes and more."""

import re

_PIECE_BYTES = 1 << 16
_BACKSLASHES = re.compile(rb"\\*")
VALUE_BYTES = 100
"""The memory of a small parsed value in a list or an object, with its share of the container."""


def marks(text: bytes) -> int:
    """The number of commas and opening brackets, even in strings: values are at most one more."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def has_more_values(text: bytes, most: int) -> bool:
    """Return whether a JSON text has more than `most` values; a string counts as one, whatever its content."""
    if marks(text) < most:
        return False
    count, inside, start = 1, False, 0
    while start < len(text) and count <= most:
        end = _piece_end(text, start)
        piece = text[start:end].replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.split(b'"')
        count += sum(marks(part) for part in parts[1 if inside else 0 :: 2])
        inside ^= len(parts) % 2 == 0
        start = end
    return count > most


def _piece_end(text: bytes, start: int) -> int:
    """The end of a piece that separates no backslash from the character that it escapes."""
    end = start + _PIECE_BYTES
    if text[end - 1 : end] != b"\\":
        return end
    run = _BACKSLASHES.match(text, end)
    return (run.end() if run else end) + 1
