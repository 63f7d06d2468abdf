"""Clients without a token, many at once: they hold no thread, and people and workers are served meanwhile."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from pymongo import MongoClient

from tests.support.server import Server, running
from tests.support.tls import Authority
from tests.support.waiting import eventually

RESOURCES = {"cores": 1, "memory": 2**30}
SECONDS = 30.0
HALF = b"GET /tasks HTTP/1.1\r\nHost: x\r\n"


FEW = {"BANYAN_SERVER__THREADS": "4", "BANYAN_LIMITS__REQUEST_SECONDS": "300"}


@pytest.fixture(scope="module")
def server(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of four threads that waits long for its clients."""
    directory = tmp_path_factory.mktemp("server")
    with running(mongo_uri, f"test_{directory.name}_strangers", directory, **FEW) as started:
        yield started


def place(server: Server) -> tuple[str, int]:
    return ("127.0.0.1", int(server.url.rpartition(":")[2]))


def connected(stack: ExitStack, server: Server, count: int, sent: bytes = b"") -> list[socket.socket]:
    """Connections that have sent so much, and stay."""
    clients = [stack.enter_context(socket.create_connection(place(server), timeout=SECONDS)) for _ in range(count)]
    for each in clients:
        each.sendall(sent)
    return clients


def headers(server: Server, user: str = "user") -> dict[str, str]:
    return {"Authorization": f"Bearer {server.token(user)}"}


def ask(server: Server) -> int:
    """The status of a user's request on a connection of its own."""
    return requests.get(f"{server.url}/tasks", headers=headers(server), timeout=SECONDS).status_code


def answer(client: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and the JSON of an answer after which the server closes."""
    received = b""
    try:
        while data := client.recv(1 << 16):
            received += data
    except ConnectionResetError:
        pass
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"Content-Type: application/json" in head
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize("sent", [b"", HALF, b"POST /tasks HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"])
def test_connections_without_a_whole_request_hold_nobody_up(server: Server, sent: bytes) -> None:
    with ExitStack() as stack:
        connected(stack, server, 300, sent)
        assert [ask(server) for _ in range(10)] == [200] * 10
    assert ask(server) == 200


def test_handshakes_that_do_not_go_on_hold_nobody_up(mongo_uri: str, database_name: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    shown = authority.vouch("server")
    tls = {"BANYAN_TLS__CERTIFICATE": str(shown.certificate), "BANYAN_TLS__KEY": str(shown.key)}
    with running(mongo_uri, database_name, tmp_path, authority.trust, **FEW, **tls) as secured, ExitStack() as stack:
        for sent in (b"", b"\x16\x03\x01\x02\x00\x01", HALF):
            connected(stack, secured, 100, sent)
        text = "x" * 300_000  # several records of TLS
        with secured.client("user") as client:
            ids = [client.submit({"command": "true", "metadata": {"text": text}})["_id"] for _ in range(3)]
            assert [client.task(id)["metadata"]["text"] for id in ids] == [text] * 3
        assert "Traceback" not in secured.log.read_text()


def test_bodies_that_do_not_come_hold_nobody_up_even_with_a_good_token(server: Server) -> None:
    head = f"POST /tasks HTTP/1.1\r\nAuthorization: Bearer {server.token('user')}\r\nContent-Length: 100\r\n\r\n{{"
    with ExitStack() as stack:
        connected(stack, server, 50, head.encode())
        assert [ask(server) for _ in range(10)] == [200] * 10


def test_strangers_that_do_not_read_their_answers_hold_nobody_up(server: Server) -> None:
    with ExitStack() as stack:
        for client in connected(stack, server, 12):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            client.settimeout(0.2)
            try:
                client.sendall(b"GET /tasks HTTP/1.1\r\nHost: x\r\n\r\n" * 5000)
            except OSError:
                continue
        assert [ask(server) for _ in range(10)] == [200] * 10


def test_claims_that_wait_leave_threads_for_requests(mongo_uri: str, database_name: str, tmp_path: Path) -> None:
    body = {"request": "r", "resources": RESOURCES, "max_tasks": 1, "held": [], "wait": 20}
    with (
        running(mongo_uri, database_name, tmp_path, **FEW) as server,
        server.client("worker") as worker,
        ThreadPoolExecutor(6) as pool,
    ):
        ids = [worker.register_worker({"name": f"w{n}", "resources": RESOURCES})["_id"] for n in range(6)]
        for id in ids:
            url = f"{server.url}/workers/{id}/claim"
            pool.submit(requests.post, url, json=body, headers=headers(server, "worker"), timeout=60)
        with MongoClient[dict[str, Any]](mongo_uri) as mongo:
            workers = mongo[database_name]["workers"]
            eventually(lambda: workers.count_documents({"claim_request": "r"}) == 4, show=lambda: list(workers.find()))
        assert [ask(server) for _ in range(10)] == [200] * 10
        server.process.terminate()


def test_a_claim_whose_worker_has_gone_takes_no_task(mongo_uri: str, database_name: str, tmp_path: Path) -> None:
    body = {"request": "r", "resources": RESOURCES, "max_tasks": 1, "held": [], "wait": 20}
    with (
        running(mongo_uri, database_name, tmp_path, **FEW) as server,
        server.client("worker") as worker,
        server.client("user") as provider,
    ):
        gone, stays = (
            worker.register_worker({"name": name, "resources": RESOURCES, "capabilities": ["shell"]})["_id"]
            for name in ("gone", "stays")
        )
        text = json.dumps(body).encode()
        head = f"POST /workers/{gone}/claim HTTP/1.1\r\nAuthorization: Bearer {server.token('worker')}\r\n"
        with socket.create_connection(place(server), timeout=SECONDS) as client:
            client.sendall(head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(text), text))
            with MongoClient[dict[str, Any]](mongo_uri) as mongo:
                workers = mongo[database_name]["workers"]
                eventually(lambda: workers.find_one({"claim_request": "r"}), show=lambda: list(workers.find()))
        task = provider.submit({"command": "true", "state": "available"})["_id"]
        assert [each["_id"] for each in worker.claim(stays, body)["tasks"]] == [task]


def test_a_body_is_asked_for_only_with_a_good_token(server: Server) -> None:
    text = b'{"command": "true"}'
    for token, first, status in ((server.token("user"), b"HTTP/1.1 100 Continue\r\n\r\n", 201), ("x" * 32, b"", 401)):
        head = f"POST /tasks HTTP/1.1\r\nAuthorization: Bearer {token}\r\nConnection: close\r\nExpect: 100-continue\r\n"
        with socket.create_connection(place(server), timeout=SECONDS) as client:
            client.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(text))
            if first:
                assert client.recv(len(first), socket.MSG_WAITALL) == first
                client.sendall(text)
            assert answer(client)[0] == status


def test_a_long_body_comes_whole_in_whatever_pieces(server: Server) -> None:
    task = {"command": "true", "metadata": {"text": "é" * 1_500_000}}
    data = json.dumps(task, ensure_ascii=False).encode()
    pieces = (data[start : start + 70_001] for start in range(0, len(data), 70_001))
    for body in (data, pieces):
        posted = requests.post(f"{server.url}/tasks", data=body, headers=headers(server), timeout=SECONDS)
        assert posted.status_code == 201, posted.text
        url = f"{server.url}/tasks/{posted.json()['_id']}"
        read = requests.get(url, headers=headers(server), timeout=SECONDS).json()
        assert read["metadata"] == task["metadata"]


TOKEN = b"secret-token-of-somebody"
MALFORMED = [
    (b"GET /tasks HTTP/1.1\r\nAuthorization: Bearer " + TOKEN + b"\0\r\n\r\n", 400),
    (b"GET /tasks HTTP/1.1\r\nAuthorization: Bearer " + TOKEN + b"\x7f\r\n\r\n", 400),
    (b"GET /tasks HTTP/1.1\r\nAuthorization Bearer " + TOKEN + b"\r\n\r\n", 400),
    (b"GET /tasks HTTP/1.1\r\nAuth\xe9: Bearer " + TOKEN + b"\r\n\r\n", 400),
    (b"GET /tasks HTTP/1.1\nHost: x\n\n", 400),
    (b"GET  /tasks HTTP/1.1\r\n\r\n", 400),
    (b"nonsense\r\n\r\n", 400),
    (b"\r\n\r\n\r\n\r\n", 400),
    (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
    (b"GET tasks HTTP/1.1\r\n\r\n", 400),
    (b"GET /tasks HTTP/1.1\r\nTransfer-Encoding: rot13\r\n\r\n", 501),
    (b"POST /tasks HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST /tasks HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", 400),
    (b"POST /tasks HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n{}", 400),
    (b"GET /tasks HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    (b"GET /tasks HTTP/1.1\r\nHost: x\r\n continued\r\n\r\n", 400),
    (b"GET /tasks HTTP/1.1\r\nExpect: the-unexpected\r\n\r\n", 417),
    (b"GET /tasks HTTP/3.0\r\n\r\n", 505),
    (b"GET /tasks HTTPS/1.1\r\n\r\n", 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    (b"get /tasks HTTP/1.1\r\n\r\n", 501),
    (b"BREW /tasks HTTP/1.1\r\nConnection: close\r\n\r\n", 401),
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
    (b"GET /tasks HTTP/1.1\r\nA: " + b"a" * 9000 + b"\r\n\r\n", 431),
    (b"GET /tasks HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
    (b"GET /tasks HTTP/1.1\r\nA: " + b"a" * 40_000, 431),
]


def test_whatever_a_client_sends_the_answer_is_json(server: Server) -> None:
    for sent, status in MALFORMED:
        with socket.create_connection(place(server), timeout=SECONDS) as client:
            client.sendall(sent)
            got, body = answer(client)
        assert (got, body["_status"], body["_error"]["code"]) == (status, "ERR", status), sent[:60]
        assert TOKEN.decode() not in body["_error"]["message"]
    assert "Traceback" not in server.log.read_text()
    assert TOKEN.decode() not in server.log.read_text()


def test_bad_bodies_of_known_users_are_refused_in_json(server: Server) -> None:
    head = f"POST /tasks HTTP/1.1\r\nAuthorization: Bearer {server.token('user')}\r\n".encode()
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    for sent, status in (
        (chunked + b"zz\r\n{}", 400),
        (chunked + b"2\r\n{}x\r\n", 400),
        (chunked + b"2;=\r\n{}\r\n0\r\n\r\n", 400),
        (chunked + b"2\r\n{}\r\n0\r\nAuthorization: x\r\n\r\n", 400),
        (chunked + b"1" * 9000, 400),
        (head + b"Content-Length: 999999999999\r\n\r\n", 413),
        (chunked + b"fffffffff\r\n", 400),
    ):
        with socket.create_connection(place(server), timeout=SECONDS) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            got, body = answer(client)
        assert (got, body["_status"], body["_error"]["code"]) == (status, "ERR", status), sent[-60:]


def test_refused_requests_have_their_turn_and_people_are_not_delayed(server: Server) -> None:
    with ExitStack() as stack:
        lines = [f"GET /tasks HTTP/1.1\r\nAuthorization: Bearer guess{n}\r\n\r\n" for n in range(1000)]
        clients = [stack.enter_context(socket.create_connection(place(server), timeout=SECONDS)) for _ in lines]
        for client, line in zip(clients, lines, strict=True):
            client.sendall(line.encode())
        assert [ask(server) for _ in range(10)] == [200] * 10
        assert {client.recv(12) for client in clients} == {b"HTTP/1.1 401"}
