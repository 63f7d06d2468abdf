"""The task that took the last room on a disk, and the room that each part of a task takes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from banyan.config import Reserve
from tests.support.worker import grant
from worker.disk import Disk, Space, Usage, changed_elsewhere, disk_of, floor_of, used
from worker.disk_blame import Reference, filled_words, scratch_excess, taker

GIB, MIB = 1 << 30, 1 << 20
FLOOR = Space(GIB, 10_000)
TOTAL = Space(100 * GIB, 10_000_000)
AMPLE = Reference(Space(3 * GIB, 100_000), 0.0)


def disk(free_bytes: int = 50 * GIB, free_files: int = 10**6) -> Disk:
    return Disk(Space(free_bytes, free_files), TOTAL)


def test_who_took_the_most_is_blamed_and_not_who_has_the_most() -> None:
    growth = {"large and idle": Space(0, 0), "small": Space(100 * MIB, 1), "fast": Space(2 * GIB, 3)}
    assert taker(disk(GIB // 2), FLOOR, AMPLE, growth) == "fast"


def test_nobody_is_blamed_while_there_is_room() -> None:
    assert taker(disk(GIB), FLOOR, AMPLE, {"a": Space(2 * GIB, 1)}) is None


def test_nobody_is_blamed_for_what_others_took() -> None:
    growth = {"a": Space(600 * MIB, 1), "b": Space(600 * MIB, 1)}
    assert taker(disk(GIB // 2), FLOOR, AMPLE, growth) is None
    assert taker(disk(GIB // 2), FLOOR, AMPLE, growth | {"c": Space(700 * MIB, 1)}) == "c"


def test_nobody_is_blamed_for_a_little_on_a_disk_that_is_low() -> None:
    low = Reference(Space(GIB // 2, 100_000), 0.0)
    assert taker(disk(GIB // 2 - 50 * MIB), FLOOR, low, {"a": Space(50 * MIB, 1)}) is None
    assert taker(disk(GIB // 2 - 200 * MIB), FLOOR, low, {"a": Space(200 * MIB, 1)}) == "a"


def test_files_count_as_bytes_do() -> None:
    growth = {"bytes": Space(40 * GIB, 10), "files": Space(0, 95_000)}
    assert taker(disk(free_files=500), FLOOR, AMPLE, growth) == "files"
    assert taker(Disk(Space(50 * GIB, 0), Space(100 * GIB, 0)), Space(GIB, 0), AMPLE, growth) is None


def test_one_that_shrank_does_not_take_from_what_others_took() -> None:
    assert taker(disk(GIB // 2), FLOOR, AMPLE, {"a": Space(-5 * GIB, 0), "b": Space(2 * GIB, 0)}) == "b"
    assert taker(disk(GIB // 2), FLOOR, AMPLE, {}) is None


def test_the_sentence_names_amount_place_and_floor() -> None:
    text = filled_words(disk(5), FLOOR, Space(2 * GIB, 3), "/data", 0)
    assert text.startswith("the task took 2.00 GiB of the disk of /data, on which 1.00 GiB must stay free; ")
    text = filled_words(disk(free_files=5), FLOOR, Space(0, 95_000), "/data", 1)
    assert text.startswith(
        "it filled the disk of its worker again, which counts as its own failure: the task took 95000 files of the "
        "disk of /data, on which room for 10000 files must stay free; "
    )


def test_the_floor_is_what_was_set_or_a_tenth_of_a_small_disk() -> None:
    small = Disk(Space(0, 0), Space(40 * MIB, 2000))
    assert floor_of(disk(), Reserve()) == Space(GIB, 10_000)
    assert floor_of(small, Reserve()) == Space(4 * MIB, 200)
    assert floor_of(small, Reserve(disk_bytes=7, disk_files=3)) == Space(7, 3)
    assert floor_of(Disk(Space(5, 0), Space(40 * MIB, 0)), Reserve(disk_files=3)) == Space(4 * MIB, 0)


def test_a_disk_that_is_gone_is_none(tmp_path: Path) -> None:
    assert disk_of(tmp_path / "gone") is None
    found = disk_of(tmp_path)
    assert found is not None
    assert 0 < found.free.bytes <= found.total.bytes


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    return tmp_path


def test_contents_count_once_and_holes_do_not(place: Path) -> None:
    own = place / "own"
    (own / "file").write_bytes(b"x" * 8192)
    (own / "other name").hardlink_to(own / "file")
    (own / "holes").touch()
    os.truncate(own / "holes", GIB)
    (own / "link").symlink_to(place)
    (own / "deep").mkdir()
    (own / "deep" / "file").write_bytes(b"x" * 100)
    usage = used([str(own)])
    assert usage.size_bytes == 8292
    assert usage.taken.files == 5
    assert used([str(place / "nowhere")]) == Usage()


@pytest.fixture
def removed(place: Path) -> Iterator[Path]:
    path = place / "removed"
    with path.open("wb") as file:
        file.write(b"x" * MIB)
        file.flush()
        os.fsync(file.fileno())
        path.unlink()
        yield path


def test_removed_files_count_as_long_as_they_are_open(place: Path, removed: Path) -> None:
    assert used([str(place / "own")], [os.getpid()]).size_bytes >= MIB
    assert used([str(place / "own")]).size_bytes == 0
    assert not removed.exists()


def test_files_elsewhere_count_if_they_changed(place: Path) -> None:
    (place / "own" / "file").write_bytes(b"x" * 8192)
    (place / "other").mkdir()
    (place / "other" / "new").write_bytes(b"x" * 8192)
    own, other = [str(place / "own")], str(place / "other")
    changed = os.stat(place / "other" / "new").st_ctime
    assert changed_elsewhere(own, [other], [], changed).size_bytes == 8192
    assert changed_elsewhere(own, [other], [], changed + 1).size_bytes == 0
    assert changed_elsewhere(own, [str(place / "own")], [], changed).size_bytes == 0
    assert changed_elsewhere(own, [str(place)], [], changed).size_bytes == 0  # what is deeper may be that of others
    (place / "beside").write_bytes(b"x" * 4096)
    assert changed_elsewhere(own, [str(place)], [], changed).size_bytes == 4096
    with (place / "opened").open("wb") as file:
        file.write(b"x" * 4096)
        file.flush()
        assert changed_elsewhere(own, [], [os.getpid()], changed).size_bytes >= 4096


def test_scratch_is_what_was_asked_for_and_not_a_byte_more() -> None:
    asked = grant("a", requested_resources={"cores": 1, "scratch": 4 * MIB})
    assert scratch_excess(asked, Usage(size_bytes=4 * MIB)) is None
    assert scratch_excess(asked, Usage(size_bytes=4 * MIB + 1)) is not None
    assert scratch_excess(grant("b"), Usage(size_bytes=GIB)) is None
