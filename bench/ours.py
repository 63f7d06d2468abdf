"""Banyan as a user would start it: `banyan up` with real processes on this machine, and clients."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from banyan.client import Client
from bench.errors import Incomplete
from bench.places import fresh_place
from bench.processes import cpu_seconds, running

Document = dict[str, Any]

CONDITIONS = (
    "`banyan up` with its defaults: embedded MongoDB (a replica set of one node; each write journaled and confirmed "
    "by the majority), one server process, one worker with all cores, heartbeat 20 s, usage sampled each second; "
    "one client"
)
MOST_IN_A_LIST = 10_000
"""`limits.max_list_items`."""

_LONGEST_SECONDS = 900.0
_LEAST_PAUSE = 0.01
_OTHERS = ("BANYAN_", "XDG_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """A Banyan that runs: a provider's client with its token, an administrator's client, and its processes."""

    client: Client
    client_token: str
    admin: Client
    mongo_uri: str
    pids: Mapping[str, Any]
    data: Path

    def cpu_seconds(self) -> dict[str, float]:
        """The CPU time of each part so far; that of tasks that have ended is the worker's."""
        server = self.pids["server"][0]
        parts = {"mongod": self.pids["mongod"], "server": server, "worker": self.pids["worker"]}
        return {name: cpu_seconds(pid) for name, pid in parts.items()} | {"client": time.process_time()}

    @contextmanager
    def counting(self, parts: list[dict[str, float]]) -> Iterator[None]:
        """Append to `parts` the CPU time that each part took in the block, and the block's own time as `wall`."""
        before, begun = self.cpu_seconds(), time.perf_counter()
        yield
        wall, after = time.perf_counter() - begun, self.cpu_seconds()
        parts.append({name: after[name] - before[name] for name in after} | {"wall": wall})


@contextmanager
def up(*options: str, env: Mapping[str, str] | None = None) -> Iterator[Ours]:
    """`banyan up OPTIONS` on a free port; what its tasks leave is there until this program ends."""
    home = fresh_place()
    data, log = home / "data", home / "up.log"
    command = [sys.executable, "-m", "banyan", "up", "--json", "--port", "0", "--data", str(data), *options]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_OTHERS)}
    environment = {**kept, "HOME": str(home), **(env or {})}
    with running(command, log=log, ready=lambda: _ready(log), env=environment):
        told = _ready(log)
        with (
            Client(told["url"], told["provider_token"]) as client,
            Client(told["url"], told["admin_token"]) as admin,
        ):
            yield Ours(
                client=client,
                client_token=told["provider_token"],
                admin=admin,
                mongo_uri=told["mongo_uri"],
                pids=told["pids"],
                data=data,
            )
    shutil.rmtree(data / "mongo", ignore_errors=True)  # few files, and large


def _ready(log: Path) -> Document:
    """What `banyan up --json` says once it is ready; empty before."""
    found = [line for line in log.read_text().splitlines(keepends=True) if line.startswith('{"url"')]
    return dict(json.loads(found[0])) if found and found[0].endswith("\n") else {}


def submit(client: Client, tasks: Sequence[Document]) -> list[str]:
    """Post tasks in lists as long as they may be; their ids, in order."""
    ids: list[str] = []
    for start in range(0, len(tasks), MOST_IN_A_LIST):
        ids += [str(answer["_id"]) for answer in client.submit(tasks[start : start + MOST_IN_A_LIST])]
    return ids


def wait_until_ended(client: Client, where: Document, count: int, most_pause: float = 0.5) -> None:
    """Return soon after `count` tasks that match have ended.

    It asks the seldomer the longer it will take, but after `most_pause` seconds in any case: tasks that end all at once
    are not foreseen.
    """
    condition = {**where, "state": {"$in": ["terminated", "cancelled"]}}
    begun = none = time.monotonic()
    while (ended := client.tasks(condition, projection=["state"], max_results=1).total) < count:
        now = time.monotonic()
        if now - begun > _LONGEST_SECONDS:
            raise Incomplete(f"{ended} of {count} tasks have ended after {now - begun:.0f} s")
        none = none if ended else now
        remaining = (now - none) * (count - ended) / ended if ended else (now - begun) / 2
        time.sleep(min(max(remaining / 2, _LEAST_PAUSE), most_pause))


def ended_well(client: Client, where: Document, ids: Sequence[str], fields: Sequence[str]) -> dict[str, Document]:
    """These fields of each task by id; `Incomplete` unless all are there and each succeeded at its first attempt."""
    wanted = {**where, "state": "terminated", "exit_status": "success", "retry_count": 0, "abandoned_count": 0}
    found = {str(each["_id"]): each for each in client.each_task(wanted, ["_id", *fields])}
    require(found.keys() == set(ids), f"{len(set(ids) - found.keys())} of {len(ids)} tasks have not succeeded at once")
    return found


def spent(parts: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """What `Ours.counting` found, by part of the system."""
    return {name: [round(each[name], 3) for each in parts] for name in (parts[0] if parts else ())}


def require(true: bool, complaint: str) -> None:
    """Raise `Incomplete` with the complaint unless it is true."""
    if not true:
        raise Incomplete(complaint)
