"""Servers of one database with different settings: one follows the other, and says so."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from pymongo import MongoClient

from banyan.client import Client
from banyan.errors import Unavailable
from tests.support.server import STOP_SECONDS, Server, running
from tests.support.waiting import eventually

RESOURCES = {"cores": 1, "memory": 2**30}
LONG = {"BANYAN_LEASES__LOST_AFTER": "60", "BANYAN_LEASES__HEARTBEAT": "20"}
SHORT = {"BANYAN_LEASES__LOST_AFTER": "6", "BANYAN_LEASES__HEARTBEAT": "2"}
FOLLOWS = "other servers of this database run with other settings"


@pytest.fixture
def place(mongo_uri: str, database_name: str, tmp_path: Path) -> Any:
    """Starts a server with some settings, in a directory of its own, with everybody's tokens."""

    @contextmanager
    def start(name: str, settings: dict[str, str]) -> Iterator[Server]:
        (tmp_path / name).mkdir(exist_ok=True)
        tokens = tmp_path / "credentials.json"
        if tokens.exists():
            (tmp_path / name / "credentials.json").write_text(tokens.read_text())
        with running(mongo_uri, database_name, tmp_path / name, **settings) as server:
            if not tokens.exists():
                tokens.write_text(server.credentials.read_text())
            yield replace(server, log=tmp_path / name / "log")

    return start


def lease(server: Server) -> float:
    """The lease that a worker gets there."""
    with server.client("worker") as worker:
        return float(worker.register_worker({"name": "w", "resources": RESOURCES})["lease_seconds"])


def lease_now(server: Server) -> float | None:
    """The lease, or None where the server's process is just being replaced."""
    try:
        return lease(server)
    except Unavailable:
        return None


def test_a_second_server_follows_the_first_and_says_so_in_one_line(place: Any) -> None:
    with place("first", LONG) as first, place("second", SHORT) as second:
        assert (lease(first), lease(second)) == (60, 60)
        (line,) = [each for each in second.log.read_text().splitlines() if FOLLOWS in each]
        assert "leases.heartbeat (2.0 here, 20.0 there), leases.lost_after (6.0 here, 60.0 there)" in line
        assert FOLLOWS not in first.log.read_text()


@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGKILL])
def test_the_only_server_has_what_it_is_started_with(place: Any, way: signal.Signals) -> None:
    with place("only", LONG) as server:
        assert lease(server) == 60
        processes = server.processes()
        server.process.send_signal(way)
        server.process.wait(STOP_SECONDS)
        assert not psutil.wait_procs(processes, timeout=STOP_SECONDS)[1]
    with place("only", SHORT) as server:
        assert lease(server) == 6
        assert FOLLOWS not in server.log.read_text()


def test_servers_that_are_restarted_one_after_the_other_change_with_the_last_one(place: Any) -> None:
    with place("stays", LONG) as stays:
        with place("first", SHORT) as first:
            assert lease(first) == 60
            stays.process.terminate()
            stays.process.wait(STOP_SECONDS)
            with place("stays", SHORT) as again:
                assert lease(again) == 6
                eventually(lambda: first.healthy() and lease_now(first) == 6, seconds=90, show=first.log.read_text)
        assert "begins anew" in (first.log).read_text()


def test_a_server_that_is_left_alone_has_its_own_settings_at_last(place: Any) -> None:
    with place("second", {}) as second:
        with place("first", LONG):
            pass
        assert lease(second) == 45
    with place("first", LONG) as first, place("second", SHORT) as second:
        first.process.terminate()
        first.process.wait(STOP_SECONDS)
        eventually(lambda: second.healthy() and lease_now(second) == 6, seconds=90, show=second.log.read_text)


def test_reads_are_private_everywhere_as_soon_as_one_server_wishes_it(place: Any) -> None:
    with place("open", {}) as opened, opened.client("admin") as admin:
        token = admin.add_user("other", "provider")["token"]
        with opened.client("user") as provider:
            provider.submit({"command": "true"})
        with Client(opened.url, token) as other, place("private", {"BANYAN_AUTH__PRIVATE": "true"}) as private:
            with Client(private.url, token) as here:
                assert here.tasks().items == []
            eventually(lambda: opened.healthy() and other.tasks().items == [], seconds=90, show=opened.log.read_text)


def test_processes_of_a_server_that_died_elsewhere_count_no_more(
    place: Any, mongo_uri: str, database_name: str
) -> None:
    with place("first", LONG), MongoClient[dict[str, Any]](mongo_uri) as mongo:
        meta = mongo[database_name]["meta"]
        known = meta.find_one({"_id": "settings"}) or {}
    with MongoClient[dict[str, Any]](mongo_uri) as mongo:
        meta = mongo[database_name]["meta"]
        ((id, dead),) = known["servers"].items()
        elsewhere = {**dead, "machine": "elsewhere"}
        meta.update_one({"_id": "settings"}, {"$set": {f"servers.{id}": elsewhere, "values": known["values"]}})
        with place("second", SHORT) as second:
            assert lease_now(second) in (6, 60, None)  # it may have been silent for long enough already
            eventually(lambda: second.healthy() and lease_now(second) == 6, seconds=90, show=second.log.read_text)
