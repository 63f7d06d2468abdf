"""Where a task comes among those that wait at a worker, beside a slow and obvious reckoning."""

from hypothesis import given
from hypothesis import strategies as st

from banyan.domain.line import Line, Waiting
from banyan.domain.resources import Resources, rounded_down, rounded_up

WEIGHTS = {"a": 3.0, "b": 1.0, "c": 0.5}

_counts = st.dictionaries(st.sampled_from(sorted(WEIGHTS)), st.integers(1, 20))
_newcomers = st.lists(st.sampled_from(sorted(WEIGHTS)), max_size=30)


def waiting(counts: dict[str, int]) -> dict[str, Waiting]:
    """So many tasks of each queue, each of one second, of priority 0."""
    return {name: Waiting(turn=10.0, seconds=1.0, tasks=[(0, count, "5")]) for name, count in counts.items()}


@given(_counts, _newcomers)
def test_newcomers_behind_what_waits_come_where_the_turns_of_their_queues_put_them(
    counts: dict[str, int], newcomers: list[str]
) -> None:
    line = Line(10.0, {}, waiting(counts), WEIGHTS)
    taken = dict.fromkeys(WEIGHTS, 0)
    for queue in newcomers:
        tag = 10.0 + (counts.get(queue, 0) + taken[queue]) / WEIGHTS[queue]
        assert abs(line.place(queue, 0, "6").tag - tag) < 1e-9
        line.add(queue, 1.0)
        taken[queue] += 1


@given(_counts)
def test_the_work_before_a_task_is_that_with_earlier_turns(counts: dict[str, int]) -> None:
    line = Line(10.0, {}, waiting(counts), WEIGHTS)
    tags = {name: [10.0 + place / WEIGHTS[name] for place in range(count)] for name, count in counts.items()}
    for queue in WEIGHTS:
        place = line.place(queue, 0, "6")
        before = sum(tag < place.tag - 1e-9 or name == queue for name in tags for tag in tags[name])
        assert place.seconds == before
        assert place.precedes == any(tag > place.tag + 1e-9 for name in tags for tag in tags[name] if name != queue)


def test_a_higher_priority_comes_before_all_of_its_queue_and_pushes_none_out_of_count() -> None:
    line = Line(10.0, {}, waiting({"b": 20}), WEIGHTS)
    for count in range(5):
        place = line.place("b", 9, "6")
        assert (place.tag, place.seconds, place.precedes) == (10.0 + count, float(count), True)
        line.add("b", 1.0)
    assert line.place("b", 0, "6").seconds == 25.0


_amounts = st.integers(0, 2**50)


@given(_amounts, _amounts, _amounts)
def test_requests_that_are_alike_lie_between_the_least_and_the_largest_of_them(
    cores: int, memory: int, license: int
) -> None:
    wanted = Resources(millicores=cores, memory_bytes=memory, custom={"license": license})
    least, most = rounded_down(wanted), rounded_up(wanted)
    assert least.fits(wanted)
    assert wanted.fits(most)
    assert rounded_up(least) == rounded_up(most) == most
    assert memory <= most.memory_bytes <= memory + memory // 8
