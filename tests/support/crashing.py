"""A process that does something with the real server code and may be told to die in it.

It (`python -m tests.support.crashing`) reads orders from standard input, a JSON object a line: `uri`, `database`,
`scenario` (its name in `tests.faults.scenarios`), `state` (what that prepared), `tokens` (by role), `seconds` (how far
ahead its clock is), `point` (where to die, or null). For each it forks, so that the code is imported once; the child
connects, acts, and tells through a pipe what it passes. The parent answers with a line: how the child ended (`status`),
and in order the points that it passed (`point`), who wrote (`site`, also within transactions), the lines of the storage
that did (`line`), and an `error`.
"""

import os
import sys
import traceback
from contextlib import suppress
from functools import cached_property
from json import dumps, loads
from pathlib import Path
from types import FrameType
from typing import Any

from bson import json_util
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from banyan.api.app import create_app
from banyan.config import Leases, Models, ServerSettings
from banyan.queue.context import Context
from banyan.queue.hub import Hub
from banyan.storage.mongo import Storage
from tests.support.clock import moved
from tests.support.fail_points import Points, stop_at

Document = dict[str, Any]


class Server:
    """The server's code in this process, with the tokens of its users by role."""

    def __init__(self, context: Context, tokens: dict[str, str]) -> None:
        self.context = context
        self._tokens = tokens

    @cached_property
    def _client(self) -> FlaskClient:
        client: FlaskClient = create_app(self.context).test_client()
        return client

    def call(self, method: str, path: str, json: Any = None, role: str = "provider", **more: Any) -> TestResponse:
        """Send a request; AssertionError if it is not answered well."""
        headers = {"Authorization": f"Bearer {self._tokens[role]}", **more.pop("headers", {})}
        if json is not None:
            more |= {"data": dumps(json, default=str), "content_type": "application/json"}
        answer = self._client.open(path, method=method, headers=headers, **more)
        if answer.status_code >= 300:
            raise AssertionError(f"{method} {path}: {answer.status_code} {answer.get_data(as_text=True)}")
        return answer


LEASES = Leases(heartbeat=200, lost_after=450)
"""So long that on a busy machine nothing becomes due between the beginning of a scenario and its end."""


def context_of(storage: Storage) -> Context:
    """A server's context in which nothing happens by itself."""
    return Context(storage=storage, hub=Hub(storage), settings=ServerSettings(models=Models(path=()), leases=LEASES))


def main() -> None:
    """Obey until there are no more orders."""
    from tests.faults.scenarios import SCENARIOS  # imports this module for `Server`

    acts = {scenario.name: scenario.act for scenario in SCENARIOS}
    for line in sys.stdin:
        order = json_util.loads(line)
        told, tell = os.pipe()
        child = os.fork()
        if not child:
            os.close(told)
            _act(order, acts[order["scenario"]], tell)
        os.close(tell)
        with os.fdopen(told) as answer:
            lines = answer.read().splitlines()
        status = os.waitpid(child, 0)[1]
        print(dumps({**_sorted(lines), "status": os.waitstatus_to_exitcode(status)}), flush=True)


def _act(order: Document, act: Any, tell: int) -> None:
    """What the child does, and nothing after that."""
    try:
        die = stop_at(order["point"]) if order["point"] else None

        def passed(name: str, frame: FrameType | None) -> None:
            within(name, frame)
            _tell(tell, "point", name)
            if die is not None:
                die(name, frame)

        def within(name: str, frame: FrameType | None) -> None:
            _tell(tell, "site", name)
            if frame is not None:
                _tell(tell, "line", f"{Path(frame.f_code.co_filename).stem}:{frame.f_lineno}")

        storage = Storage.connect(order["uri"], order["database"], [Points(passed, within)])
        moved(storage).seconds = order["seconds"]
        act(Server(context_of(storage), order["tokens"]), order["state"])
    except BaseException:  # noqa: BLE001 - the parent is told, and nothing of its own may run here
        _tell(tell, "error", traceback.format_exc())
        os._exit(1)
    os._exit(0)


def _tell(tell: int, kind: str, text: str) -> None:
    with suppress(BrokenPipeError):
        os.write(tell, f"{dumps([kind, text])}\n".encode())


def _sorted(lines: list[str]) -> Document:
    told: dict[str, list[str]] = {"point": [], "site": [], "line": [], "error": []}
    for line in lines:
        kind, text = loads(line)
        told[kind].append(text)
    return told


if __name__ == "__main__":
    main()
