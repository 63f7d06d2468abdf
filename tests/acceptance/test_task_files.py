"""`banyan files` through a real `banyan up`: files and directories, listed, printed and saved."""

import json
from pathlib import Path

import pytest

from banyan.client import Client
from tests.support.cli import Banyan

WRITES = "mkdir -p out/sub out2; echo a >out/a.csv; echo b >out/sub/b.csv; echo c >c.txt; echo d >out2/d; : >empty"


@pytest.fixture
def task(client: Client) -> str:
    """A task that has left some files."""
    task: str = client.submit({"command": WRITES, "state": "available"})["_id"]
    assert client.wait([task], 60)[0]["exit_status"] == "success"
    return task


def saved(directory: Path) -> dict[str, str]:
    return {str(each.relative_to(directory)): each.read_text() for each in directory.rglob("*") if each.is_file()}


def test_a_file_is_printed_and_a_directory_is_listed(banyan: Banyan, task: str) -> None:
    assert banyan("files", task, "out/a.csv") == (0, "a\n", "")
    assert banyan("files", task, "./c.txt") == (0, "c\n", "")
    assert banyan("files", task, "empty") == (0, "", "")
    for path in ("out", "out/"):
        status, output, error = banyan("files", task, path)
        assert (status, error) == (0, "")
        assert [line.split()[-1] for line in output.splitlines()] == ["PATH", "out/a.csv", "out/sub/b.csv"]
    for path, names in [("out", ["out/a.csv", "out/sub/b.csv"]), ("c.txt", ["c.txt"])]:
        assert [each["path"] for each in json.loads(banyan("files", task, path, "--json")[1])] == names


def test_a_file_a_directory_or_all_is_saved(banyan: Banyan, task: str, tmp_path: Path) -> None:
    assert banyan("files", task, "out/a.csv", "-o", str(tmp_path / "one")) == (0, "", "")
    assert saved(tmp_path / "one") == {"out/a.csv": "a\n"}
    assert banyan("files", task, "out", "-o", str(tmp_path / "some")) == (0, "", "")
    assert saved(tmp_path / "some") == {"out/a.csv": "a\n", "out/sub/b.csv": "b\n"}
    status, output, _ = banyan("files", task, "-o", str(tmp_path / "all"), "--json")
    everything = {"out/a.csv": "a\n", "out/sub/b.csv": "b\n", "c.txt": "c\n", "out2/d": "d\n", "empty": ""}
    assert (status, saved(tmp_path / "all")) == (0, everything)
    assert {each["path"] for each in json.loads(output)} == everything.keys()


@pytest.mark.parametrize("path", ["nowhere", "ou", "out/a.csv/b", "../c.txt", "/etc/passwd", "."])
def test_what_is_not_there_is_told_and_leaves_nothing_behind(
    banyan: Banyan, task: str, tmp_path: Path, path: str
) -> None:
    for more in ((), ("-o", str(tmp_path / "saved")), ("--json",)):
        status, output, error = banyan("files", task, path, *more)
        assert (status, output) == (2, "")
        assert path in error
    assert list(tmp_path.iterdir()) == []
