"""The threads that call the server, so that the worker's loop never waits for it.

Claims have up to three connections, because a claim is open nearly always, and a newer one must overtake it. Reports
have one, and go out one batch at a time, each kept in the spool before it is sent.
"""

import queue
import random
import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from banyan.errors import (
    BadRequest,
    BanyanError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooLarge,
    Unauthorized,
    Untrusted,
)
from worker import threads
from worker.actions import Ask, Note, Send
from worker.background import Crew
from worker.events import (
    Claimed,
    Document,
    Event,
    Grant,
    Refused,
    Registered,
    Reported,
    TurnedAway,
    Unanswered,
    Unreached,
)
from worker.spool import Spool

CLAIMERS = 3
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
_GONE = (Conflict, NotFound)
_UNWANTED = (BadRequest, Invalid, TooLarge)
_BARE = frozenset({"execution", "token", "exit_status", "exit_code", "time_started", "time_terminated", "error"})
"""The fields that remain of a report that the server did not accept."""
_TURNED_AWAY = (Unauthorized, Forbidden, BadRequest, Invalid)


class Server(Protocol):
    """The calls of `banyan.client.Client` that the worker makes."""

    def register_worker(self, worker: Document, /) -> Document: ...

    def claim(self, worker: str, body: Document, /) -> Document: ...

    def report(self, worker: str, body: Document, /) -> Document: ...

    def close_worker(self, worker: str, finished: Sequence[str], /) -> None: ...


class Link:
    """The executor of `Register`, `Ask` and `Send`, in threads of its own; `tell` receives the events that follow.

    `clock` gives the UTC time as an ISO text, `note` writes to the log.
    """

    def __init__(
        self,
        server: Server,
        spool: Spool,
        tell: Callable[[Event], None],
        note: Callable[[Note], None],
        clock: Callable[[], str],
    ) -> None:
        self._server = server
        self._spool = spool
        self._tell = tell
        self.note = note
        self._clock = clock
        self._closed = threading.Event()
        self._newest: str | None = None
        self._asks: queue.SimpleQueue[Ask | None] = queue.SimpleQueue()
        self._sends: queue.SimpleQueue[Send | None] = queue.SimpleQueue()
        self._acknowledged: list[str] = []
        self._keeper = Crew("keep", tell, most=1)
        self._claimers = [threads.start(f"claim {number}", self._claim_all, tell) for number in range(CLAIMERS)]
        self._reporter = threads.start("report", self._report_all, tell)

    def register(self, document: Callable[[], Document]) -> None:
        """Register in the background, for as long as it takes; `document` is made anew for each try."""
        threads.start("register", lambda: self._register(document), self._tell)

    def ask(self, ask: Ask) -> None:
        """Send a claim; it replaces all earlier ones."""
        self._newest = ask.body["request"]
        self._asks.put(ask)

    def send(self, send: Send) -> None:
        """Send a batch of reports and samples."""
        self._sends.put(send)

    def close(self, worker: str | None, ends: Sequence[Document]) -> None:
        """Keep the unacknowledged ends, and close the worker on the server."""
        self._closed.set()
        self._newest = None
        self._sends.put(None)
        for _ in self._claimers:
            self._asks.put(None)
        self._reporter.join(timeout=2.0)
        self._keeper.close(2.0)
        self._keep(ends, self._acknowledged)
        if worker is not None:
            try:
                self._server.close_worker(worker, [end["execution"] for end in ends])
            except BanyanError as error:
                self.note(Note(f"could not sign off from the server: {error}", warning=True))
            else:
                self._remember(worker if ends else None)

    def _remember(self, worker: str | None) -> None:
        """Keep the worker's id, for the next life."""
        try:
            self._spool.worker = worker
        except sqlite3.Error as error:
            text = (
                f"cannot write the spool ({error}): when this worker is killed, its tasks wait for the end of its lease"
            )
            self.note(Note(text, warning=True))

    def keep(self, ends: Sequence[Document]) -> None:
        """Keep these ends on disk, in the background."""
        self._keeper.do(partial(self._keep, ends))

    def _keep(self, ends: Sequence[Document], acknowledged: Sequence[str] = ()) -> None:
        """Keep these ends on disk, and delete those that are acknowledged."""
        try:
            self._spool.add(ends, acknowledged)
        except sqlite3.Error as error:
            text = f"cannot write the spool ({error}): results that the server does not have may get lost"
            self.note(Note(text, warning=True))

    # In the threads

    def _register(self, document: Callable[[], Document]) -> None:
        pauses = _Pauses(self._closed)
        while not self._closed.is_set():
            try:
                answer = self._register_once(document())
            except Untrusted as error:
                self._tell(TurnedAway(str(error)))
                pauses.wait()
            except _TURNED_AWAY as error:
                self._tell(TurnedAway(f"the server does not let this worker register: {error}"))
                pauses.wait()
            except BanyanError as error:
                self._unreached(error)
                pauses.wait()
            else:
                self._remember(answer["_id"])
                wait = float(answer.get("heartbeat_seconds", 20.0))
                uploads = answer.get("files") == "upload"
                self.note(Note(f"registered as worker {answer['_id']}, ready for tasks"))
                for text in answer.get("notes", ()):
                    self.note(Note(str(text), warning=True))
                self._tell(Registered(worker=answer["_id"], wait_seconds=wait, uploads=uploads))
                return

    def _register_once(self, document: Document) -> Document:
        try:
            return self._server.register_worker(document)
        except Invalid as error:
            if "replaces" not in error.issues:
                raise
            self.note(Note(f"this server does not know the worker's previous life ({error}), which ends", warning=True))
            fresh = {name: value for name, value in document.items() if name not in ("replaces", "finished")}
            return self._server.register_worker(fresh)

    def _claim_all(self) -> None:
        while (ask := self._asks.get()) is not None:
            self._claim(ask)

    def _claim(self, ask: Ask) -> None:
        request = ask.body["request"]
        pauses = _Pauses(self._closed)
        while request == self._newest and not self._closed.is_set():
            try:
                answer = self._server.claim(ask.worker, ask.body)
            except _GONE:
                return self._tell(Refused(worker=ask.worker))
            except BanyanError as error:
                self._unreached(error)
                pauses.wait()
            else:
                return self._tell(self._claimed(request, answer))
        return self._tell(Unanswered(request=request))

    def _claimed(self, request: str, answer: Document) -> Claimed:
        return Claimed(
            request=request,
            grants=[Grant.from_document(task) for task in answer.get("tasks", ())],
            cancel=answer.get("cancel", ()),
            take_back=answer.get("take_back", ()),
            drain=bool(answer.get("drain")),
            forget=answer.get("forget", ()),
        )

    def _report_all(self) -> None:
        while (send := self._sends.get()) is not None:
            acknowledged, self._acknowledged = self._acknowledged, []
            self._keep([report for report in send.reports if "exit_status" in report], acknowledged)
            event = self._report(send)
            if event is not None:
                self._tell(event)

    def _report(self, send: Send) -> Event | None:
        pauses = _Pauses(self._closed)
        body = {"time": self._clock(), "reports": list(send.reports), "memory_usage": list(send.samples)}
        while not self._closed.is_set() or pauses.count == 0:
            try:
                answer = self._server.report(send.worker, body)
            except _GONE:
                return Refused(worker=send.worker)
            except _UNWANTED as error:
                return self._apart(send, error)
            except BanyanError as error:
                self._unreached(error)
                pauses.wait()
                body["time"] = self._clock()
            else:
                return self._reported(answer)
        return None

    def _apart(self, send: Send, error: BanyanError) -> Event | None:
        """Find the report for which the server refuses this batch, and send it without details."""
        if len(send.reports) + len(send.samples) <= 1:
            which = [report["execution"] for report in send.reports]
            self.note(Note(f"the server does not accept a report ({' '.join(which) or 'of memory'}): {error}", True))
            bare = [_bare(report, error) for report in send.reports if report.keys() - _BARE]
            if bare and "exit_status" in bare[0]:
                return self._report(Send(worker=send.worker, reports=bare, samples=()))
            return Reported(stale=which)
        half, sampled = len(send.reports) // 2, len(send.samples) // 2
        if not send.reports or not send.samples:
            first = Send(worker=send.worker, reports=send.reports[:half], samples=send.samples[:sampled])
            second = Send(worker=send.worker, reports=send.reports[half:], samples=send.samples[sampled:])
        else:
            first = Send(worker=send.worker, reports=send.reports, samples=())
            second = Send(worker=send.worker, reports=(), samples=send.samples)
        answers = [self._report(first), self._report(second)]
        good = [answer for answer in answers if isinstance(answer, Reported)]
        if len(good) < len(answers):
            return next((answer for answer in answers if isinstance(answer, Refused)), None)
        return Reported(
            accepted=[*good[0].accepted, *good[1].accepted],
            stale=[*good[0].stale, *good[1].stale],
            cancel=[*good[0].cancel, *good[1].cancel],
            take_back=[*good[0].take_back, *good[1].take_back],
            forget=[*good[0].forget, *good[1].forget],
        )

    def _reported(self, answer: Document) -> Reported:
        accepted, stale = answer.get("accepted", []), answer.get("stale", [])
        self._acknowledged += [*accepted, *stale]
        return Reported(
            accepted=accepted,
            stale=stale,
            cancel=answer.get("cancel", []),
            take_back=answer.get("take_back", []),
            forget=answer.get("forget", []),
        )

    def _unreached(self, error: BanyanError) -> None:
        if not self._closed.is_set():
            self._tell(Unreached(str(error)))


def _bare(report: Document, error: BanyanError) -> Document:
    """Return the same end, without fields that the task may have filled; the error names the server's reason."""
    kept = {name: value for name, value in report.items() if name in _BARE}
    return kept | {"error": f"the server did not accept the rest of this report: {str(error)[:1000]}"}


class _Pauses:
    """Pauses of growing length between retries, cut short when the link closes."""

    def __init__(self, closed: threading.Event) -> None:
        self.count = 0
        self._closed = closed

    def wait(self) -> None:
        self.count += 1
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self.count - 1, 10))
        self._closed.wait(longest * random.uniform(0.5, 1.0))  # a thousand workers must not return in step
