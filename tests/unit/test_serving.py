"""The parts of the server that need no socket of HTTP: lanes, turns, chunks, bounds on connections."""

import socket
import threading
from collections.abc import Iterator

import pytest
from gunicorn.config import Config

from banyan.api.serving.admission import KnownTokens
from banyan.api.serving.connection import Connection, Phase
from banyan.api.serving.crowd import Crowd
from banyan.api.serving.incoming import Incoming
from banyan.api.serving.lanes import FairQueue, Lane
from banyan.api.serving.refusals import Refusal

CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_chunked_body_may_come_byte_by_byte() -> None:
    sent = b'3\r\nabc\r\nA;name="a;b"\r\n0123456789\r\n0\r\nA: b\r\n\r\nGET'
    for size in (1, 2, 3, 7, len(sent)):
        incoming, buffer = Incoming(Config(), CHUNKED, ("127.0.0.1", 1)), bytearray()
        for start in range(0, len(sent), size):
            buffer += sent[start : start + size]
            incoming.take(buffer, 100)
        assert (incoming.complete, incoming.body().read(), bytes(buffer)) == (True, b"abc0123456789", b"GET")
        incoming.close()


@pytest.mark.parametrize("sent", [b"", b"0", b"0\r\n", b"0\r\nA: b\r\n", b"3\r\nab", b"3\r\nabc", b"3\r\nabc\r\n"])
def test_a_chunked_body_without_its_end_is_not_complete(sent: bytes) -> None:
    incoming = Incoming(Config(), CHUNKED, ("127.0.0.1", 1))
    incoming.take(bytearray(sent), 100)
    assert not incoming.complete
    incoming.close()


@pytest.mark.parametrize(
    "sent", [b"+3\r\nabc", b"0x3\r\nabc", b" 3\r\nabc", b"3\nabc", b"3\r\nabcd\r\n", b"\r\n", b"3_0\r\n"]
)
def test_a_malformed_chunk_is_refused(sent: bytes) -> None:
    incoming = Incoming(Config(), CHUNKED, ("127.0.0.1", 1))
    with pytest.raises(Refusal, match="chunk"):
        incoming.take(bytearray(sent), 100)
    incoming.close()


def test_a_chunked_body_ends_at_the_limit() -> None:
    incoming = Incoming(Config(), CHUNKED, ("127.0.0.1", 1))
    with pytest.raises(Refusal, match="max_body_bytes"):
        incoming.take(bytearray(b"64\r\n" + b"x" * 100), 99)
    incoming.close()


def test_heavy_jobs_run_one_at_a_time_and_light_ones_together() -> None:
    lane = Lane("test", threads=4, budget=100)
    begun, gate, done = threading.Semaphore(0), threading.Event(), threading.Semaphore(0)
    running: list[int] = []
    seen: list[int] = []
    lock = threading.Lock()

    def job(weight: int) -> None:
        with lock:
            running.append(weight)
            seen.append(sum(running))
        begun.release()
        gate.wait(30)
        with lock:
            running.remove(weight)
        done.release()

    for weight in (40, 60, 500, 30):
        lane.submit(lambda weight=weight: job(weight), weight)  # type: ignore[misc]
    assert begun.acquire(timeout=30)
    assert begun.acquire(timeout=30)
    assert sorted(running) == [40, 60]
    gate.set()
    assert all(done.acquire(timeout=30) for _ in range(4))
    assert max(each for each in seen if each != 500) <= 100
    assert 500 in seen
    lane.close()


class From:
    def __init__(self, place: str) -> None:
        self.place = place


def test_each_address_has_its_turn_and_no_more_pass_than_may() -> None:
    now = [0.0]
    queue: FairQueue[From] = FairQueue(4.0, lambda: now[0])
    for place in ("a", "a", "a", "a", "a", "b"):
        queue.put(From(place))
    taken = [queue.take() for _ in range(5)]
    assert [each and each.place for each in taken] == ["a", "b", "a", "a", None]
    assert queue.wait_seconds == 0.25
    now[0] += 0.25
    assert (queue.take() or From("none")).place == "a"
    queue.give_back()
    assert (queue.take() or From("none")).place == "a"
    assert queue.take() is None
    assert queue.wait_seconds is None


def test_a_token_is_known_until_it_is_refused() -> None:
    good = {"Bearer x"}
    known = KnownTokens(good.__contains__)
    assert (known.has("Bearer x"), known.check("Bearer x"), known.has("Bearer x")) == (False, True, True)
    assert (known.check("Bearer y"), known.has("Bearer y")) == (False, False)
    known.forget("Bearer x")
    assert not known.has("Bearer x")


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    yield made
    for each in made:
        each.close()


def test_the_oldest_connection_of_an_address_makes_room_unless_it_has_shown_a_token(
    sockets: list[socket.socket],
) -> None:
    crowd = Crowd(most=6)

    def enter(place: str, *, proven: bool = False) -> Connection:
        here, there = socket.socketpair()
        sockets.append(there)
        connection = Connection(here, (place, 1), ("127.0.0.1", 2), Phase.IDLE, 0.0)
        crowd.add(connection)
        if proven:
            crowd.prove(connection)
        return connection

    cluster = [enter("nat", proven=True) for _ in range(20)]
    strangers = [enter("nat") for _ in range(5)]
    assert [each.phase for each in strangers] == [Phase.CLOSED] * 2 + [Phase.IDLE] * 3
    others = [enter("b"), enter("c"), enter("d"), enter("e")]
    assert [each.phase for each in strangers] == [Phase.CLOSED] * 3 + [Phase.IDLE] * 2
    assert {each.phase for each in (*cluster, *others)} == {Phase.IDLE}
    crowd.close_those(lambda each: True)
    assert crowd.by_fd == {}
