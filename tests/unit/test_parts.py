"""Cutting a submission into parts, so that no task begins before all of its edges are there."""

from typing import Any

import bson
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from banyan.domain.continuations import Edge
from banyan.queue.parts import EDGE_BYTES, TASK_BYTES, Split
from banyan.storage.parts import Part

NEW = [ObjectId() for _ in range(12)]
OLDER = [ObjectId() for _ in range(3)]
PART_BYTES = 4 * TASK_BYTES

pairs = st.tuples(st.sampled_from(NEW + OLDER), st.sampled_from(NEW + OLDER)).filter(
    lambda pair: pair[0] != pair[1] and (pair[0] in NEW or pair[1] in NEW)
)


def split(edges: list[Edge], count: int, part_bytes: int = PART_BYTES) -> Split:
    waits = {edge.child for edge in edges}
    tasks = [{"_id": id, "pending_dependency_count": int(id in waits)} for id in NEW[:count]]
    return Split(tasks, list(map(bson.encode, tasks)), edges, part_bytes=part_bytes)


def tasks_of(part: Part) -> list[dict[str, Any]]:
    return [bson.decode(task) for task in part.tasks]


@given(st.lists(pairs, unique=True, max_size=30))
def test_all_tasks_come_once_in_order_and_all_edges_once(ends: list[tuple[ObjectId, ObjectId]]) -> None:
    edges = [Edge(parent=parent, child=child) for parent, child in ends]
    cut = split(edges, len(NEW))
    assert [task["_id"] for part in cut.parts for task in tasks_of(part)] == NEW
    assert sorted(e.id for e in [*cut.first, *(e for part in cut.parts for e in part.edges)]) == sorted(
        edge.id for edge in edges
    )
    for part in cut.parts:
        assert len(part.tasks) * TASK_BYTES + len(part.edges) * EDGE_BYTES <= PART_BYTES


@given(st.lists(pairs, unique=True, max_size=30))
def test_no_task_is_there_before_its_edges(ends: list[tuple[ObjectId, ObjectId]]) -> None:
    cut = split([Edge(parent=parent, child=child) for parent, child in ends], len(NEW))
    part_of = {task["_id"]: number for number, part in enumerate(cut.parts) for task in tasks_of(part)}
    for number, part in enumerate(cut.parts):
        for edge in part.edges:
            assert number <= part_of.get(edge.parent, len(cut.parts))
            assert edge.child in OLDER or number <= part_of[edge.child]
        assert set(part.parents) == {edge.parent for edge in part.edges} & set(OLDER)


@given(st.lists(pairs, unique=True, max_size=30))
def test_an_older_child_waits_for_its_last_parent_from_the_beginning(ends: list[tuple[ObjectId, ObjectId]]) -> None:
    edges = [Edge(parent=parent, child=child) for parent, child in ends]
    cut = split(edges, len(NEW))
    for child in OLDER:
        parents = [edge.parent for edge in edges if edge.child == child]
        assert [edge.parent for edge in cut.first if edge.child == child] == sorted(parents, key=NEW.index)[-1:]


def test_one_task_that_is_heavier_than_a_part_has_a_part_of_its_own() -> None:
    tasks: list[dict[str, Any]] = [{"_id": id, "pending_dependency_count": 0} for id in NEW[:3]]
    tasks[1]["stdin"] = "x" * 10 * PART_BYTES
    cut = Split(tasks, list(map(bson.encode, tasks)), [], part_bytes=PART_BYTES)
    assert [[task["_id"] for task in tasks_of(part)] for part in cut.parts] == [[NEW[0]], [NEW[1]], [NEW[2]]]


def test_a_task_with_parents_is_marked_to_be_looked_at() -> None:
    cut = split([Edge(parent=NEW[0], child=NEW[1])], 2)
    assert [[task.get("unpromoted") for task in tasks_of(part)] for part in cut.parts] == [[None, True]]
    assert [part.unpromoted for part in cut.parts] == [[NEW[1]]]
