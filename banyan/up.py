"""The start of Banyan on one machine: MongoDB, server and worker as child processes, stopped in reverse order."""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import psutil

from banyan import child
from banyan.adoption import Orphans, adopting
from banyan.api.credentials import tokens_at
from banyan.client import Client
from banyan.config import WorkerSettings
from banyan.errors import SetupError
from banyan.storage.mongod_lock import DirectoryLock
from banyan.trust import POINTED, Trust
from banyan.up_address import trust_in
from banyan.up_mending import Mender
from banyan.up_mending import say as report
from banyan.up_parts import (
    Part,
    Plan,
    credentials_file,
    start_mongodb,
    start_server,
    start_worker,
    wait_for,
    work_directory,
)
from banyan.up_room import Room
from worker.account import Account, account_of, check_root

__all__ = ["Plan", "Running", "announced", "running"]

_RENEW_SECONDS = 3600.0
"""The interval for checking our own certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The running parts, once all of them are ready."""

    url: str
    admin_token: str
    provider_token: str
    mongo_uri: str
    parts: tuple[Part, ...]
    worker: dict[str, Any]
    credentials: Path
    trust: Trust = field(default_factory=Trust)
    """The authorities that the worker trusts, and its own certificate."""
    own_authority: bool = False
    """True if the authority of the server's certificate is ours."""
    upkeep: Callable[[], object] = lambda: None
    room: Room | None = None
    """The room that our own MongoDB needs."""

    def pids(self) -> dict[str, Any]:
        """Return the processes: `mongod` (None where it is not ours), `server` (all of them), `worker`."""
        own = {part.name: part.process.pid for part in self.parts}
        server = psutil.Process(own["server"])
        return {
            "mongod": own.get("mongod"),
            "server": [server.pid, *(each.pid for each in server.children(recursive=True))],
            "worker": own["worker"],
        }

    def watch(self) -> NoReturn:
        """Start each part again that ends; Unavailable when one ends again and again."""
        due = time.monotonic() + _RENEW_SECONDS

        def meanwhile() -> None:
            nonlocal due
            if time.monotonic() > due:
                due += _RENEW_SECONDS
                self.upkeep()

        Mender(self.parts, report, self.room).watch(meanwhile)


@contextmanager
def running(plan: Plan, *, say: Callable[[str], None] = lambda _: None) -> Iterator[Running]:
    """Start all parts, ready for work; they are stopped at the end of the block, for any cause, within 10 s.

    `say` receives the current step. SetupError if a part cannot be started.
    """
    told = plan.worker_settings()
    account = account_of(told)
    room = None if plan.settings.mongo.uri else Room(plan.data)
    if room is not None:
        room.require(new=not os.path.exists(plan.data / "mongo" / "db" / "journal"))
    # The server is older than MongoDB, and ends before it.
    with adopting() as orphans, child.none_left(), ExitStack() as last, ExitStack() as first:
        with room.blamed() if room is not None else nullcontext():
            ready = _start(plan, told, account, say, orphans, first, last)
        if room is not None:
            room.keep_reserve()
        yield replace(ready, room=room)


def _start(
    plan: Plan,
    told: WorkerSettings,
    account: Account | None,
    say: Callable[[str], None],
    orphans: Orphans,
    first: ExitStack,
    last: ExitStack,
) -> Running:
    """Start the parts; those on the stack `first` must be stopped before those on `last`."""
    lock = DirectoryLock.acquire(plan.data)
    last.callback(lock.release)
    if account is not None:
        _let_pass(plan.data, account)
    tokens = tokens_at(credentials_file(plan))
    say("Starting MongoDB")
    files = plan.keep_certificate() if plan.own_tls else None
    trust = trust_in(told, plan.settings.tls, str(files.authority) if files else "")
    server, url, tell = start_server(plan, first, files)
    parts, uri = start_mongodb(plan, last)
    tell(uri)
    say("Starting server and worker")
    worker = start_worker(plan, url, trust.ca_file, orphans, first)
    with Client(url, tokens["admin"], trust=trust) as admin:
        wait_for([*parts, server], lambda: bool(admin.health()))
        registered = wait_for([*parts, server, worker], lambda: _registered(admin, worker.process.pid))
    return Running(
        url=url,
        admin_token=tokens["admin"],
        provider_token=tokens["user"],
        mongo_uri=uri,
        parts=(*parts, server, worker),
        worker=registered,
        credentials=credentials_file(plan).absolute(),
        trust=trust,
        own_authority=files is not None,
        upkeep=partial(_renew, plan),
    )


def _renew(plan: Plan) -> None:
    """Renew the certificate if it is ours and nears its end; the server notices."""
    if not plan.own_tls:
        return
    try:
        plan.keep_certificate()
    except SetupError as error:
        report(f"{error}; it is tried again")


def _let_pass(data: Path, account: Account) -> None:
    """Let the user as whom tasks run reach the work directory, and nothing else; SetupError if that fails."""
    data.chmod(data.stat().st_mode | 0o011)  # this user may pass; the files in it have modes of their own
    work = work_directory(data)
    work.mkdir(exist_ok=True)
    try:
        check_root(work, account)
    except SetupError as error:
        raise SetupError(f"{error} (with `banyan up` it is below --data)") from error


def _registered(admin: Client, pid: int) -> dict[str, Any] | None:
    return next((dict(each) for each in admin.workers({"state": "active"}) if each.get("pid") == pid), None)


def _write_private(path: Path, text: str) -> None:
    """Replace the file at once, readable by its owner alone."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
    unfinished.replace(path)


@contextmanager
def announced(up: Running, directory: Path | None) -> Iterator[None]:
    """Announce the address and tokens to this user's other terminals, as long as the block runs.

    Where that fails (no home, or one that cannot be written), print the way for other terminals.
    """
    try:
        pointer = _leave_pointer(up, directory) if directory else None
        reason = "there is no home directory"
    except OSError as error:
        pointer, reason = None, f"{error.filename}: {error.strerror}"
    if pointer is None:
        report(f"other terminals do not find this server ({reason}): set BANYAN_URL and BANYAN_TOKEN there")
    try:
        yield
    finally:
        if pointer is not None:
            with suppress(OSError):
                pointer.unlink(missing_ok=True)


def _leave_pointer(up: Running, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in directory.glob("*.json"):
        if left.stem.isdigit() and not psutil.pid_exists(int(left.stem)):
            left.unlink(missing_ok=True)
    pointer = directory / f"{os.getpid()}.json"
    known = {"token": up.provider_token, "provider_token": up.provider_token, "admin_token": up.admin_token}
    known |= {"credentials": str(up.credentials)}
    known |= {name: value for name in POINTED if (value := getattr(up.trust, name))}
    _write_private(pointer, json.dumps({"url": up.url, **known, "pid": os.getpid(), "started": time.time()}))
    return pointer
