"""The worker's only loop: it collects events, passes them to the core, and carries out the core's actions."""

import contextlib
import os
import queue
import secrets
import selectors
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

from banyan import signals, wire
from banyan.config import WorkerSettings
from banyan.errors import SetupError
from banyan.home import below_home
from banyan.models.finding import find, offered
from banyan.trust import Trust
from worker import threads
from worker.account import account_of, check_root
from worker.actions import Note, Register
from worker.announcement import offer_text
from worker.background import LOOK_SECONDS
from worker.capacity import capacity, machine
from worker.cgroups import ControlGroups
from worker.core import Core, Limits
from worker.disk_guard import DiskGuard
from worker.events import Document, Drain, Event, Measured, Stop, SupervisorLost
from worker.executors import Executors, ShellExecutor, Workplace
from worker.gpus import Gpus
from worker.hands import Hands
from worker.journal import Journal, write_note
from worker.layout import Layout
from worker.link import Link, Server
from worker.model_executor import ModelExecutor
from worker.spawner import Spawner, SupervisorDied
from worker.spool import Spool
from worker.token_file import newer_token, token_of
from worker.uploads import FileStore, Uploads
from worker.usage import Watcher
from worker.variables import passing

MEASURE_SECONDS = 30.0
"""The interval between two measurements of the capacity."""
BACKLOG_SECONDS = 0.005
"""The pause before the next write to a pipe that has no room for a command."""
PROBE = ".banyan-probe"


class Remote(Server, FileStore, Protocol):
    """All calls that the worker makes to a server."""


class Daemon:
    """A worker from its start to its end: `Daemon(settings, server, workdir).run()`."""

    def __init__(self, settings: WorkerSettings, server: Remote, root: Path) -> None:
        self._settings = settings
        self._root = root
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._account = account_of(settings)
        if self._account is not None:
            check_root(root, self._account)
        groups = self._groups = ControlGroups.named(settings.tasks.cgroup)
        self._spool = Spool(root)
        self._spawner: Spawner | None = self._new_spawner()
        self._spawners: queue.SimpleQueue[Spawner] = queue.SimpleQueue()
        """Replacements of dead supervisors."""
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        self._offer = ""
        self._closed = threading.Event()
        self._started = datetime.now(UTC)
        limits = Limits(
            max_tasks=settings.tasks.max_tasks,
            ask_ahead_seconds=settings.tasks.ask_ahead_seconds,
            server_lost_seconds=settings.server_lost_after,
            idle_seconds=settings.idle_timeout,
            life_seconds=settings.time_limit,
        )
        now = time.monotonic()
        self._core = Core(limits, lambda: uuid.uuid4().hex, now, replaces=self._spool.worker, ends=self._spool.ends())
        layout = Layout(root, self._account, settings.tasks.umask)
        self._guard = DiskGuard(
            layout, settings.reserve, self._reapers, self.tell, tail_bytes=settings.tasks.tail_bytes
        )
        self._journal = Journal(settings.log.level, self.tell)
        note = self._journal.write
        self._gpus = Gpus(os.environ.get("CUDA_VISIBLE_DEVICES"), note, self.tell)
        variables = passing(os.environ, settings.tasks.environment)
        place = Workplace(layout, settings.tasks.tail_bytes, self._guard, self._account, self._gpus.name, variables)
        self._models = ModelExecutor(place, settings.models, offered(find(settings.models.path)))
        self._executors = Executors([ShellExecutor(place, groups), self._models])
        self._link = Link(server, self._spool, self.tell, note, lambda: datetime.now(UTC).isoformat())
        self._watcher = Watcher(settings.usage.interval, self._reapers, self.tell, self._gpus.memory)
        uploads = Uploads(
            server,
            layout,
            self.tell,
            note,
            interval=settings.files.upload_interval,
            tail_bytes=settings.tasks.tail_bytes,
            clock=time.monotonic,
        )
        self._hands = Hands(
            link=self._link,
            executors=self._executors,
            layout=layout,
            watcher=self._watcher,
            guard=self._guard,
            uploads=uploads,
            spawner=self._spawner,
            register=self._registration,
            note=note,
            tell=self.tell,
            wake=self._wake,
        )
        self._uploads = uploads
        threads.start("measure", self._measure, self.tell)

    def _new_spawner(self) -> Spawner:
        models = self._settings.models
        spawner = Spawner()
        work, account = self._settings.tasks, self._account
        spawner.limit(work.umask, work.core_bytes, account.ids if account else None)
        warm = max(1, round(self._settings.cores or os.cpu_count() or 1))
        spawner.keep_hosts(warm, models.host_max_tasks, models.host_idle_seconds, models.host_start_seconds)
        return spawner

    def tell(self, event: Event) -> None:
        """Pass this event to the core; from any thread."""
        self._events.put(event)
        self._wake()

    def _wake(self) -> None:
        """Make the loop turn once more; from any thread."""
        with contextlib.suppress(BlockingIOError, OSError):
            self._mouth.send(b".")

    def run(self) -> int:
        """Work until it is time to leave; return the exit code."""
        with selectors.DefaultSelector() as selector, self._listening_to_signals():
            selector.register(self._ear, selectors.EVENT_READ)
            if self._spawner is not None:
                selector.register(self._spawner, selectors.EVENT_READ)
            while not self._core.left:
                selector.select(self._patience())
                with contextlib.suppress(BlockingIOError):
                    self._ear.recv(65536)
                self._turn(selector)
            self._close()
        return 3 if self._core.turned_away else 0

    def _turn(self, selector: selectors.BaseSelector) -> None:
        """Do one turn: pass the events to the core, and carry out its actions."""
        self._perhaps_use_another(selector)
        spawner = self._spawner
        try:
            events = [*self._hands.hear(spawner.answers() if spawner else ()), *self._heard()]
            for action in self._core.handle(events, time.monotonic(), datetime.now(UTC)):
                self._hands.do(action)
            if spawner is not None:
                spawner.push()
        except SupervisorDied:
            if spawner is not None:
                self._replace(spawner, selector)

    def _replace(self, dead: Spawner, selector: selectors.BaseSelector) -> None:
        """Kill the tasks of the dead supervisors and start new ones, in a thread; meanwhile the loop goes on."""
        selector.unregister(dead)
        self._spawner = None
        groups, lost = self._hands.lose_spawner()

        def replace() -> None:
            dead.clean_up(groups)
            try:
                self._spawners.put(self._new_spawner())
            except SetupError as error:
                self._journal.write(Note(f"cannot go on: {error}", warning=True))
                self.tell(Stop())
            self.tell(SupervisorLost(lost))

        threads.start("supervisors", replace, self.tell)

    def _perhaps_use_another(self, selector: selectors.BaseSelector) -> None:
        with contextlib.suppress(queue.Empty):
            self._spawner = spawner = self._spawners.get_nowait()
            selector.register(spawner, selectors.EVENT_READ)
            self._hands.use(spawner)

    def _reapers(self) -> list[int]:
        """Return the processes that inherit the orphans of tasks."""
        spawner = self._spawner
        return spawner.pids if spawner is not None else []

    def _measure(self) -> None:
        """Measure the capacity in a thread of its own: some drivers, and disks, respond slowly."""
        while not self._closed.is_set():
            there = machine(self._root, reserve=self._settings.reserve, gpus=self._gpus.look())
            self.tell(Measured(*capacity(there, self._settings)))
            self._closed.wait(MEASURE_SECONDS)

    def _heard(self) -> Iterator[Event]:
        yield from self._hands.happened()
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._events.get_nowait()

    def _patience(self) -> float | None:
        """Return the seconds until the next deadline; None: until an event happens."""
        if self._hands.restless:
            return 0.0
        now = time.monotonic()
        deadline = self._core.next_deadline()
        due = [deadline] if deadline is not None else []
        if self._spawner is not None and self._spawner.backlog:
            due.append(now + BACKLOG_SECONDS)
        if self._hands.busy:
            due.append(now + LOOK_SECONDS)
        return max(0.0, min(due) - now) if due else None

    def _registration(self, register: Register) -> Document:
        """Return the body of `POST /workers`."""
        settings = self._settings
        document: Document = {
            "name": settings.name or socket.gethostname(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "resources": register.resources.to_document(),
            "labels": dict(settings.labels),
            "capabilities": [*self._executors.capabilities, *settings.capabilities],
            "models": self._models.models,
            "queues": list(settings.queues),
            "version": own_version(),
            "place": self._spool.place,
        }
        if settings.files.shared and (probe := self._probe()):
            document["files"] = {"root": str(self._root), "probe": probe}
        if settings.time_limit:
            document["available_until"] = (self._started + timedelta(seconds=settings.time_limit)).isoformat()
        if register.replaces:
            document |= {"replaces": register.replaces, "finished": list(register.finished)}
        if self._offer != (offer := offer_text(document)):
            self._offer = offer
            self._link.note(Note(offer))
        return document

    def _probe(self) -> str | None:
        """Write a secret that a server can read only if it shares our work directory; None if its disk is full."""
        probe = secrets.token_hex(16)
        path = self._root / PROBE
        try:
            path.unlink(missing_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(probe)
        except OSError as error:
            self._link.note(Note(f"cannot write to the work directory: {error}", warning=True))
            return None
        return probe

    @contextlib.contextmanager
    def _listening_to_signals(self) -> Iterator[None]:
        """Handle signals: one that asks to end drains; the second SIGTERM, SIGINT or SIGQUIT stops now.

        The others may repeat: a closed terminal sends SIGHUP twice, and the kernel SIGXCPU each second.
        """
        count = 0

        def end(number: int) -> None:
            nonlocal count
            count += number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
            self.tell(Drain(f"it got {signals.name_of(number)}") if count < 2 else Stop())

        with signals.listening(end, lambda line: self._journal.write(Note(line))):
            yield

    def _close(self) -> None:
        self._closed.set()
        if self._spawner is not None:
            self._spawner.close()
        self._watcher.close()
        self._guard.close()
        self._uploads.close()
        self._link.close(self._core.worker, self._core.outstanding)
        self._hands.close()
        if self._groups is not None:
            self._groups.close()
        self._journal.close()
        self._spool.close()
        with contextlib.suppress(OSError):
            (self._root / PROBE).unlink(missing_ok=True)
        self._ear.close()
        self._mouth.close()


def main(settings: WorkerSettings, tasks_file: Path | None = None) -> int:
    """Run a worker until it leaves; return the exit code: 0, or 3 if the server does not admit it.

    With `tasks_file` it runs the tasks of that file without a server and returns 1 if one has failed. SetupError if the
    settings are incomplete, UnicodeEncodeError if they cannot be sent to a server.
    """
    if tasks_file is not None:
        from worker.tasksfile import run_file

        return run_file(settings, tasks_file)
    from banyan.client import Client

    if not settings.url:
        raise SetupError("a worker needs the address of its server: --url, or BANYAN_URL")
    wire.dumps([settings.name, settings.labels, settings.queues, settings.capabilities])  # they can be sent
    os.umask(settings.tasks.umask)
    root = work_root(settings)
    trust = Trust(**{field.name: getattr(settings, field.name) for field in fields(Trust)})
    with Client(settings.url, token_of(settings), trust=trust, renew=partial(newer_token, settings)) as client:
        write_note(Note(f"worker {settings.name or socket.gethostname()} for {settings.url}, tasks in {root}"))
        return Daemon(settings, client, root).run()


def work_root(settings: WorkerSettings) -> Path:
    """Return the directory in which tasks run, and make it if need be; SetupError if that fails."""
    data = Path(settings.workdir) if settings.workdir else _default_root()
    root = data.expanduser().absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"cannot make the work directory {root}: {error}; choose another with --workdir") from error
    return root


def _default_root() -> Path:
    return below_home(os.environ, "XDG_DATA_HOME", ".local/share", "name a directory with --workdir") / "banyan/worker"


def own_version() -> str:
    """Return the version of the installed distribution."""
    try:
        return version("banyan-queue")
    except PackageNotFoundError:
        return "source"
