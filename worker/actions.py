"""The actions that the core of the worker returns; plain values without behaviour. Its input is in `events`."""

from collections.abc import Sequence
from dataclasses import dataclass

from banyan.domain.resources import Resources
from worker.events import Allocation, Document, Grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """Register the worker; `replaces` is its previous id, `finished` the attempts that ended under it."""

    resources: Resources
    replaces: str | None
    finished: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Send this claim, which ends an earlier one that is still open."""

    worker: str
    body: Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send these reports and samples."""

    worker: str
    reports: Sequence[Document]
    samples: Sequence[Document]


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep these ends on disk: it may take long until they can be sent."""

    ends: Sequence[Document]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Start a task once the earlier ones of its lane have ended."""

    lane: int
    grant: Grant
    allocation: Allocation


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take a task back from its lane if it has not started."""

    execution: str


@dataclass(frozen=True, slots=True)
class Kill:
    """Send a signal to a task's process group."""

    execution: str
    signal: int


@dataclass(frozen=True, slots=True)
class Purge:
    """Remove the files of an ended task: the disk needs the room."""

    execution: str


@dataclass(frozen=True, slots=True)
class Sync:
    """Send the files of an ended task, then return `Synced`."""

    execution: str


@dataclass(frozen=True, slots=True)
class Clear:
    """End an attempt. Its `files` are removed too if it never started, or if the server has them."""

    execution: str
    files: bool


@dataclass(frozen=True, slots=True)
class Stream:
    """Send the files of this running task from now on."""

    execution: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove directories: of whole tasks (`TASK`), or of their attempts up to one (`TASK/ATTEMPT`)."""

    names: Sequence[str]


@dataclass(frozen=True, slots=True)
class Leave:
    """Sign off (if the worker is registered) and end the program."""

    worker: str | None


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the log."""

    text: str
    warning: bool = False


Action = Register | Ask | Send | Keep | Run | Withdraw | Kill | Stream | Purge | Sync | Clear | Forget | Leave | Note
