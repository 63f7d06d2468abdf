"""The whole queue over the real MongoDB, driven through random events, with servers that die between writes."""

from contextlib import suppress
from typing import Any, ClassVar

from bson import ObjectId
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from banyan.domain.continuations import Edge, satisfied
from banyan.domain.task import LIVE, Task
from banyan.errors import Conflict, IllegalTransition, Invalid, NotFound
from banyan.queue.cancel import cancel
from banyan.queue.context import Context
from banyan.queue.delete import delete
from banyan.queue.register import leave
from banyan.queue.rescue import rescue
from banyan.queue.retry import Outcome, retry, retry_all
from banyan.queue.retry_options import Downstream, RetryOptions
from banyan.queue.update import Update, update
from tests.support.queue import ALICE, SimulatedWorker, post, task

ENDS = ["success", "failure (exit code 1)", "timed out", "failure (worker: disk full)"]
CONDITIONS = st.sampled_from(["success", "failure", "any"])


class QueueMachine(RuleBasedStateMachine):
    """Users and workers do anything in any order; a subclass names the queue, which each run empties."""

    context: ClassVar[Context]
    ids = Bundle("ids")

    def begin(self) -> None:
        for name in ("tasks", "continuations", "executions", "workers"):
            self.context.storage.db[name].delete_many({})
        self.worker = SimulatedWorker(self.context)
        self.known: list[ObjectId] = []
        self.deleted: dict[ObjectId, Task] = {}
        self.needs: dict[ObjectId, dict[ObjectId, str]] = {}
        self.kept: set[ObjectId] = set()

    @rule(
        target=ids,
        parents=st.lists(st.tuples(ids, CONDITIONS), max_size=3),
        group=st.booleans(),
        hold=st.booleans(),
        retries=st.integers(0, 2),
    )
    def submit(self, parents: list[tuple[ObjectId, str]], group: bool, hold: bool, retries: int) -> ObjectId:
        return self.add(parents, group, hold, retries)

    def add(self, parents: list[tuple[ObjectId, str]], group: bool, hold: bool, retries: int) -> ObjectId:
        needs = {parent: on for parent, on in dict(parents).items() if parent not in self.deleted}
        dependencies = [{"task": parent, "on": on} for parent, on in needs.items()]
        command = None if group else "true"
        (id,) = post(self.context, task(command=command, hold=hold, max_retry_count=retries, dependencies=dependencies))
        self.known.append(id)
        self.needs[id] = needs
        return id

    @initialize(target=ids, edges=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), CONDITIONS), max_size=12))
    def submit_a_graph(self, edges: list[tuple[int, int, str]]) -> Any:
        self.begin()
        made: list[ObjectId] = []
        for number in range(7):
            parents = [(made[parent], on) for parent, child, on in edges if parent < child == number]
            made.append(self.add(parents, False, False, 0))
        return multiple(*made)

    @rule(count=st.integers(1, 3))
    def claim(self, count: int) -> None:
        self.take(count)

    def take(self, count: int) -> bool:
        """Claim, and look whether the parents of what is granted ended as it needs; whether there was anything."""
        granted = [grant["_id"] for grant in self.worker.claim(count).tasks]
        for id in set(granted) - self.kept:
            for parent, on in self.needs[id].items():
                last = self.deleted.get(parent) or self.context.storage.tasks.load([parent])[parent]
                assert satisfied(on, last), f"{id} runs, although its parent {last} did not end for {on}"
        return bool(granted)

    @rule(status=st.sampled_from(ENDS), data=st.data())
    def end(self, status: str, data: Any) -> None:
        if self.worker.held:
            execution = data.draw(st.sampled_from(sorted(self.worker.held)))
            self.worker.end(status, executions=[execution])

    @rule(count=st.integers(1, 3), status=st.sampled_from(ENDS))
    def run(self, count: int, status: str) -> None:
        """Claim and end, so that much has ended."""
        self.take(count)
        if self.worker.held:
            self.worker.end(status)

    def one_that_ended(self, data: Any) -> ObjectId | None:
        """Any of the tasks that have ended, if there are some: others are seldom worth a retry or a deletion."""
        ended = [each.id for each in self.context.storage.tasks.load(self.known).values() if each.ended]
        return data.draw(st.sampled_from(sorted(ended))) if ended else None

    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        if (id := self.one_that_ended(data)) is None:
            return
        found = self.context.storage.tasks.load([id])
        if delete(self.context, [id], many=2):
            self.deleted |= found
            self.known.remove(id)

    @rule()
    def forget_the_answer(self) -> None:
        self.worker.held.clear()

    @rule()
    def replace_the_worker(self) -> None:
        leave(self.context, self.worker.id)
        self.worker = SimulatedWorker(self.context)

    @rule(id=ids)
    def cancel(self, id: ObjectId) -> None:
        cancel(self.context, [id], {"user": "alice"})

    @rule(data=st.data(), downstream=st.sampled_from(Downstream), spare=st.booleans(), dry_run=st.booleans())
    def retry(self, data: Any, downstream: Downstream, spare: bool, dry_run: bool) -> None:
        if (id := self.one_that_ended(data)) is None:
            return
        without = frozenset(self.deleted) if spare else frozenset()
        options = RetryOptions(downstream=downstream, without=without, dry_run=dry_run)
        with suppress(Invalid, NotFound):
            self.note(retry(self.context, id, options), options)

    @rule(some=st.lists(ids, min_size=2, max_size=4, unique=True), downstream=st.sampled_from(Downstream))
    def retry_together(self, some: list[ObjectId], downstream: Downstream) -> None:
        options = RetryOptions(downstream=downstream)
        outcome = retry_all(self.context, some, options)
        assert outcome.refused.keys() | outcome.roots == set(some)
        self.note(outcome, options)

    def note(self, outcome: Outcome, options: RetryOptions) -> None:
        """Tasks that were kept run on without their parents' new ends; those that begin again do without some."""
        if options.dry_run:
            return
        self.kept = (self.kept | outcome.kept.keys()) - outcome.again.keys()
        for id in outcome.again:
            self.needs[id] = {parent: on for parent, on in self.needs[id].items() if parent not in options.without}

    @rule(id=ids, hold=st.booleans())
    def hold(self, id: ObjectId, hold: bool) -> None:
        with suppress(IllegalTransition, NotFound, Conflict):  # the worker does not answer that it gives it back
            update(self.context, id, Update(fields={"hold": hold}), ALICE, wait_seconds=0.0)

    @rule()
    def rescue(self) -> None:
        rescue(self.context)

    @invariant()
    def one_live_attempt_at_most(self) -> None:
        tasks = self.context.storage.tasks.load(self.known)
        live: dict[ObjectId, list[ObjectId]] = {id: [] for id in self.known}
        for attempt in self.context.storage.db["executions"].find({"time_terminated": None}):
            live[attempt["task"]].append(attempt["_id"])
        for id, each in tasks.items():
            assert live[id] == ([each.execution] if each.state in LIVE else []), each

    @invariant()
    def edges_hold_what_they_promise(self) -> None:
        tasks = self.context.storage.tasks.load(self.known)
        documents = self.context.storage.tasks.documents(self.known, ["pending_dependency_count"])
        edges_of: dict[ObjectId, list[Edge]] = {id: [] for id in self.known}
        for edge in self.context.storage.edges.of_children(self.known):
            edges_of[edge.child].append(edge)
        for id, edges in edges_of.items():
            assert {edge.parent: edge.on for edge in edges} == self.needs[id], "an edge leaves with its child alone"
            unsettled = sum(not edge.settled for edge in edges)
            if tasks[id].state != "cancelled":
                assert documents[id]["pending_dependency_count"] == unsettled
            for edge in edges:
                outcome = satisfied(edge.on, self.deleted.get(edge.parent) or tasks[edge.parent])
                if not edge.outdated:
                    assert (edge.settled, edge.satisfied) == (outcome is not None, outcome)
                if tasks[id].state in LIVE and id not in self.kept:
                    assert edge.satisfied
                assert not edge.outdated or (edge.settled and tasks[id].state != "inactive")
            if tasks[id].state == "inactive" and not tasks[id].hold:
                assert unsettled, f"{tasks[id]} waits for nothing"

    def teardown(self) -> None:
        for id in getattr(self, "known", []):
            self.hold(id, False)
        if hasattr(self, "worker"):
            self.replace_the_worker()
            while self.take(1000):
                self.worker.end()
            assert all(each.ended for each in self.context.storage.tasks.load(self.known).values())
            assert self.context.storage.tasks.unsettled(10) == []


def test_any_sequence_of_events_leaves_a_queue_that_adds_up_and_ends(context: Context) -> None:
    checks = settings(max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))
    bound = type("BoundMachine", (QueueMachine,), {"context": context})
    run_state_machine_as_test(bound, settings=checks)
