"""A replica set of three: what a client was told of is on a majority, and a lost primary costs a pause."""

import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from bson import ObjectId
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from banyan.domain.roles import Role
from banyan.errors import Unavailable
from banyan.queue.context import Context
from banyan.queue.rescue import Rescuer
from banyan.storage.mongo import Storage
from tests.faults.conftest import client, serving
from tests.support.hand_worker import HandWorker
from tests.support.proxy import Line
from tests.support.replica_set import ReplicaSet
from tests.support.waiting import eventually

Document = dict[str, Any]

CHAINS, LENGTH = 6, 6


def test_no_uri_weakens_what_is_written_and_read(trio: ReplicaSet) -> None:
    weak = "w=1&journal=false&retryWrites=false&retryReads=false&readConcernLevel=local&readPreference=nearest"
    storage = Storage.connect(f"{trio.uri}&{weak}", "weak")
    try:
        told = storage.client.options
        assert (told.write_concern, told.retry_writes) == (WriteConcern(w="majority", j=True, wtimeout=10_000), True)
        assert (told.read_concern, told.read_preference) == (ReadConcern("majority"), ReadPreference.PRIMARY)
        assert told.retry_reads
        assert storage.db.write_concern == told.write_concern
    finally:
        storage.close()


class Commands(CommandListener):
    """Remembers every command that the driver sends."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Document]] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.sent.append((event.command_name, dict(event.command)))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """It was sent all the same."""

    def failed(self, event: CommandFailedEvent) -> None:
        """It was sent all the same."""


def test_every_write_waits_for_a_majority_and_its_journals(trio: ReplicaSet) -> None:
    """Through a task's whole life. Wake-ups between servers and signs of life of workers alone may get lost."""
    commands = Commands()
    with serving(trio, "writes", commands) as context:
        provider, worker = client(context, "alice", Role.PROVIDER), HandWorker(client(context, "node", Role.WORKER))
        wanted = {"command": "true", "state": "available"}
        parent = provider.submit({**wanted, "max_retry_count": 1})["_id"]
        ids = [each["_id"] for each in provider.submit([{**wanted, "dependencies": [parent]}] * 2)]
        worker.end(worker.claim()[0], "failure (exit code 1)")
        worker.end(worker.claim()[0], progress={"fraction": 1.0})
        provider.cancel(ids[0])
        provider.retry(ids[0])
        provider.update(ids[0], {"priority": 3})
        worker.end(worker.claim()[0])
    writes = [(name, sent) for name, sent in commands.sent if name in ("insert", "update", "delete", "findAndModify")]
    alone = [(sent[name], sent) for name, sent in writes if "autocommit" not in sent and sent[name] != "signals"]
    commits = [("", sent) for name, sent in commands.sent if name == "commitTransaction"]
    may_get_lost = [sent for name, sent in writes if name == "findAndModify" and sent[name] == "workers"]
    assert {("last_seen" in sent["update"]["$set"], sent["writeConcern"]["w"]) for sent in may_get_lost} == {(True, 1)}
    concerns = [sent.get("writeConcern", {}) for _, sent in (*alone, *commits) if sent not in may_get_lost]
    assert {(each.get("w"), each.get("j")) for each in concerns} == {("majority", True)}
    assert {collection for collection, _ in alone} >= {"tasks", "executions", "workers", "continuations", "users"}
    assert commits


class Life:
    """Chains of tasks that a client submits and a worker ends, each step repeated until the server has said yes."""

    def __init__(self, context: Context) -> None:
        self.provider = client(context, "alice", Role.PROVIDER)
        self.worker = HandWorker(client(context, "node", Role.WORKER))
        self.ends: Counter[str] = Counter()
        self.fault: BaseException | None = None
        self.half_way = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            ids = [self._submit() for _ in range(CHAINS)]
            for _ in range(CHAINS * LENGTH):
                self._step()
                if sum(self.ends.values()) >= CHAINS * LENGTH // 3:
                    self.half_way.set()
            while self._waiting(ids):
                self._step()
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.fault = error
        finally:
            self.half_way.set()

    def _submit(self) -> str:
        ids = [str(ObjectId()) for _ in range(LENGTH)]
        tasks: list[Document] = [
            {"_id": id, "command": "true", "state": "available", "max_retry_count": 1} for id in ids
        ]
        for before, task in zip(ids, tasks[1:], strict=False):
            task["dependencies"] = [before]
        self.provider.submit(tasks)
        return ids[-1]

    def _step(self) -> None:
        """Claim, and let each task fail once and then succeed."""
        body = {"request": str(ObjectId()), "resources": {"cores": 4, "memory": 1 << 30}, "max_tasks": 4, "wait": 0}
        granted = repeated(lambda: self.worker.client.claim(self.worker.id, body))["tasks"]
        for grant in granted:
            status = "success" if grant["attempt"] > 1 else "failure (exit code 1)"
            end = {"execution": grant["execution"], "token": grant["token"], "exit_status": status}
            told = {"reports": [end], "memory_usage": []}
            answer = repeated(lambda: self.worker.client.report(self.worker.id, told))  # noqa: B023 - called at once
            assert answer["accepted"] == [grant["execution"]]
            self.ends[status] += 1

    def _waiting(self, last: list[str]) -> bool:
        return any(repeated(lambda: self.provider.task(id))["state"] != "terminated" for id in last)  # noqa: B023


def repeated(act: Callable[[], Any]) -> Any:
    """What a client of ours does with a 503: it asks again."""

    def answer() -> Any:
        try:
            return act()
        except Unavailable:
            return None

    return eventually(answer, seconds=60)


def step_down(trio: ReplicaSet) -> None:
    trio.step_down()


def kill(trio: ReplicaSet) -> None:
    trio.primary().send(signal.SIGKILL)


def stop(trio: ReplicaSet) -> None:
    """Until another one is the primary, so that it believes to be it still when it goes on."""
    stopped = trio.primary()
    stopped.send(signal.SIGSTOP)
    trio.primary()
    stopped.send(signal.SIGCONT)


def cut_off(trio: ReplicaSet) -> None:
    trio.primary().proxy.set(Line.CUT)


@pytest.mark.parametrize("lose", [step_down, kill, stop, cut_off])
def test_a_lost_primary_costs_a_pause_and_nothing_is_lost_or_counted_twice(
    trio: ReplicaSet, context: Context, lose: Callable[[ReplicaSet], None]
) -> None:
    life, rescuer = Life(context), Rescuer(context)
    rescuer.start()  # as in every server: what an error leaves half done is done by the next try, or by this
    try:
        life.thread.start()
        life.half_way.wait(60)
        lose(trio)
        life.thread.join(120)
    finally:
        rescuer.stop()
    assert not life.thread.is_alive(), life.ends
    if life.fault is not None:
        raise life.fault
    storage = context.storage
    assert storage.db["tasks"].count_documents({}) == CHAINS * LENGTH
    found = list(storage.db["tasks"].find())
    assert Counter((t["state"], t["exit_status"], t["retry_count"], t["abandoned_count"]) for t in found) == {
        ("terminated", "success", 1, 0): CHAINS * LENGTH
    }
    assert {t["pending_dependency_count"] for t in found} == {0}
    ends = Counter(attempt["exit_status"] for attempt in storage.db["executions"].find())
    assert ends == life.ends == {"success": CHAINS * LENGTH, "failure (exit code 1)": CHAINS * LENGTH}
    assert storage.db["continuations"].count_documents({"settled": False}) == 0
