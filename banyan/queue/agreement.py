"""Agreement among the servers of one database on shared settings: leases, limits, retention, privacy.

The settings in force are in the database, with the living servers and the settings that each was started with. A server
that was started with other settings follows those in force and logs the difference. As soon as all living servers were
started with the same settings, these are in force: so the only server of a database uses its own settings, and when
several are restarted one after the other, the last one brings the change for all.
"""

import logging
import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from bson import ObjectId

from banyan.common_settings import Values, common_of, differences, settle, with_common
from banyan.config import ServerSettings
from banyan.errors import Unavailable
from banyan.storage.mongo import Storage, translate

Document = dict[str, Any]

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
DEAD_SECONDS = 20.0
"""The time without a beat after which a server no longer counts."""
BEATS_ALONE = 3
"""The number of beats at which a running server must find agreement before it takes effect: another server may be
restarting."""
_TRIES = 50


class Agreement:
    """One server process among those of its database, with the settings that it was started with."""

    def __init__(self, storage: Storage, settings: ServerSettings) -> None:
        self.storage = storage
        self._settings = settings
        self._wish = common_of(settings)
        self._id = str(ObjectId())
        self._began_with = settings
        self._beats_alone = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def join(self) -> ServerSettings:
        """Join the servers; return the settings to run with."""
        in_force = self._beat(adopt=True)
        self._began_with = with_common(self._settings, in_force)
        if different := differences(self._wish, in_force):
            log.warning(
                "other servers of this database run with other settings, and this one follows them: %s; to change "
                "them, start all servers with the same settings",
                ", ".join(different),
            )
        return self._began_with

    def start(self, on_change: Callable[[], None]) -> None:
        """Start to send beats to the other servers; `on_change` is called when this one must restart."""
        self._thread = threading.Thread(target=self._run, args=(on_change,), name="agreement", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Leave the servers."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=BEAT_SECONDS)
        try:
            self._write(lambda servers: servers.pop(self._id, None), adopt=False)
        except Exception as error:
            if translate(error) is None and not isinstance(error, Unavailable):
                raise
            log.info("the other servers were not informed that this one stops: %s", error)

    def beat(self) -> bool:
        """Record that this server is alive; return whether the settings that it started with are still in force."""
        adopt = self._beats_alone >= BEATS_ALONE
        in_force = self._beat(adopt=adopt)
        alone = with_common(self._settings, in_force) != self._settings and self._is_undisputed()
        self._beats_alone = self._beats_alone + 1 if alone else 0
        return with_common(self._settings, in_force) == self._began_with

    def _run(self, on_change: Callable[[], None]) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                if not self.beat():
                    log.warning("the settings that all servers share have changed; this process begins anew with them")
                    on_change()
                    return
            except Exception as error:
                if translate(error) is None and not isinstance(error, Unavailable):
                    log.exception("the servers cannot agree on their settings")

    def _is_undisputed(self) -> bool:
        known = self.storage.meta.settings() or {}
        return all(each["wish"] == self._wish for each in known.get("servers", {}).values())

    def _beat(self, *, adopt: bool) -> Values:
        machine = {"machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}

        def be_there(servers: Document) -> None:
            servers[self._id] = {"seen": self.storage.clock.now(), "wish": self._wish, **machine}

        return self._write(be_there, adopt=adopt)

    def _write(self, change: Callable[[Document], object], *, adopt: bool) -> Values:
        """Change the list of servers, and settle the settings in force among those that are alive."""
        for _ in range(_TRIES):
            known = self.storage.meta.settings() or {}
            now = self.storage.clock.now()
            servers = {id: each for id, each in known.get("servers", {}).items() if _lives(each, now)}
            change(servers)
            wishes: list[Values] = [each["wish"] for each in servers.values()]
            in_force: Values = settle(known.get("values"), wishes, adopt=adopt) if wishes else known.get("values", {})
            revision = known.get("revision", 0)
            if self.storage.meta.write_settings(revision, {"values": in_force, "servers": servers}):
                return in_force
        raise Unavailable("too many servers start at once; try again")


def _lives(server: Document, now: datetime) -> bool:
    """Return whether a server sent a beat recently, and its process is not known to be dead."""
    if now - server["seen"] > timedelta(seconds=DEAD_SECONDS):
        return False
    return bool(server["machine"] != _machine() or _started(server["pid"]) == server["started"])


@cache
def _machine() -> str:
    """The identity of this boot of the machine, and of the namespace of its process ids."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"


def _started(pid: int) -> float | None:
    """The start time of a process of this machine; None if there is no such process."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None
