"""Files beneath a directory in which others may write."""

import os
from pathlib import Path

import pytest

from banyan.beneath import MAX_DEPTH, directory, open_at, open_file, regular_files, remove

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a file, and with ways out of it that lead to a secret."""
    (tmp_path / "secret").write_text("secret")
    place = tmp_path / "place"
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "b" / "file").write_text("here")
    (place / "link").symlink_to(tmp_path / "secret")
    (place / "up").symlink_to(tmp_path)
    os.mkfifo(place / "pipe")
    return place


def read(place: Path, *steps: str) -> str:
    with directory(str(place)) as top, open(open_file(top, steps)) as file:
        return file.read()


def test_only_what_is_a_file_beneath_is_read_and_listed(place: Path) -> None:
    assert read(place, "a", "b", "file") == "here"
    for steps in (("link",), ("up", "secret"), ("pipe",), ("a",), ("missing",)):
        with pytest.raises(OSError, match=r"."):
            read(place, *steps)
    assert [path for path, _ in regular_files(str(place))] == ["a/b/file"]
    for linked in (place / "up", place / "link"):
        assert list(regular_files(str(linked))) == []
        with pytest.raises(OSError, match=r"."):
            open_at(f"{linked}/secret")


@as_root
def test_what_others_put_into_their_directory_must_be_theirs(place: Path, tmp_path: Path) -> None:
    os.link(tmp_path / "secret", place / "a" / "hard")
    (place / "a" / "theirs").write_text("theirs")
    (place / "a" / "ours").mkdir()
    (place / "a" / "ours" / "file").write_text("ours")
    os.chown(place / "a" / "theirs", NOBODY, NOBODY)
    assert read(place, "a", "hard") == "secret"
    os.chown(place / "a", NOBODY, NOBODY)
    assert read(place, "a", "theirs") == "theirs"
    for steps in (("a", "hard"), ("a", "ours", "file"), ("a", "b", "file")):
        with pytest.raises(PermissionError, match="does not belong to the user"):
            read(place, *steps)
    assert [path for path, _ in regular_files(str(place))] == ["a/theirs"]


def test_removing_takes_all_and_nothing_that_a_link_leads_to(place: Path, tmp_path: Path) -> None:
    here = os.open(place, os.O_RDONLY)
    for _ in range(1500):  # far deeper than a path or a recursion can be
        os.mkdir("deep", dir_fd=here)
        inner = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    assert len(list(regular_files(str(place)))) == 1
    remove(str(place))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret"]
    remove(str(place))


def test_removing_a_link_leaves_what_it_leads_to(place: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(place)
    remove(str(tmp_path / "alias"))
    assert (place / "a" / "b" / "file").exists()


def test_files_are_listed_as_deep_as_is_stated(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * MAX_DEPTH)
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    (deep / "e").mkdir()
    (deep / "e" / "deeper").write_text("x")
    assert [path.count("/") for path, _ in regular_files(str(tmp_path))] == [MAX_DEPTH]
