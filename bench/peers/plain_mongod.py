"""A mongod for peers that cannot log in: a standalone on a loopback port, with a directory of its own."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from banyan.errors import SetupError
from banyan.storage.embedded import free_port
from banyan.storage.mongod_binary import find_mongod
from bench.errors import Missing
from bench.processes import running

_CACHE_GIGABYTES = "0.5"


@contextmanager
def mongod() -> Iterator[int]:
    """Its port, as long as the block runs."""
    try:
        program = find_mongod()
    except SetupError as error:
        raise Missing(str(error)) from error
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="banyan-bench-") as name:
        home = Path(name)
        (home / "db").mkdir()
        command = [str(program), "--dbpath", str(home / "db"), "--bind_ip", "127.0.0.1", "--port", str(port)]
        command += ["--nounixsocket", "--wiredTigerCacheSizeGB", _CACHE_GIGABYTES]
        with running(command, log=home / "mongod.log", ready=lambda: answers(port)):
            yield port


def answers(port: int) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
