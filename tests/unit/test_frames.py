"""Messages between processes: what is ours comes through as it was, what is not ours is read with care."""

import json
import marshal

import pytest

from banyan import frames


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "little") + body


def test_messages_come_through_in_pieces_of_any_size() -> None:
    messages = [("run", 1, {"a": [1.5, None, True, "\ud800", b"\0"]}), ("drop", "x")]
    data = frames.pack(messages) + frames.pack([("end",)])
    unpacker = frames.Unpacker()
    heard = [message for at in range(len(data)) for message in unpacker.feed(data[at : at + 1])]
    assert heard == [*messages, ("end",)]


def test_what_a_host_says_is_json() -> None:
    said = [["ended", 1, {"result": '{"x": NaN}', "error": "\ud800"}, 5, False, 0.25, True], ["ready", 7, 1e-3]]
    heard = frames.Unpacker(frames.foreign).feed(framed(json.dumps(said).encode()))
    assert list(map(list, heard)) == said


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"[",
            b"nonsense",
            b"{}",
            b"[1]",
            b"[[]]",
            b'"text"',
            b"\xff",
            b"[" * 100_000,
            b"[[" + b"1" * 10_000 + b"]]",
        ),
        marshal.dumps([("ready", 1)]),
    ],
)
def test_anything_else_is_nonsense(body: bytes) -> None:
    with pytest.raises(frames.Nonsense):
        frames.Unpacker(frames.foreign).feed(framed(body))


def test_an_endless_frame_is_nonsense_at_once() -> None:
    with pytest.raises(frames.Nonsense, match="a frame of 4294967295 bytes"):
        frames.Unpacker(frames.foreign).feed(b"\xff\xff\xff\xff")
