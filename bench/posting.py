"""How many tasks a second are accepted: validated, stored, answered."""

import json
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import requests

from banyan.storage.embedded import free_port
from bench import ours
from bench.peers import stock_eve
from bench.question import OURS, Answer, Question, Size, Target
from bench.turns import Contestant, Run, Watch, in_turns, once

_COUNTS = {Size.QUICK: 5_000, Size.FULL: 20_000}
_EVE_COUNTS = {Size.QUICK: 2_000, Size.FULL: 10_000}
_ROUNDS = {Size.QUICK: 3, Size.FULL: 5}
_PROFILED = 50_000
_LIST = 1_000
_SECONDS = 120
_SHOWN = 500
UNSERVED = "nobody"
"""A queue that no worker serves, so that what is posted stays where it is."""


def measure(size: Size) -> Answer:
    """Tasks accepted per second by ours and by stock Eve, on one MongoDB."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="banyan-bench-")))
        banyan = stack.enter_context(unserved(home))
        eve = stack.enter_context(stock_eve.served(banyan.mongo_uri, free_port(), home))
        shared: dict[str, Any] = {"rounds": _ROUNDS[size], "warm_up": _LIST}
        our_lists = partial(_posting, f"{banyan.client.url}/tasks", banyan.client_token)
        eves_lists = partial(_posting, f"{eve}/tasks", "")
        turns = in_turns(
            [
                Contestant(name=OURS, open=our_lists, count=_COUNTS[size], **shared),
                Contestant(name=stock_eve.NAME, open=eves_lists, count=_EVE_COUNTS[size], **shared),
            ]
        )
        return Answer(unit="tasks/s", series=turns.series, details=turns.details)


def _again(watch: Watch) -> None:
    with tempfile.TemporaryDirectory(prefix="banyan-bench-") as name, unserved(Path(name)) as banyan:
        ours_alone = partial(_posting, f"{banyan.client.url}/tasks", banyan.client_token)
        once(ours_alone, _PROFILED, _LIST)(watch)


@contextmanager
def unserved(home: Path) -> Iterator[ours.Ours]:
    """Our stack with a worker that serves other queues than `UNSERVED`."""
    config = home / "worker.toml"
    config.write_text('queues = ["served"]\n')
    with ours.up("--worker-config", str(config)) as banyan:
        banyan.admin.add_queue({"name": UNSERVED})
        yield banyan


@contextmanager
def _posting(url: str, token: str) -> Iterator[Run]:
    """Lists one after the other over one connection; the bodies are made before."""
    with requests.Session() as session:
        session.auth = (token, "") if token else None
        session.headers["Content-Type"] = "application/json"

        def run(count: int, watch: Watch) -> float:
            tag = uuid.uuid4().hex
            bodies = [
                json.dumps([_task(start + i, tag) for i in range(_LIST)]).encode() for start in range(0, count, _LIST)
            ]
            accepted = 0
            with watch:
                for body in bodies:
                    answer = session.post(url, data=body, timeout=_SECONDS)
                    ours.require(answer.status_code == requests.codes.created, f"{url} answered {answer.text[:_SHOWN]}")
                    accepted += len(answer.json()["_items"])
            stored = session.get(url, params={"where": json.dumps({"tags": tag}), "max_results": "1"}, timeout=_SECONDS)
            total = stored.json()["_meta"]["total"]
            ours.require(
                accepted == total == count, f"{url}: {accepted} of {count} tasks were accepted, {total} stored"
            )
            return count / watch.seconds

        yield run


def _task(number: int, tag: str) -> dict[str, Any]:
    """A task as people post them, with something in most of its fields."""
    return {
        "name": f"wing-{number}",
        "command": ["python", "wing.py", "--angle", str(number)],
        "tags": ["wing", tag],
        "metadata": {"project": "wing", "angle": number / 10},
        "env": {"WING_DATA": "/data/wing"},
        "queue": UNSERVED,
        "priority": number % 10,
        "requested_resources": {"cores": 2, "memory": "1 GiB"},
        "timeout": "2h",
        "max_retry_count": 2,
        "state": "available",
    }


QUESTION = Question(
    name="posting",
    text="tasks posted through `/tasks` in lists of 1,000, fully validated",
    conditions=(
        f"{ours.CONDITIONS}; the worker serves another queue. 20,000 tasks of 11 fields (quick: 5,000), one list "
        "after the other over one connection. Stock Eve: half as many, the same schema and kinds of fields, the "
        "same MongoDB, the same WSGI server with one process; no users, its own write concern (w=1), no edges, no"
        " classes, no transaction"
    ),
    targets=(Target(text="at least 6x stock Eve", relative_to=stock_eve.NAME, floor=True, at_least=6),),
    measure=measure,
    again=_again,
)
