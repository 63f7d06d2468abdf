"""Reading beneath a shared directory: what is there, and nothing that lies elsewhere."""

import os
from pathlib import Path

import pytest

from banyan.queue.register import PROBE, shares_disk
from banyan.storage.disk import list_beneath, open_beneath, steps_of


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
    opened = open_beneath(str(root), "a/b/file")
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
    assert open_beneath(str(root), path) is None


@pytest.mark.parametrize("place", ["/nowhere", "relative", "", "a\0b"])
def test_a_root_that_is_none_has_no_files(place: str) -> None:
    assert open_beneath(place, "file") is None
    assert list_beneath(place, "a", 10) is None


def test_regular_files_are_listed_and_nothing_else(root: Path) -> None:
    (root / "a" / "z").write_text("z")
    found = list_beneath(str(root), "a", 10)
    assert found is not None
    assert [(file.path, file.size) for file in found] == [("b/file", 10), ("z", 1)]
    assert len(list_beneath(str(root), "a", 1) or []) == 1
    assert list_beneath(str(root), "a/up", 10) is None
    assert list_beneath(str(root), "link", 10) is None


def test_steps_of_a_path() -> None:
    assert steps_of("a/b") == ["a", "b"]
    assert steps_of("") == []
    assert [steps_of(path) for path in ("/a", "a/", "a/..", ".", "a\0")] == [None] * 5


def test_a_disk_is_shared_when_both_see_the_same_text(root: Path) -> None:
    probe = "0123456789abcdef"
    assert not shares_disk(str(root), probe)
    (root / PROBE).write_text(probe)
    assert shares_disk(str(root), probe)
    assert not shares_disk(str(root), "another probe, long enough")
    assert not shares_disk(os.path.relpath(root), probe)
    (root / PROBE).write_text("short")
    assert not shares_disk(str(root), "short")


def test_a_probe_that_is_no_plain_file_proves_nothing(root: Path, tmp_path: Path) -> None:
    (tmp_path / "probe").write_text("0123456789abcdef")
    (root / PROBE).symlink_to(tmp_path / "probe")
    assert not shares_disk(str(root), "0123456789abcdef")
    (root / PROBE).unlink()
    os.mkfifo(root / PROBE)
    assert not shares_disk(str(root), "0123456789abcdef")
