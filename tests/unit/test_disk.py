"""Reading beneath a shared directory: what is there, and nothing that lies elsewhere."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from banyan import beneath
from banyan.storage.disk import Root, list_beneath, open_beneath, shared_root, steps_of

PROBE = ".probe"
TEXT = "0123456789abcdef"


def at(path: object) -> Root:
    return Root(path=str(path), owner=os.getuid())


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with a file, and outside of it a secret that links point to."""
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_bytes(b"0123456789")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "a" / "up").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    return root


def test_a_file_is_read_in_part_and_in_whole(root: Path) -> None:
    opened = open_beneath(at(root), "a/b/file")
    assert opened is not None
    assert (opened.size, b"".join(opened.read(0, 10)), b"".join(opened.read(3, 5))) == (10, b"0123456789", b"34")
    assert b"".join(opened.read(8, 100)) == b"89"
    opened.close()


@pytest.mark.parametrize(
    "path",
    [
        *("link", "a/up/secret", "a/up", "../secret", "a/../../secret", "/etc/passwd", "pipe", "a", "", "a//b/file"),
        *("./a", "missing", "a/b/file/", "a/b/file/x", "a\0", "x" * 300, "a/\ud800"),
    ],
)
def test_what_is_no_file_beneath_the_root_is_not_opened(root: Path, path: str) -> None:
    assert open_beneath(at(root), path) is None


@pytest.mark.parametrize("place", ["/nowhere", "relative", "", "a\0b"])
def test_a_root_that_is_none_has_no_files(place: str) -> None:
    assert open_beneath(at(place), "file") is None
    assert list_beneath(at(place), "a", 10) is None


def test_regular_files_are_listed_and_nothing_else(root: Path) -> None:
    (root / "a" / "z").write_text("z")
    found = list_beneath(at(root), "a", 10)
    assert found is not None
    assert [(file.path, file.size) for file in found] == [("b/file", 10), ("z", 1)]
    assert len(list_beneath(at(root), "a", 1) or []) == 1
    assert list_beneath(at(root), "a/up", 10) is None
    assert list_beneath(at(root), "link", 10) is None


def test_steps_of_a_path() -> None:
    assert steps_of("a/b") == ["a", "b"]
    assert steps_of("") == []
    assert [steps_of(path) for path in ("/a", "a/", "a/..", ".", "a\0")] == [None] * 5


def test_a_directory_of_another_user_in_the_roots_place_is_not_read(root: Path) -> None:
    swapped = Root(path=str(root), owner=os.getuid() + 1)
    assert open_beneath(swapped, "a/b/file") is None
    assert list_beneath(swapped, "a", 10) is None


def test_a_disk_is_shared_when_both_see_the_same_text(root: Path) -> None:
    assert shared_root(str(root), PROBE, TEXT) is None
    (root / PROBE).write_text(TEXT)
    assert shared_root(str(root), PROBE, TEXT) == at(root)
    assert shared_root(str(root), PROBE, "another probe, long enough") is None
    assert shared_root(os.path.relpath(root), PROBE, TEXT) is None
    (root / PROBE).write_text("short")
    assert shared_root(str(root), PROBE, "short") is None


def test_a_probe_that_is_no_plain_file_proves_nothing(root: Path, tmp_path: Path) -> None:
    (tmp_path / "probe").write_text(TEXT)
    (root / PROBE).symlink_to(tmp_path / "probe")
    assert shared_root(str(root), PROBE, TEXT) is None
    (root / PROBE).unlink()
    os.mkfifo(root / PROBE)
    assert shared_root(str(root), PROBE, TEXT) is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_probe_in_somebody_elses_directory_proves_nothing(root: Path) -> None:
    (root / PROBE).write_text(TEXT)
    os.chown(root / PROBE, 12345, -1)
    assert shared_root(str(root), PROBE, TEXT) is None


def test_a_file_that_is_said_to_be_from_another_age_is_read_all_the_same(root: Path) -> None:
    for seconds in (-(10**11), 10**12):
        try:
            os.utime(root / "a" / "b" / "file", (seconds, seconds))
        except OSError:
            continue  # this file system has no such time
        opened = open_beneath(at(root), "a/b/file")
        assert opened is not None
        opened.close()
        assert [file.path for file in list_beneath(at(root), "a", 10) or ()] == ["b/file"]


def test_countless_empty_directories_are_not_all_looked_at(root: Path) -> None:
    for number in range(1500):
        (root / "many" / str(number)).mkdir(parents=True)
    with opened(root) as directory:
        assert [path for path, _ in beneath.files_of(directory)] == ["a/b/file"]
        assert list(beneath.files_of(directory, 3)) == []
    found = list_beneath(at(root), "many", 1)
    assert found == []


def test_directories_within_directories_without_end_are_left(root: Path) -> None:
    here = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    assert [file.path for file in list_beneath(at(root), "", 10) or ()] == ["a/b/file"]
    assert open_beneath(at(root), "d/" * 1500 + "file") is None
    beneath.remove(str(root / "d"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_second_name_of_somebody_elses_file_does_not_lead_there(root: Path, tmp_path: Path) -> None:
    (root / "a" / "linked").hardlink_to(tmp_path / "secret")
    for place in (root, root / "a", root / "a" / "b", root / "a" / "b" / "file"):
        os.chown(place, 4321, 4321)
    worker = Root(path=str(root), owner=4321)
    assert open_beneath(worker, "a/linked") is None
    assert [file.path for file in list_beneath(worker, "a", 10) or ()] == ["b/file"]
    os.chown(tmp_path / "secret", 4321, 4321)
    assert open_beneath(worker, "a/linked") is not None


def test_what_is_exchanged_while_it_is_read_leads_nowhere(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "b"
    outside.mkdir(parents=True)
    (outside / "file").write_text("secret")
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            (root / "a").rename(root / "kept")
            (root / "a").symlink_to(tmp_path / "outside")
            (root / "a").unlink()
            (root / "kept").rename(root / "a")

    with ThreadPoolExecutor(1) as pool:
        exchanging = pool.submit(exchange)
        seen = set()
        for _ in range(2000):
            opened_file = open_beneath(at(root), "a/b/file")
            if opened_file is not None:
                seen.add(b"".join(opened_file.read(0, 100)))
                opened_file.close()
        stop.set()
        exchanging.result()
    assert seen <= {b"0123456789"}
