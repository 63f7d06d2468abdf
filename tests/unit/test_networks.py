"""The two networks below a client: each gives the same answers, and tells the same faults in the same way."""

import gc
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from banyan.network import BrokenAnswer, Network, NoAnswer, Request, UnusableAddress, names_proxy
from banyan.plain_http import PlainHttp, address_of
from banyan.requests_http import RequestsHttp
from banyan.trust import Trust

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Seen: yes\r\n\r\n{}"
Script = Callable[[socket.socket], None]
MAKERS: list[Callable[[str], Network]] = [
    lambda url: PlainHttp(),
    lambda url: RequestsHttp(url, Trust(), None, direct=True),
]


@pytest.fixture(params=MAKERS, ids=["plain", "requests"])
def make(request: pytest.FixtureRequest) -> Callable[[str], Network]:
    """Makes a network for an address."""
    made: Callable[[str], Network] = request.param
    return made


@contextmanager
def serving(*scripts: Script) -> Iterator[str]:
    """A server that does with each connection what the next script says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for script in scripts:
                with listener.accept()[0] as line:
                    script(line)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def request(url: str, method: str = "GET", data: bytes | None = None, seconds: float = 60) -> Request:
    return Request(method=method, url=url, data=data, headers={"X-Asked": "yes"}, read_seconds=seconds)


def received(line: socket.socket) -> bytes:
    """The head of a request."""
    text = b""
    while b"\r\n\r\n" not in text:
        text += line.recv(65536)
    return text


def answers(*texts: bytes) -> Script:
    """A script that answers request after request, and then closes the connection."""

    def script(line: socket.socket) -> None:
        for text in texts:
            received(line)
            line.sendall(text)

    return script


def test_a_request_has_its_query_and_headers_and_the_answer_its_own(make: Callable[[str], Network]) -> None:
    seen = []

    def script(line: socket.socket) -> None:
        seen.append(received(line).decode())
        line.sendall(OK)

    with serving(script) as url:
        network = make(url)
        asked = Request(
            method="GET",
            url=f"{url}/tasks/a%20b/\u00e9",
            query={"where": '{"a": "&ü"}', "n": "1"},
            headers={"X-Asked": "yes"},
            read_seconds=60,
        )
        answer = network.send(asked)
        network.close()
    assert (answer.status, answer.body, answer.headers.get("x-seen")) == (200, b"{}", "yes")
    assert seen[0].splitlines()[0] == ("GET /tasks/a%20b/%C3%A9?where=%7B%22a%22%3A+%22%26%C3%BC%22%7D&n=1 HTTP/1.1")
    assert "x-asked: yes" in seen[0].lower()
    assert "accept: application/json" in seen[0].lower()


@pytest.mark.parametrize(
    ("path", "query", "sent"),
    [
        ("/tasks?token=a%20b", None, "/tasks?token=a%20b"),
        ("/tasks?x=\u00e9&y", {"n": "1"}, "/tasks?x=%C3%A9&y&n=1"),
        ("/tasks?#part", None, "/tasks"),
        ("/tasks#part?x=1", {"n": "1"}, "/tasks?n=1"),
        ("?x=1", None, "/?x=1"),
    ],
)
def test_an_address_may_have_a_query_of_its_own(
    make: Callable[[str], Network], path: str, query: dict[str, str] | None, sent: str
) -> None:
    seen = []

    def script(line: socket.socket) -> None:
        seen.append(received(line).decode().splitlines()[0])
        line.sendall(OK)

    with serving(script) as url:
        network = make(url)
        network.send(Request(method="GET", url=f"{url}{path}", query=query, headers={}, read_seconds=60))
        network.close()
    assert seen == [f"GET {sent} HTTP/1.1"]


def test_what_cannot_be_read_is_named_without_its_query() -> None:
    with pytest.raises(UnusableAddress) as refused:
        PlainHttp().send(request("http://a b/tasks?token=secret"))
    assert str(refused.value) == "http://a b/tasks cannot be read"


def test_a_connection_is_used_again(make: Callable[[str], Network]) -> None:
    with serving(answers(OK, OK)) as url:
        network = make(url)
        assert [network.send(request(url)).status for _ in range(2)] == [200, 200]
        network.close()


def test_a_closed_idle_connection_is_replaced(make: Callable[[str], Network]) -> None:
    left = threading.Event()

    def first(line: socket.socket) -> None:
        answers(OK)(line)
        line.shutdown(socket.SHUT_RDWR)
        left.set()

    with serving(first, answers(OK)) as url:
        network = make(url)
        assert network.send(request(url)).status == 200
        assert left.wait(60)
        assert network.send(request(url)).status == 200
        network.close()


def test_an_answer_before_the_whole_body_was_sent_is_read(make: Callable[[str], Network]) -> None:
    def refuse(line: socket.socket) -> None:
        received(line)
        line.sendall(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        while line.recv(1 << 20):
            continue

    with serving(refuse) as url:
        network = make(url)
        assert network.send(request(url, "PUT", bytes(8 << 20))).status == 413
        network.close()


def test_no_server_is_told_as_nothing_sent(make: Callable[[str], Network]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(NoAnswer) as caught:
        make(url).send(request(url))
    assert (caught.value.cause, caught.value.sent) == ("connection refused", False)


def test_a_name_that_nobody_knows_is_told_as_nothing_sent(make: Callable[[str], Network]) -> None:
    with pytest.raises(NoAnswer) as caught:
        make("http://nowhere.invalid").send(request("http://nowhere.invalid"))
    assert not caught.value.sent


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (received, "remote end closed connection without response"),
        (answers(b"nonsense\r\n\r\n"), "nonsense"),
    ],
)
def test_a_server_without_an_answer_is_told_with_the_cause(
    make: Callable[[str], Network], script: Script, cause: str
) -> None:
    with serving(script) as url:
        network = make(url)
        with pytest.raises(NoAnswer) as caught:
            network.send(request(url))
        network.close()
    assert (caught.value.cause, caught.value.sent) == (cause, True)


def test_silence_is_borne_for_so_long(make: Callable[[str], Network]) -> None:
    gone = threading.Event()

    def silent(line: socket.socket) -> None:
        received(line)
        gone.wait(60)

    with serving(silent) as url:
        network = make(url)
        with pytest.raises(NoAnswer) as caught:
            network.send(request(url, seconds=0.2))
        gone.set()
        network.close()
    assert (caught.value.cause, caught.value.sent) == ("no answer in time", True)


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
    ],
)
def test_an_answer_that_breaks_off_is_no_answer(make: Callable[[str], Network], text: bytes) -> None:
    with serving(answers(text)) as url:
        network = make(url)
        with pytest.raises(BrokenAnswer):
            network.send(request(url))
        network.close()


def test_what_cannot_be_a_header_is_not_sent(make: Callable[[str], Network]) -> None:
    with serving(lambda line: None) as url:
        network = make(url)
        wrong = Request(method="GET", url=url, headers={"X": "a\r\nb: c"}, read_seconds=60)
        with pytest.raises(UnusableAddress):
            network.send(wrong)
        network.close()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))):
            pass


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("http://localhost:5000", ("localhost", 5000, "/")),
        ("http://LOCALHOST/a/b", ("localhost", 80, "/a/b")),
        ("http://[::1]:80", ("::1", 80, "/")),
        ("https://localhost", None),
        ("http://user@localhost", None),
        ("http://127.0.0.1:80@evil.example", None),
        ("http://localhost\\@evil.example", None),
        ("http://localhost:99999", None),
        ("http://localhost#@evil.example", None),
        ("http://ex\u00e4mple.org", None),
        (" http://localhost", None),
        ("http://localhost\n", None),
    ],
)
def test_only_addresses_that_all_programs_read_alike_are_read(url: str, read: tuple[str, int, str] | None) -> None:
    found = address_of(url)
    assert (found and (found.host, found.port, found.path)) == read


def test_a_proxy_in_the_environment_is_seen() -> None:
    assert names_proxy({"http_proxy": "http://p:3128"})
    assert names_proxy({"ALL_PROXY": "http://p:3128"})
    assert not names_proxy({"https_proxy": "http://p:3128"})


def test_connections_end_with_the_network_that_nobody_has_any_more(make: Callable[[str], Network]) -> None:
    ended = threading.Event()

    def until_it_ends(line: socket.socket) -> None:
        received(line)
        line.sendall(OK)
        if line.recv(1) == b"":
            ended.set()

    with serving(until_it_ends) as url:
        network = make(url)
        assert network.send(request(url)).body == b"{}"
        del network
        gc.collect()  # an unclosed socket would be a warning, and so an error
        assert ended.wait(60)
