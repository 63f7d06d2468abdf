"""The audit log: user, change, time and address. One JSON line for each attempt to change something, no secrets.

A line names fields and ids. It includes values only where a route permits it (`Route.told`); bodies, inputs,
environments and tokens are never included. The reports of workers on attempts are in the history already, and are
logged only when they are refused; so are reads.
"""

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Flask, Response, g, request

from banyan.api.routes import ROUTES, Route
from banyan.errors import SetupError
from banyan.storage.users import User

Document = dict[str, Any]

log = logging.getLogger("banyan.audit")

_REFUSED = (401, 403)
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_MAX_IDS = 20
_MAX_NAMES = 50
_MAX_TEXT = 128


class Trail:
    """Appends lines to the file at `path`, which is created with mode 0600, or to the standard error for an empty path.

    Each line is one write in append mode, so that many processes may share the file. After a rotation a new file is
    created.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path).expanduser().absolute() if path else None
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._failing = False

    def check(self) -> None:
        """Check that the file can be written; SetupError if it cannot."""
        if self._path is None:
            return
        try:
            with self._lock:
                self._current(self._path)
                self._drop()
        except OSError as error:
            raise SetupError(f"cannot write the audit log {self._path}: {error.strerror}; see log.audit") from error

    def add(self, entry: Document) -> None:
        """Write one line. A failure is only logged by the server: the change itself is complete already."""
        line = json.dumps(entry, ensure_ascii=True, separators=(",", ":")) + "\n"
        try:
            with self._lock:
                self._write(line)
            self._failing = False
        except OSError as error:
            if not self._failing:
                log.error("the audit log %s cannot be written, changes go unrecorded: %s", self._path, error)
            self._failing = True

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._drop()

    def _write(self, line: str) -> None:
        if self._path is None:
            sys.stderr.write(line)
            sys.stderr.flush()
        else:
            os.write(self._current(self._path), line.encode())

    def _current(self, path: Path) -> int:
        """The open file that has the path now."""
        if self._descriptor is not None and not _is_at(self._descriptor, path):
            self._drop()
        if self._descriptor is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o600)
        return self._descriptor

    def _drop(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def install(app: Flask, trail: Trail) -> None:
    """Write a line for each request to `app` that changes something or is refused."""

    def note(response: Response) -> Response:
        if _is_noted(response.status_code):
            trail.add(_entry(response.status_code))
        return response

    app.after_request(note)


def stay_quiet() -> None:
    """Mark this request as an attempt's, which has a history of its own."""
    g.audit_quiet = True


def touches(ids: Iterable[object]) -> None:
    """Record the documents of a request that names them neither in its path nor in its response."""
    g.audit_ids = list(ids)


def _is_noted(status: int) -> bool:
    if status in _REFUSED:
        return True
    route = ROUTES.get(request.endpoint or "")
    quiet = route is not None and route.quiet
    return request.method not in _READS and not quiet and not g.get("audit_quiet", False)


def _entry(status: int) -> Document:
    user: User | None = g.get("user")
    entry: Document = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "user": user and user.name,
        "role": user and user.role.value,
        "address": request.remote_addr,
        "method": request.method,
        "route": request.url_rule and re.sub("<[^>]*:", "<", request.url_rule.rule),
        "status": status,
    }
    named = {n: _short(value) for n, value in (request.view_args or {}).items() if n != "path"}
    entry |= {"target": named} if named and user is not None else {}  # anyone could write anything there
    if status >= 400:
        return entry
    route = ROUTES.get(request.endpoint or "")
    return entry | _change(route) if route is not None else entry


def _change(route: Route) -> Document:
    """The fields and documents that a successful request has changed."""
    if g.get("repeated", False):
        return {"repeated": True}
    change: Document = {"dry_run": True} if request.args.get("dry_run", "").lower() in ("true", "1") else {}
    body, answer = g.get("body"), g.get("answered")
    ids = g.get("audit_ids") or list(_ids(answer))
    if ids:
        change |= {"ids": [str(each) for each in ids[:_MAX_IDS]], "count": len(ids)}
    if refused := sum(1 for item in _items(answer) if "_error" in item):
        change["refused"] = refused
    if not route.unnamed and (names := _names(body)):
        change["fields"] = names
    if isinstance(body, dict):
        told = {name: _short(body[name]) for name in route.told if name in body}
        change |= {"values": told} if told else {}
    return change


def _items(answer: object) -> list[Document]:
    items = answer.get("_items") if isinstance(answer, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _ids(answer: object) -> Iterator[object]:
    if isinstance(answer, dict) and "_id" in answer:
        yield answer["_id"]
    for item in _items(answer):
        if "_id" in item:
            yield item["_id"]


def _names(body: object) -> list[str]:
    names: set[str] = set()
    for item in body if isinstance(body, list) else [body]:
        if isinstance(item, dict):
            names |= item.keys()
    return sorted(name[:_MAX_TEXT] for name in names)[:_MAX_NAMES]


def _short(value: object) -> object:
    """A value for a line: in one piece, and not long."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)[:_MAX_TEXT]
