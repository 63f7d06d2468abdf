"""The reports for the server, and those that it has not yet acknowledged."""

from collections.abc import Iterable, Sequence

from worker.events import Document

MAX_REPORTS = 500
MAX_SAMPLES = 5_000
MAX_BATCH_BYTES = 8 << 20
BUSY_SECONDS = 0.2
"""The time for which reports are batched while the worker has more to do."""
KEEP_SECONDS = 1.0
"""The time after which an unsent end, for example while the server is away, is kept on disk on its own."""
_BULKY = ("stdout_tail", "stderr_tail", "result", "error")


class Outbox:
    """Reports in the order of their arrival. One batch is under way at a time.

    An end is kept until the server accepts it or answers that it is stale.
    """

    def __init__(self, ends: Iterable[Document] = ()) -> None:
        self._ends: dict[str, Document] = {end["execution"]: end for end in ends}
        self._waiting: list[Document] = list(self._ends.values())
        self._samples: list[Document] = []
        self._under_way: Sequence[Document] | None = None
        self._since = 0.0
        self._urgent = 0
        """The number of waiting reports that must not wait for a batch."""
        self._unkept: dict[str, Document] = {}
        self._unkept_since = 0.0

    @property
    def unacknowledged(self) -> list[str]:
        """Return the attempts whose end the server has not acknowledged."""
        return list(self._ends)

    @property
    def ends(self) -> list[Document]:
        """Return the reports of those ends."""
        return list(self._ends.values())

    @property
    def empty(self) -> bool:
        """Return whether every report was sent and acknowledged."""
        return not (self._waiting or self._samples or self._ends or self._under_way is not None)

    def add(self, report: Document, now: float, *, urgent: bool = False) -> None:
        """Add a report, sent at once if it is `urgent`; with an `exit_status` it is the end of the attempt."""
        if not self._waiting and not self._samples:
            self._since = now
        if "exit_status" in report:
            self._ends[report["execution"]] = report
            if not self._unkept:
                self._unkept_since = now
            self._unkept[report["execution"]] = report
        self._waiting.append(report)
        if urgent:
            self._urgent = len(self._waiting)

    def hurry(self) -> None:
        """Send the next batch at once."""
        self._urgent = len(self._waiting)

    def add_sample(self, sample: Document, now: float) -> None:
        """Add a sample of memory; the oldest are dropped when far too many wait."""
        if not self._waiting and not self._samples:
            self._since = now
        self._samples.append(sample)
        if len(self._samples) > 10 * MAX_SAMPLES:
            del self._samples[:MAX_SAMPLES]

    def due(self, busy: bool) -> float | None:
        """Return the time of the next batch (0: now); None when nothing waits or a batch is under way."""
        if self._under_way is not None or not (self._waiting or self._samples):
            return None
        in_company = busy and not self._urgent and len(self._waiting) < MAX_REPORTS
        return self._since + BUSY_SECONDS if in_company else 0.0

    def batch(self, now: float) -> tuple[list[Document], list[Document]]:
        """Return the next reports and samples to send; they are under way until `answered` or `returned`."""
        size = count = 0
        for report in self._waiting[:MAX_REPORTS]:
            size += 500 + sum(len(str(report.get(name, ""))) for name in _BULKY)
            if count and size > MAX_BATCH_BYTES:
                break
            count += 1
        reports, self._waiting = self._waiting[:count], self._waiting[count:]
        self._urgent = max(0, self._urgent - count)
        samples, self._samples = self._samples[:MAX_SAMPLES], self._samples[MAX_SAMPLES:]
        for report in reports:
            self._unkept.pop(report["execution"], None)  # a report is kept before it is sent
        self._under_way = reports
        self._since = now
        return reports, samples

    @property
    def keep_due(self) -> float | None:
        """Return the time at which unsent ends are to be kept; None if there are none."""
        return self._unkept_since + KEEP_SECONDS if self._unkept else None

    def to_keep(self) -> list[Document]:
        """Return those ends; the caller keeps them now."""
        ends, self._unkept = list(self._unkept.values()), {}
        return ends

    def answered(self, accepted: Sequence[str], stale: Sequence[str], now: float) -> list[str]:
        """Record the response to the batch under way; return the attempts whose end it settles.

        An end that the response does not mention is sent again.
        """
        told = self._told_ends()
        settled = [each for each in dict.fromkeys((*accepted, *stale)) if each in self._ends and each in told]
        for each in settled:
            del self._ends[each]
        self._under_way = None
        for execution in told:
            if execution in self._ends:
                self.add(self._ends[execution], now)
        return settled

    def returned(self) -> None:
        """Record that the batch under way was refused: all ends are sent again, and the other reports are dropped."""
        self._under_way = None
        self._samples = []
        self._urgent = 0
        self._waiting = list(self._ends.values())

    def _told_ends(self) -> dict[str, None]:
        return {report["execution"]: None for report in self._under_way or () if "exit_status" in report}
