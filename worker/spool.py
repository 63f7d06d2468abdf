"""Ended attempts that the server has not acknowledged, kept on disk so that a death of the worker loses none."""

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from banyan.errors import SetupError
from worker.disk import disk_of

Document = dict[str, Any]

_TABLES = """
CREATE TABLE IF NOT EXISTS ends (execution TEXT PRIMARY KEY, report TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS life (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""


class Spool:
    """A small database `<root>/.banyan-spool` (mode 0600, for it holds attempt tokens), for one worker at a time.

    When `add` has returned, its reports survive a power failure. SetupError if another worker has it open, or if it
    cannot be used.
    """

    def __init__(self, root: Path) -> None:
        self._lock = _locked(root)
        self._turn = threading.Lock()
        self._place = uuid.uuid4().hex
        path = root / ".banyan-spool"
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            os.close(self._lock)
            hint = f"cannot use {path} ({error}); move it away if its results do not matter"
            raise SetupError(_full(root) or hint) from error

    def add(self, ends: Iterable[Document], acknowledged: Sequence[str] = ()) -> None:
        """Keep these reports durably, and delete those that the server has acknowledged."""
        rows = [(end["execution"], json.dumps(end)) for end in ends]
        if not rows and not acknowledged:
            return
        with self._turn, self._database:
            self._database.execute("BEGIN")
            self._database.executemany("DELETE FROM ends WHERE execution = ?", [(each,) for each in acknowledged])
            self._database.executemany("INSERT OR REPLACE INTO ends VALUES (?, ?)", rows)

    def ends(self) -> list[Document]:
        """Return the reports that were kept, in no special order."""
        with self._turn:
            return [json.loads(report) for (report,) in self._database.execute("SELECT report FROM ends")]

    @property
    def worker(self) -> str | None:
        """Return the id of the worker's previous life on the server."""
        with self._turn:
            row = self._database.execute("SELECT value FROM life WHERE name = 'worker'").fetchone()
        return row[0] if row else None

    @worker.setter
    def worker(self, id: str | None) -> None:
        with self._turn:
            self._database.execute("INSERT OR REPLACE INTO life VALUES ('worker', ?)", (id,))

    @property
    def place(self) -> str:
        """Return the name of this work directory, the same for all workers and at all times."""
        with self._turn:
            with contextlib.suppress(sqlite3.Error):  # a full disk: the next life chooses another name
                self._database.execute("INSERT OR IGNORE INTO life VALUES ('place', ?)", (self._place,))
            row = self._database.execute("SELECT value FROM life WHERE name = 'place'").fetchone()
        return str(row[0]) if row else self._place

    def close(self) -> None:
        """Release it for another worker."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()
        os.close(self._lock)


def _locked(root: Path) -> int:
    """Return a descriptor that keeps other workers out of this work directory; SetupError."""
    try:
        descriptor = os.open(root / ".banyan-lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        hint = f"cannot use the work directory {root}: {error.strerror}; choose another one with --workdir"
        raise SetupError(_full(root) or hint) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise SetupError(f"another worker uses {root}; give this one a work directory of its own") from error
    return descriptor


def _full(root: Path) -> str | None:
    """Return the sentence for a full disk, if that is the fault."""
    disk = disk_of(root)
    if disk is None or not disk.full:
        return None
    return f"the disk of the work directory {root} is full: make room there, or choose another directory with --workdir"
