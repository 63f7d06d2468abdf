"""Bodies that would take much memory when they are parsed, at a real server: its size stays bounded, and goes back."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from tests.support.server import Server, running
from tests.support.waiting import eventually

MIB = 2**20
SECONDS = 120.0


@pytest.fixture
def server(mongo_uri: str, database_name: str, tmp_path: Path) -> Iterator[Server]:
    with running(mongo_uri, database_name, tmp_path) as started:
        yield started


def kibibytes(server: Server, name: str) -> int:
    """The sum of a line of `/proc/PID/status` over the server's processes."""
    texts = (Path(f"/proc/{process.pid}/status").read_text() for process in server.processes())
    return sum(int(text.partition(f"{name}:")[2].split()[0]) for text in texts)


def mebibytes(server: Server, name: str) -> float:
    return kibibytes(server, name) / 1024


def post(server: Server, body: bytes) -> requests.Response:
    headers = {"Authorization": f"Bearer {server.token('user')}", "Content-Type": "application/json"}
    return requests.post(f"{server.url}/tasks", data=body, headers=headers, timeout=SECONDS)


def filled(unit: bytes) -> bytes:
    """A list of nearly 16 MiB of such items."""
    return b"[" + unit * (15 * MIB // len(unit)) + unit[:-1] + b"]"


def test_bodies_of_many_values_are_refused_before_they_are_parsed(server: Server) -> None:
    before = mebibytes(server, "VmHWM")
    nested = b'{"command":"true","metadata":{"a":' + filled(b"[0],") + b"}}"
    spaced = filled(b'{"\\"":"[",  "b" : [ ] }\n,')
    for body in (*map(filled, (b"{},", b"[],", b"1,", b'"a,",', b'{"a":1},', b"1.5,")), nested, spaced):
        answer = post(server, body)
        assert (answer.status_code, "max_body_values" in answer.text) == (413, True), body[:50]
    assert mebibytes(server, "VmHWM") - before < 4 * 16
    assert post(server, b'{"command": "true", "metadata": {"text": "' + b",[{" * MIB + b'"}}').status_code == 201


def test_the_memory_of_large_bodies_is_bounded_and_given_back(server: Server) -> None:
    text = b'{"command":"true","metadata":{"a":[' + b'{"a":1},' * 490_000 + b"1]}}"
    few = json.dumps([{"command": "true", "env": {"A": "x" * 900}} for _ in range(9_999)]).encode()
    post(server, few)
    before = mebibytes(server, "VmRSS")
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda body: post(server, body), [text] * 6))
    assert {answer.status_code for answer in answers} == {201}
    assert mebibytes(server, "VmHWM") - before < 500
    eventually(lambda: mebibytes(server, "VmRSS") - before < 100, show=lambda: kibibytes(server, "VmRSS"))


def test_a_body_beyond_the_limit_is_refused_while_it_is_sent(server: Server) -> None:
    before = mebibytes(server, "VmHWM")

    def endless() -> Iterator[bytes]:
        while True:
            yield b"[" * MIB

    with suppress(requests.ConnectionError):  # the client may see that it is cut off before it sees the answer
        headers = {"Authorization": f"Bearer {server.token('user')}"}
        answer = requests.post(f"{server.url}/tasks", data=endless(), headers=headers, timeout=SECONDS)
        assert answer.status_code == 413
    assert post(server, b" " * (16 * MIB + 1)).status_code == 413
    assert mebibytes(server, "VmHWM") - before < 2 * 16
