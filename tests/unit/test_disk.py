"""Reading beneath a shared directory: what is there, and nothing that lies elsewhere."""

import os
from pathlib import Path

import pytest

from banyan.storage.disk import Root, list_beneath, open_beneath, shared_root, steps_of

PROBE = ".probe"
TEXT = "0123456789abcdef"


def at(path: object) -> Root:
    return Root(path=str(path), owner=os.getuid())


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
