"""The number of values in a JSON text, counted without parsing it: parsed, each takes a hundred bytes and more."""

import re

_PIECE_BYTES = 1 << 16
_BACKSLASHES = re.compile(rb"\\*")
VALUE_BYTES = 100
"""What a small value in a list or an object takes when it is parsed, with its part of what holds it."""


def marks(text: bytes) -> int:
    """How many commas and opening brackets there are, also in strings: values are at most one more."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def has_more_values(text: bytes, most: int) -> bool:
    """Whether a JSON text has more than `most` values; strings count as one, whatever is in them."""
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
    """The end of a piece that parts no backslash from what it escapes."""
    end = start + _PIECE_BYTES
    if text[end - 1 : end] != b"\\":
        return end
    run = _BACKSLASHES.match(text, end)
    return (run.end() if run else end) + 1
