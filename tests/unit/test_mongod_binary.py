"""Which mongod is taken: the one on PATH if it will do, else the packaged one, else none with the reasons."""

import sys
from pathlib import Path

import pytest

from banyan.errors import SetupError
from banyan.storage.mongod_binary import find_mongod


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a `mongod` would be found first."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "mongod"


@pytest.fixture
def nothing_packaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])


def write(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_one_on_path_comes_first(on_path: Path) -> None:
    write(on_path, "echo 'db version v7.0.5'")
    assert find_mongod() == on_path


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'db version v4.4.29'", "version 4.4 is older than 5.0"),
        ("echo 'libcrypto.so.3: cannot open shared object file' >&2; exit 127", "libcrypto.so.3: cannot open shared"),
        ("echo nonsense", "it prints no version"),
    ],
)
@pytest.mark.usefixtures("nothing_packaged")
def test_one_that_will_not_do_is_named_with_the_reason(on_path: Path, script: str, reason: str) -> None:
    write(on_path, script)
    with pytest.raises(SetupError) as caught:
        find_mongod()
    assert f"{on_path}: {reason}" in str(caught.value)
    assert "pip install 'banyan-queue[embedded]'" in str(caught.value)


@pytest.mark.usefixtures("nothing_packaged", "on_path")
def test_none_at_all_is_explained() -> None:
    with pytest.raises(
        SetupError, match=r"no usable mongod \(none on PATH, none packaged\)\. Install MongoDB 5 or newer"
    ):
        find_mongod()
