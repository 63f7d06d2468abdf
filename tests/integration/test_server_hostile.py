"""Clients that do not speak HTTP as they should, over sockets: each is answered or left, and holds nothing up."""

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.server import Server, running

TASK = '{"command": "true"}'
LENGTH = f"Content-Type: application/json\r\nContent-Length: 19\r\n\r\n{TASK}"
CHUNKED = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
HEALTH = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits a second for a request."""
    limits = {"BANYAN_LIMITS__REQUEST_SECONDS": "1", "BANYAN_LIMITS__MAX_BODY_BYTES": "200000"}
    directory = tmp_path_factory.mktemp("server")
    with running(mongo_uri, f"test_{directory.name}_hostile", directory, **limits) as started:
        yield started


def statuses(server: Server, *pieces: str | bytes, ended: bool = False) -> list[int]:
    """The statuses of all answers on one connection, until the server closes it."""
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30) as client:
        for piece in pieces:
            try:
                client.sendall(piece.encode("latin-1") if isinstance(piece, str) else piece)
            except OSError:
                break  # it has closed already
        if ended:
            client.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while data := client.recv(1 << 16):
                received += data
        except ConnectionResetError:
            pass
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def post(server: Server, rest: str) -> str:
    token = json.loads(server.credentials.read_text())["user"]
    return f"POST /tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n{rest}"


def test_a_body_that_is_not_what_its_head_says_is_refused(server: Server) -> None:
    assert statuses(server, post(server, LENGTH)) == [201]
    assert statuses(server, post(server, CHUNKED), "13\r\n", TASK, "\r\n0\r\n\r\n") == [201]
    for broken in (
        "zz\r\n{}",
        "2\r\n{}xx0\r\n\r\n",
        "2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
        "2\r\n{}\r\n0\r\nfoo\r\n\r\n",
        "-1\r\n",
    ):
        assert statuses(server, post(server, CHUNKED), broken) == [400], broken
    trailers = "2\r\n{}\r\n0\r\n" + "a: b\r\n" * 200 + "\r\n"
    assert statuses(server, post(server, CHUNKED), trailers) == [431]
    assert statuses(server, post(server, CHUNKED), f"20\r\n{TASK}", ended=True) == [400]
    assert statuses(server, post(server, LENGTH.replace("19", "20")), ended=True) == [400]
    assert statuses(server, post(server, "Transfer-Encoding: gzip, chunked\r\n\r\n"), "0\r\n\r\n") == [400]


@pytest.mark.parametrize("length", ["-2", "9" * 5000, "0x2", "\xb2", "2, 2", "1\r\nContent-Length: 2", " 2\r\n 3"])
def test_a_length_that_is_none_is_refused(server: Server, length: str) -> None:
    assert statuses(server, post(server, f"Content-Length: {length}\r\n\r\n{{}}")) == [400]


def test_a_body_without_end_is_cut_off(server: Server) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    assert statuses(server, post(server, CHUNKED), *[chunk] * 20)[:1] == [413]
    assert statuses(server, post(server, f"Content-Length: {'9' * 30}\r\n\r\n"), *[b" " * 65536] * 20)[:1] == [413]
    nobody = f"POST /tasks HTTP/1.1\r\nHost: x\r\n{CHUNKED}"
    assert statuses(server, nobody, *[chunk] * 20)[:1] == [401]


def test_heads_are_limited(server: Server) -> None:
    head = "GET /health HTTP/1.1\r\nHost: x\r\n"
    for request, status in (
        (f"GET /{'a' * 10_000} HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (f"{head}A: {'a' * 10_000}\r\n\r\n", 431),
        (head + "A: b\r\n" * 1000 + "\r\n", 431),
        (head + "A: b\r\n" * 500_000, 431),
        (f"{head}A: a\x00b\r\n\r\n", 400),
        (f"{head}A : b\r\n\r\n", 400),
        (f"{head}Host: y\r\n\r\n", 400),
        ("GET /health HTTP/9.9\r\nHost: x\r\n\r\n", 505),
        ("GET /he alth HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("\x16\x03\x01\x02\n\r\n\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 401),
        ("CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 401),
    ):
        assert statuses(server, request) == [status], request[:60]


def test_requests_on_one_connection_are_kept_apart(server: Server) -> None:
    assert statuses(server, HEALTH * 5 + LAST) == [200] * 6
    hidden = f"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Length: {len(HEALTH)}\r\n\r\n{HEALTH}"
    assert statuses(server, hidden + LAST) == [401, 200]
    both = "POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert statuses(server, both + LAST) == [400]


def test_no_header_says_under_which_path_the_server_is(server: Server) -> None:
    for header in ("SCRIPT_NAME: /zzz", "SCRIPT_NAME: /health", "PATH_INFO: /tasks", "X-Original-URL: /tasks"):
        assert statuses(server, LAST.replace("\r\n\r\n", f"\r\n{header}\r\n\r\n")) == [200], header


def test_who_sends_slowly_or_nothing_is_left(server: Server) -> None:
    slow = [
        ("GET /hea",),
        ("GET /health HTTP/1.1\r\n",),
        (post(server, LENGTH[:-1]),),
        (post(server, CHUNKED), "13\r\n{"),
        (HEALTH, "GET /hea"),
    ]
    with ThreadPoolExecutor(len(slow)) as pool:
        answers = list(pool.map(lambda pieces: statuses(server, *pieces), slow))
    assert answers == [[408], [408], [408], [408], [200, 408]]


def test_slow_clients_do_not_keep_others_out(mongo_uri: str, database_name: str, tmp_path: Path) -> None:
    few = {"BANYAN_SERVER__THREADS": "4", "BANYAN_LIMITS__REQUEST_SECONDS": "1"}
    with running(mongo_uri, database_name, tmp_path, **few) as server:
        place = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        slow = [socket.create_connection(place) for _ in range(12)]
        for number, each in enumerate(slow):
            each.sendall(b"GET /hea" if number % 2 else LAST.encode())
        assert statuses(server, LAST) == [200]
        for each in slow:
            each.close()


def test_after_all_that_the_server_serves(server: Server) -> None:
    assert server.healthy()
    log = (server.credentials.parent / "log").read_text()
    assert "Traceback" not in log
