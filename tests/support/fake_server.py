"""A stand-in for the server that grants given tasks and records what a worker says; run as a program, a mute one."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from banyan.config import WorkerSettings
from banyan.errors import BanyanError, Conflict, TooLarge, Unavailable
from worker.daemon import Daemon
from worker.events import Drain

Document = dict[str, Any]


class FakeServer:
    """Grants `tasks` in their order, as far as a claim allows; hooks let a test answer or fail.

    `on_report` hears each report; what it puts into `cancel` is told to the worker at once. `fail` raises the errors
    of the test's choice for a call by its name.
    """

    def __init__(self, tasks: Iterable[Document], *, uploads: bool = False, quota_bytes: int | None = None) -> None:
        self.tasks = [task_document(task, number) for number, task in enumerate(tasks, 1)]
        self.registrations: list[Document] = []
        self.reports: list[Document] = []
        self.samples: list[Document] = []
        self.ends: dict[str, Document] = {}
        self.spooled: set[str] = set()
        """Attempts of an earlier life, whose ends are not those of `tasks`."""
        self.files: dict[tuple[str, str], bytes] = {}
        self.goodbyes: list[str] = []
        self.cancel: list[str] = []
        self.on_report: Callable[[Document], None] = lambda report: None
        self.on_end: Callable[[], None] = lambda: None
        self.fail: Callable[[str], BanyanError | None] = lambda call: None
        self._uploads = uploads
        self._quota_bytes = quota_bytes
        self._changed = threading.Condition()
        self._newest = ""
        self._granted: set[str] = set()

    def _perhaps_fail(self, call: str) -> None:
        error = self.fail(call)
        if error is not None:
            raise error

    def register_worker(self, worker: Document, /) -> Document:
        """A fresh id for each registration."""
        self._perhaps_fail("register")
        self.registrations.append(worker)
        files = "upload" if self._uploads else "shared"
        return {"_id": f"worker-{len(self.registrations)}", "heartbeat_seconds": 2.0, "files": files}

    def claim(self, worker: str, body: Document, /) -> Document:
        """Grant what is left, or wait for news."""
        deadline = time.monotonic() + body["wait"]
        with self._changed:
            self._newest = body["request"]
            self._changed.notify_all()
            while self._newest == body["request"]:
                self._perhaps_fail("claim")
                grants = self._grants(body)
                cancel = [each for each in self.cancel if each not in body["cancelling"]]
                if grants or cancel or not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    return {"tasks": grants, "cancel": cancel}
        return {}

    def _grants(self, body: Document) -> list[Document]:
        cores, room = body["resources"].get("cores", 0), body["max_tasks"]
        ahead = body.get("ahead") or {"seconds": 0.0, "most": 0, "classes": {}}
        waiting = body.get("waiting", {}).values()
        there = sum(each["seconds"] * count for each in waiting for _, count, _ in each["tasks"])
        seconds, most = ahead["seconds"] - there, ahead["most"]
        grants: list[Document] = []
        for task in self.tasks:
            if task["execution"] in self._granted:
                continue
            wanted = task["requested_resources"]["cores"]
            if room and wanted <= cores:
                cores, room = cores - wanted, room - 1
            elif most > 0 and seconds > 0 and (cost := ahead["classes"].get(task["class"], ahead.get("other"))):
                most, seconds = most - 1, seconds - cost
            else:
                break
            self._granted.add(task["execution"])
            grants.append(task)
        return grants

    def report(self, worker: str, body: Document, /) -> Document:
        """Record and accept everything."""
        self._perhaps_fail("report")
        with self._changed:
            for report in body["reports"]:
                self.reports.append(report)
                if "exit_status" in report:
                    self.ends[report["execution"]] = report
                elif report.get("given_back"):
                    self._granted.discard(report["execution"])
                self.on_report(report)
            self.samples += body["memory_usage"]
            self._changed.notify_all()
            if len(self.ends.keys() - self.spooled) == len(self.tasks):
                self.on_end()
        return {"accepted": [report["execution"] for report in body["reports"]], "cancel": list(self.cancel)}

    def tell_cancellations(self) -> None:
        """Answer an open claim if there is something in `cancel`."""
        with self._changed:
            self._changed.notify_all()

    def close_worker(self, worker: str, finished: Sequence[str], /) -> None:
        """Record the goodbye."""
        self._perhaps_fail("close")
        self.goodbyes.append(worker)

    def put_log(self, execution: str, stream: str, offset: int, data: bytes, token: str, /) -> int:
        """Keep what a stream has."""
        return self._put(execution, stream, offset, data, token)

    def put_file(self, execution: str, path: str, offset: int, data: bytes, token: str, /) -> int:
        """Keep what a file has."""
        return self._put(execution, path, offset, data, token)

    def _put(self, execution: str, path: str, offset: int, data: bytes, token: str) -> int:
        self._perhaps_fail("put")
        if token != f"token-{execution}":
            raise Conflict("not the attempt's token")
        have = self.files.get((execution, path), b"") if offset else b""
        if offset != len(have):
            return len(have)
        if self._quota_bytes is not None and offset + len(data) > self._quota_bytes:
            raise TooLarge("over quota")
        self.files[execution, path] = have + data
        return len(have) + len(data)


def task_document(task: Document, number: int) -> Document:
    """A grant, with what the test left out."""
    execution = task.get("execution", f"e{number}")
    wanted = task.get("requested_resources", {"cores": 1})
    defaults = {
        "_id": f"t{number}",
        "execution": execution,
        "token": f"token-{execution}",
        "attempt": 1,
        "class": repr((wanted, task.get("model") is None)),
        "queue": "default",
        "priority": 0,
        "order": f"{number:06d}",
        "weight": 1,
        "requested_resources": wanted,
    }
    return defaults | task


def work(root: Path, server: FakeServer, **settings: Any) -> int:
    """Run a worker in this process until all of the server's tasks have ended; its exit code."""
    told: dict[str, Any] = {"cores": 2, "workdir": str(root), "models": {"path": []}} | settings
    daemon = Daemon(WorkerSettings(**told), server, root)
    server.on_end = lambda: daemon.tell(Drain("all has ended"))
    return daemon.run()


def main() -> None:
    """A worker for one command, whose server hears nothing of what became of it."""
    server = FakeServer([{"command": sys.argv[2]}])
    server.fail = lambda call: Unavailable("deaf") if call == "report" else None
    work(Path(sys.argv[1]), server)


if __name__ == "__main__":
    main()
