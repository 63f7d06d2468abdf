"""A worker at its start: what it says, whom it waits for, and whom it does not trust."""

import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from banyan.client import Client, Trust
from banyan.errors import BadRequest, Unavailable, Untrusted
from tests.support import processes
from tests.support.server import running
from tests.support.tls import Authority, Shown, answering, https, listening
from tests.support.waiting import eventually

NGINX = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
TLS_HANDSHAKE = b"\x16"
"""The first byte of one."""
TLS_HANDSHAKE = b"\x16"
MOVED = b"HTTP/1.1 301 Moved\r\nLocation: https://queue.test/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def worker(url: str, directory: Path, *arguments: str) -> "subprocess.Popen[str]":
    """A `banyan worker` that is expected to end by itself."""
    command = [sys.executable, "-m", "banyan", "worker", "--url", url, "--token", "secret", "--workdir", str(directory)]
    return subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True)


def context_of(shown: Shown) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.certificate, shown.key)
    return context


def test_a_worker_that_cannot_trust_its_server_ends_and_says_why(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    good, ca_file = authority.vouch("good"), ("--ca-file", str(authority.file))
    asking = context_of(good)
    asking.load_verify_locations(cafile=str(other.file))
    asking.verify_mode = ssl.CERT_REQUIRED
    with ExitStack() as stack:
        tls = stack.enter_context(https(good))
        cases = [
            (tls, ("--ca-file", str(other.file)), "name the file with its authority's certificate"),
            (tls, (), "name the file with its authority's certificate"),
            (stack.enter_context(https(authority.vouch("a", age_days=9, days=8))), ca_file, "must be renewed"),
            (stack.enter_context(https(authority.vouch("b", "elsewhere.test"))), ca_file, "use a name that is in"),
            (tls.replace("https:", "http:"), (), f"speaks HTTPS, not plain HTTP; its address is {tls}"),
            (f"https://localhost:{stack.enter_context(answering())}", ca_file, "perhaps it speaks plain HTTP"),
            (f"https://localhost:{stack.enter_context(answering(asking))}", ca_file, "asks for a client's certificate"),
            (f"http://localhost:{stack.enter_context(answering(answer=MOVED))}", (), "use that address"),
        ]
        workers = [worker(url, tmp_path / f"w{n}", *more) for n, (url, more, _) in enumerate(cases)]
        for (url, _, words), process in zip(cases, workers, strict=True):
            said = process.communicate(timeout=120)[1]
            assert (process.returncode, words in said) == (3, True), (url, said)


def test_a_worker_waits_for_a_server_that_is_merely_away_and_says_what_it_offers(
    mongo_uri: str, database_name: str, tmp_path: Path
) -> None:
    server = processes.server(tmp_path, "server", mongo_uri, database_name)
    server.start()
    server.wait_until_healthy()
    token = server.token("worker")
    server.stop()
    worker = processes.worker(
        tmp_path, "w", server.url, token, cores=2, BANYAN_LABELS='{"site": "nörth"}', BANYAN_QUEUES='["night", "day"]'
    )
    worker.start()
    try:
        eventually(lambda: "(trying again)" in worker.tail(), seconds=60, show=worker.tail)
        server.start()
        eventually(lambda: "registered as worker " in worker.tail(), seconds=90, show=worker.tail)
        assert "offers 2 cores, " in worker.tail()
        assert "queues: night, day; labels: site=nörth" in worker.tail()
        with server.client("admin") as client:
            (document,) = client.workers()
        assert f"registered as worker {document['_id']}, ready for tasks" in worker.tail()
    finally:
        worker.stop()
        server.stop()


def test_plain_http_on_a_port_of_tls_is_told_to_be_https(mongo_uri: str, database_name: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    shown = authority.vouch("server")
    settings = {"BANYAN_TLS__CERTIFICATE": str(shown.certificate), "BANYAN_TLS__KEY": str(shown.key)}
    with running(mongo_uri, database_name, tmp_path, authority.trust, **settings) as server:
        plain = server.url.replace("https:", "http:")
        with Client(plain, "secret") as client:
            for call in (client.queues, lambda: client.submit({"command": "true"}), client.health):
                with pytest.raises(
                    Untrusted, match=f"{plain} speaks HTTPS, not plain HTTP; its address is {server.url}"
                ):
                    call()
        assert server.healthy()


@contextmanager
def as_nginx_does(context: ssl.SSLContext) -> Iterator[int]:
    """The port of a server that speaks TLS and has an answer of its own for plain HTTP."""

    def answer(line: socket.socket) -> None:
        with suppress(OSError), line:
            if line.recv(1, socket.MSG_PEEK) == TLS_HANDSHAKE:
                context.wrap_socket(line, server_side=True).close()
            else:
                line.recv(65536)
                line.sendall(NGINX)

    with listening(answer) as port:
        yield port


def test_a_server_with_an_answer_of_its_own_for_plain_http_on_a_port_of_tls_is_told_to_be_https(
    tmp_path: Path,
) -> None:
    with as_nginx_does(context_of(Authority(tmp_path).vouch("server"))) as port:
        url = f"http://127.0.0.1:{port}"
        environment = {"PATH": "/usr/bin", "HOME": str(tmp_path), "BANYAN_URL": url, "BANYAN_TOKEN": "secret"}
        command = [sys.executable, "-m", "banyan", "list"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (
        3,
        f"banyan: the server at {url} speaks HTTPS, not plain HTTP; its address is {url.replace('http', 'https')}\n",
    )


def test_a_server_that_breaks_off_and_speaks_no_tls_is_not_told_to_be_https(tmp_path: Path) -> None:
    with answering(answer=b"") as port, Client(f"http://127.0.0.1:{port}", "secret", trust=Trust()) as client:
        with pytest.raises(Unavailable) as caught:
            client.submit({"command": "true"})
        assert type(caught.value) is Unavailable
    with (
        answering(answer=NGINX) as port,
        Client(f"http://127.0.0.1:{port}", "secret") as client,
        pytest.raises(BadRequest, match="answered with status 400"),
    ):
        client.queues()
