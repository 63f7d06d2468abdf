"""A stand-in server for tests of the client's side: it answers as told and remembers what it was asked."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as the server saw it."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Said:
    """One answer: a status, and a body that is bytes or becomes JSON."""

    status: int
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()


class RecordedApp:
    """A WSGI app that gives the answers of a list, one after the other; the last one is for all that follow."""

    def __init__(self, *answers: Said) -> None:
        self.asked: list[Asked] = []
        self._answers = list(answers)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/health" and "HTTP_AUTHORIZATION" not in environ:
            start_response("200 OK", [("Content-Length", "2")])  # a slow command asks how the server is
            return [b"{}"]
        length = int(environ.get("CONTENT_LENGTH") or 0)
        headers = {name[5:].replace("_", "-").title(): value for name, value in environ.items() if name[:5] == "HTTP_"}
        self.asked.append(
            Asked(
                method=environ["REQUEST_METHOD"],
                path=environ["PATH_INFO"],
                query={name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()},
                headers=headers,
                body=environ["wsgi.input"].read(length) if length else b"",
            )
        )
        said = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        body = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
        start_response(f"{said.status} Said", [("Content-Length", str(len(body))), *said.headers])
        return [body]


class _Quiet(WSGIRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def served(app: RecordedApp) -> Iterator[str]:
    """Serve `app` on a free port of this machine; yields its address."""
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
