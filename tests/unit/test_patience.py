"""How long a server reads, over a pair of sockets."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorn.http.errors import InvalidChunkSize

from banyan.api.patience import PatientReader, SoundReader


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's end and the server's."""
    client, server = socket.socketpair()
    with client, server:
        yield client, server


def test_what_is_there_is_read_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    reader = PatientReader(server, 60.0)
    client.sendall(b"GET /")
    assert (reader.chunk(), reader.gave_up) == (b"GET /", False)
    client.close()
    assert (reader.chunk(), reader.gave_up) == (b"", False)


def test_a_head_that_does_not_come_is_given_up(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    reader = PatientReader(server, 0.05)
    client.sendall(b"G" * 8192)  # a head gets no more time for what has come
    assert len(reader.chunk()) == 8192
    assert reader._left <= 0.05
    assert (reader.chunk(), reader.gave_up, server.gettimeout()) == (b"", True, None)


def test_a_body_has_longer_the_more_of_it_comes(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    reader = PatientReader(server, 0.01)
    reader.begin_body()
    client.sendall(b"x" * 8192)
    assert len(reader.chunk()) == 8192
    assert 8.0 < reader._left < 8.3
    reader.begin_head()
    assert reader._left == 0.01


def test_the_limit_of_another_is_kept(pair: tuple[socket.socket, socket.socket]) -> None:
    _, server = pair
    reader = PatientReader(server, 60.0)
    server.settimeout(0.01)
    with pytest.raises(TimeoutError):
        reader.chunk()
    assert server.gettimeout() == 0.01


def test_a_malformed_body_is_an_error_of_the_connection() -> None:
    class Broken:
        def read(self, size: int) -> Any:
            raise InvalidChunkSize(b"zz")

    with pytest.raises(ConnectionResetError, match="malformed"):
        SoundReader(Broken()).read(10)
