"""Which files, packages and entry points are models, what is told of them, and when they have changed."""

import logging
import os
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from banyan.models.finding import Source, find, offered

TASK = "def task(spec, cancel):\n    pass\n"


def write(directory: Path, **files: str) -> str:
    """Files by name, `__` for a slash; a directory for `models.path`."""
    for name, text in files.items():
        file = directory / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return str(directory)


def names(path: str) -> set[str]:
    return {name for name, source in find([path]).items() if source.directory == path and not source.helper}


def test_files_and_packages_are_models_by_their_names(tmp_path: Path) -> None:
    path = write(tmp_path, add=f'"""Add numbers.\n\nMore."""\n{TASK}')
    (tmp_path / "fmi").mkdir()
    (tmp_path / "fmi" / "__init__.py").write_text("from fmi.inner import task")
    found = find([path])
    assert found["add"] == Source(name="add", module="add", directory=path, summary="Add numbers.")
    assert found["fmi"] == Source(name="fmi", module="fmi", directory=path)


@pytest.mark.parametrize(
    "text",
    [
        TASK,
        "async def task(spec, cancel):\n    pass\n",
        "task = lambda spec, cancel: None",
        "task: object = print",
        "first, (task, *rest) = 1, (2, 3)",
        "from elsewhere import task",
        "from elsewhere import run as task",
        "import task",
        "try:\n    from fast import task\nexcept ImportError:\n    from slow import task\n",
        "if True:\n    pass\nelse:\n    with open('x') as f:\n        task = f\n",
    ],
)
def test_a_module_that_gives_task_a_value_is_a_model(tmp_path: Path, text: str) -> None:
    assert names(write(tmp_path, m=text)) == {"m"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "def other():\n    def task(): pass\n",
        "class Model:\n    def task(self): pass\n",
        "task: object",
        "import x.task",
        "box.task = 1",
        "from elsewhere import *",
        "'def task(spec, cancel)'",
    ],
)
def test_a_module_without_a_task_of_its_own_is_no_model(tmp_path: Path, text: str) -> None:
    assert names(write(tmp_path, m=text)) == set()


def test_what_begins_with_an_underscore_or_a_period_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, _private=TASK)
    for name in ("__init__.py", ".#m.py", "m.txt"):
        (tmp_path / name).write_text(TASK)
    (tmp_path / "folder.py").mkdir()
    assert names(path) == set()


def test_the_first_directory_goes_first_and_a_package_before_a_file(tmp_path: Path) -> None:
    first = write(tmp_path / "first", m=f'"""One."""\n{TASK}')
    second = write(tmp_path / "second", m=f'"""Two."""\n{TASK}', p=f'"""File."""\n{TASK}')
    (tmp_path / "second" / "p").mkdir()
    (tmp_path / "second" / "p" / "__init__.py").write_text(f'"""Package."""\n{TASK}')
    found = find([first, second])
    assert (found["m"].summary, found["m"].directory) == ("One.", first)
    assert found["p"].summary == "Package."


def test_relative_directories_are_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "models", m=TASK)
    monkeypatch.chdir(tmp_path)
    assert find(["models"])["m"].directory == str(tmp_path / "models")


def test_a_directory_that_is_missing_or_none_is_empty(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with caplog.at_level(logging.WARNING, "banyan.models"):
        assert find([str(tmp_path / "none")]) == find([])
        assert caplog.messages == []
        assert find([str(file)]) == find([])
    assert caplog.messages == [f"no models from {file}: Not a directory"]


def test_what_cannot_be_a_model_is_told_and_not_offered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, broken="x = 1\ndef task(:\n", random=TASK, dask=TASK, nul="task = 1\0", good=TASK)
    (tmp_path / "my-model.py").write_text(TASK)
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    found = find([path])
    faults = {name: source.fault for name, source in found.items() if source.fault is not None}
    assert faults == {
        "broken": "broken.py, line 2: invalid syntax",
        "dask": "another module is called 'dask'; rename the file",
        "gone": "gone.py cannot be read: No such file or directory",
        "my-model": "'my-model' cannot be imported; rename the file to letters, digits and underscores",
        "nul": "nul.py cannot be parsed: source code string cannot contain null bytes",
        "random": "another module is called 'random'; rename the file",
    }
    with caplog.at_level(logging.WARNING, "banyan.models"):
        assert offered(found).keys() & {"good", *faults} == {"good"}
    assert f"model 'random' in {path} is not offered: {faults['random']}" in caplog.messages


def test_what_no_model_has_the_name_of_is_a_helper_with_the_reason(tmp_path: Path) -> None:
    path = write(tmp_path, parts="x = 1", tools__a="x = 1", _private=TASK, good=TASK)
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "__init__.py").write_text("x = 1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "numbers.csv").write_text("1\n")
    found = find([path])
    assert {name: source.fault for name, source in found.items() if source.helper} == {
        "parts": "parts.py has no function task(spec, cancel) at its top level",
        "tools": "the directory tools has no __init__.py with a function task(spec, cancel)",
        "box": "box/__init__.py has no function task(spec, cancel) at its top level",
        "_private": "_private begins with an underscore, so that it is no model; rename it",
    }
    assert "data" not in found
    later = write(tmp_path / "later", parts=TASK)
    assert not find([path, later])["parts"].helper


def test_a_directory_that_was_meant_as_a_package_is_told_of(tmp_path: Path) -> None:
    path = write(tmp_path, plant__main=TASK, c=TASK, c__helper=TASK)
    (tmp_path / "my-plant").mkdir()
    (tmp_path / "my-plant" / "__init__.py").write_text(TASK)
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "__init__.py").symlink_to(tmp_path / "nowhere")
    (tmp_path / "c.x.py").write_text(TASK)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__init__.py").mkdir()
    (tmp_path / os.fsdecode(b"b\xff.py")).write_text(TASK)
    found = find([path])
    rename = "rename the file to letters, digits and underscores"
    assert {name: source.fault for name, source in found.items() if source.directory and source.fault} == {
        "plant": "the directory plant has no __init__.py with a function task(spec, cancel)",
        "my-plant": f"'my-plant' cannot be imported; {rename}",
        "lost": "__init__.py cannot be read: No such file or directory",
        "c.x": f"'c.x' cannot be imported; {rename}",
        "folder": "__init__.py cannot be read: Is a directory",
        r"b\xff": rf"'b\\xff' cannot be imported; {rename}",
    }
    assert not any(source.helper for source in found.values())
    assert found["c"].fault is None  # the file c.py: Python, too, takes it before a directory that is no package


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, m=f'"""Old."""\n{TASK}')
    assert find([path])["m"].summary == "Old."
    write(tmp_path, m=f'"""Newer."""\n{TASK}')
    assert find([path])["m"].summary == "Newer."


def test_the_version_follows_every_file_that_the_model_may_import(tmp_path: Path) -> None:
    path = write(tmp_path, m=TASK, helper="x = 1", data__inner__y="y = 1")
    source = find([path])["m"]
    seen = [source.version()]
    assert find([path])["m"].version() == seen[0]
    for change in (
        lambda: os.utime(tmp_path / "helper.py", (1, 1)),
        lambda: write(tmp_path, data__inner__y="y = 12"),
        lambda: write(tmp_path, new="z = 1"),
        (tmp_path / "new.py").unlink,
    ):
        change()
        seen.append(source.version())
    assert all(earlier != later for earlier, later in pairwise(seen))
    assert seen[-1] == seen[-3]
    (tmp_path / "results.txt").write_text("no code")
    assert source.version() == seen[-1]


def test_directories_that_link_to_themselves_have_a_version(tmp_path: Path) -> None:
    path = write(tmp_path, m=TASK)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "away").symlink_to(tmp_path / "none")
    assert find([path])["m"].version() != ""


def test_entry_points_are_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    write(site, plant__model='"""A plant."""\nraise SystemExit("imported")\n', plant__init="")
    info = site / "plant-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plant\nVersion: 1.0\n")
    lines = ["plant = plant.model:Plant.task", "whole = plant.model", "lost = nothing_here:task", "m = plant.model"]
    (info / "entry_points.txt").write_text("\n".join(["[banyan.models]", *lines]))
    monkeypatch.syspath_prepend(site)
    path = write(tmp_path / "models", m=TASK)
    found = find([path])
    assert found["plant"] == Source(
        name="plant", module="plant.model", attribute="Plant.task", directory=None, summary="A plant."
    )
    assert (found["whole"].attribute, found["whole"].version()) == (None, "")
    assert found["lost"].fault == ("its entry point names 'nothing_here:task', and there is no module 'nothing_here'")
    assert found["m"].directory == path
    assert "plant.model" not in sys.modules
