"""A mongod of a test's own that hangs or dies, and comes back."""

import signal
from dataclasses import dataclass
from pathlib import Path

from banyan.storage import embedded
from banyan.storage.embedded import EmbeddedMongo


@dataclass
class LeavingMongo:
    """A mongod that goes away and comes back on the same data and port."""

    directory: Path
    now: EmbeddedMongo

    @classmethod
    def start(cls, directory: Path) -> "LeavingMongo":
        return cls(directory, _start(directory))

    def leave(self, *, hang: bool) -> None:
        if hang:
            self.now.process.send_signal(signal.SIGSTOP)
        else:
            self.now.process.kill()
            self.now.stop()

    def come_back(self) -> None:
        self.now.process.send_signal(signal.SIGCONT)
        if self.now.process.poll() is not None:
            self.now = _start(self.directory)

    def stop(self) -> None:
        self.now.process.send_signal(signal.SIGCONT)
        if self.now.process.poll() is None:
            self.now.stop()


def _start(directory: Path) -> EmbeddedMongo:
    return embedded.start(directory / "mongo", log=directory / "mongod.log", cache_gigabytes=0.25)
