"""A random graph of tasks, driven through random events by the rules alone: no storage, no clock."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from bson import ObjectId
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from banyan.domain.continuations import Edge, find_cycle, satisfied
from banyan.domain.task import LIVE, State, Task
from banyan.domain.transitions import Cancel, Claim, Due, End, Event, GiveBack, Promote, Release, decide
from banyan.errors import IllegalTransition, StaleAttempt

ENDS = ["success", "failure (exit code 1)", "timed out", "abandoned (worker unreachable)", "failure (worker: disk)"]


@dataclass
class Book:
    """Tasks, edges and attempts in memory, changed by `decide` alone."""

    now: datetime = datetime(2024, 5, 1, tzinfo=UTC)
    tasks: dict[ObjectId, Task] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    attempts: dict[ObjectId, ObjectId] = field(default_factory=dict)
    live: set[ObjectId] = field(default_factory=set)

    def add(self, parents: list[tuple[ObjectId, str]], group: bool, hold: bool, retries: int) -> ObjectId:
        task = Task(
            id=ObjectId(), revision="", state=State.INACTIVE, is_group=group, hold=hold, max_retry_count=retries
        )
        self.tasks[task.id] = task
        self.edges += [Edge(parent=parent, child=task.id, on=on) for parent, on in parents]
        if not parents:
            self.apply(task.id, Release())
        self.settle()
        return task.id

    def apply(self, id: ObjectId, event: Event) -> None:
        task = self.tasks[id]
        change = decide(task, event, self.now)
        if change is None:
            return
        known = {name: value for name, value in change.fields.items() if name in Task.__slots__}
        self.tasks[id] = replace(task, state=change.state, **known)
        if isinstance(event, Claim):
            self.attempts[event.execution] = id
            self.live.add(event.execution)
        if isinstance(event, (End, GiveBack)):
            self.live.discard(event.execution)

    def settle(self) -> None:
        moved = True
        while moved:
            moved = False
            for i, edge in enumerate(self.edges):
                outcome = satisfied(edge.on, self.tasks[edge.parent])
                if not edge.settled and outcome is not None:
                    self.edges[i] = replace(edge, settled=True, satisfied=outcome)
            for id, task in list(self.tasks.items()):
                mine = [edge for edge in self.edges if edge.child == id]
                if task.state == State.INACTIVE and mine and all(edge.settled for edge in mine):
                    broken = [edge for edge in mine if not edge.satisfied]
                    self.apply(id, Cancel({"task": broken[0].parent}) if broken else Promote())
                    moved = moved or self.tasks[id].state != State.INACTIVE


class GraphMachine(RuleBasedStateMachine):
    """Users submit, cancel and hold; workers claim, end, give back and vanish; the rules decide."""

    ids = Bundle("ids")

    @initialize()
    def begin(self) -> None:
        self.book = Book()

    @rule(
        target=ids,
        parents=st.lists(st.tuples(ids, st.sampled_from(["success", "failure", "any"])), max_size=3),
        group=st.booleans(),
        hold=st.booleans(),
        retries=st.integers(0, 2),
    )
    def submit(self, parents: list[tuple[ObjectId, str]], group: bool, hold: bool, retries: int) -> ObjectId:
        return self.book.add(list(dict(parents).items()), group, hold, retries)

    @rule(id=ids)
    def claim(self, id: ObjectId) -> None:
        task = self.book.tasks[id]
        if task.state == State.AVAILABLE and not task.hold and task.due(self.book.now) and not task.is_group:
            self.book.apply(id, Claim(ObjectId(), ObjectId(), "request"))

    @rule(id=ids, status=st.sampled_from(ENDS))
    def end(self, id: ObjectId, status: str) -> None:
        execution = self.book.tasks[id].execution
        if execution in self.book.live and execution is not None:
            self.book.apply(id, End(execution, status))
            self.book.settle()

    @rule(id=ids)
    def give_back(self, id: ObjectId) -> None:
        execution = self.book.tasks[id].execution
        if execution in self.book.live and execution is not None:
            self.book.apply(id, GiveBack(execution))
            self.book.settle()

    @rule(id=ids, status=st.sampled_from(ENDS))
    def ghost(self, id: ObjectId, status: str) -> None:
        before = self.book.tasks[id]
        for event in (End(ObjectId(), status), GiveBack(ObjectId())):
            try:
                self.book.apply(id, event)
            except (StaleAttempt, IllegalTransition):
                continue
            raise AssertionError(f"a ghost changed {before}")

    @rule(id=ids)
    def cancel(self, id: ObjectId) -> None:
        self.book.apply(id, Cancel({"user": "alice"}))
        self.book.settle()

    @rule(id=ids)
    def let_go(self, id: ObjectId) -> None:
        task = self.book.tasks[id]
        if task.hold:
            self.book.tasks[id] = replace(task, hold=False)
            if task.state == State.AVAILABLE:
                self.book.apply(id, Due())
            self.book.settle()

    @invariant()
    def one_live_attempt_at_most(self) -> None:
        for id, task in self.book.tasks.items():
            live = [execution for execution in self.book.live if self.book.attempts[execution] == id]
            assert live == ([task.execution] if task.state in LIVE else [])

    @invariant()
    def no_child_begins_before_its_edges_are_satisfied(self) -> None:
        for edge in self.book.edges:
            child = self.book.tasks[edge.child]
            if child.state in LIVE or child.attempt_count:
                assert satisfied(edge.on, self.book.tasks[edge.parent])

    @invariant()
    def nothing_is_stuck(self) -> None:
        assert find_cycle((edge.parent, edge.child) for edge in self.book.edges) == []
        for id, task in self.book.tasks.items():
            waits = [edge for edge in self.book.edges if edge.child == id and not edge.settled]
            if task.state == State.INACTIVE and not task.hold:
                assert waits, f"{task} waits for nothing"
            assert all(not self.book.tasks[edge.parent].ended for edge in waits)

    def teardown(self) -> None:
        """Whatever was left behind ends well once every hold is lifted and workers take what there is."""
        for id in list(self.book.tasks):
            self.let_go(id)
        self.book.now += timedelta(days=2)
        while ready := [t for t in self.book.tasks.values() if t.state in LIVE or t.state == State.AVAILABLE]:
            for task in ready:
                if task.state == State.AVAILABLE:
                    self.claim(task.id)
                self.end(task.id, "success")
        assert all(task.ended for task in self.book.tasks.values())


TestGraphMachine = GraphMachine.TestCase
TestGraphMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
