"""`banyan submit --file` through a real `banyan up`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from banyan.client import Client
from tests.support.cli import Banyan, fresh_id
from tests.support.up import Up


def written(path: Path, *tasks: Mapping[str, Any]) -> str:
    """A file of JSON lines, an empty line between each two."""
    path.write_text("\n\n".join(json.dumps(task) for task in tasks) + "\n")
    return str(path)


def test_the_tasks_of_a_file_run_and_refer_to_each_other(banyan: Banyan, client: Client, tmp_path: Path) -> None:
    parent, child = fresh_id(), fresh_id()
    after = {"_id": child, "command": ["sh", "-c", "echo child; pwd"], "dependencies": [parent]}
    path = written(tmp_path / "tasks.jsonl", after, {"_id": parent, "command": "echo $WHO", "env": {"WHO": "parent"}})
    status, output, error = banyan("submit", "--file", path, "--wait", "--cores", "0.5")
    assert (status, output) == (0, f"{child}\n{parent}\n")
    assert "2 of 2 tasks succeeded" in error
    assert client.log(parent) == b"parent\n"
    lines = client.log(child).decode().splitlines()
    assert lines[0] == "child"
    assert lines[1] != str(Path.cwd())  # in a work directory of its own
    assert client.task(child).get("directory") is None


@pytest.mark.parametrize(
    "text",
    [
        '[{"command": "true"}, {"command": "true"}]',
        '{"command": "true"}\r\n{"command": "true"}',
        '\ufeff{"command": "true"}\n{"command": "true"}\n\n',
        '[\n  {"command": "true"},\n  {"command": "true"}\n]\n',
    ],
    ids=["a list", "lines of Windows", "lines after a mark", "a pretty list"],
)
def test_lists_and_lines_are_taken_from_standard_input_too(up: Up, text: str) -> None:
    done = up.run("submit", "--file", "-", "--hold", "--json", stdin=text)
    assert (done.returncode, done.stderr) == (0, "")
    assert [answer["state"] for answer in json.loads(done.stdout)] == ["available", "available"]


def test_one_object_is_one_task(banyan: Banyan, client: Client, tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text(json.dumps({"command": "exit 4"}, indent=2))
    status, output, error = banyan("submit", "--file", str(tmp_path / "task.json"), "--wait")
    assert status == 1
    assert "failure (exit code 4)" in error
    assert client.task(output.strip())["exit_status"] == "failure (exit code 4)"


def test_options_are_for_what_a_task_does_not_say_itself(banyan: Banyan, client: Client, tmp_path: Path) -> None:
    tasks: list[dict[str, Any]] = [
        {"command": "true"},
        {
            "command": "true",
            "name": "own",
            "state": "inactive",
            "tags": ["b"],
            "env": {"A": "own"},
            "requested_resources": {"memory": "1 GiB"},
        },
    ]
    path = written(tmp_path / "tasks.jsonl", *tasks)
    options = ["--name", "given", "--tag", "a", "--tag", "b", "--env", "A=x", "--env", "B=y", "--cores", "2", "--hold"]
    status, output, error = banyan("submit", "--file", path, *options)
    assert (status, error) == (0, "")
    first, second = (client.task(id) for id in output.split())
    assert (first["name"], first["tags"], first["env"]) == ("given", ["a", "b"], {"A": "x", "B": "y"})
    assert (second["name"], second["tags"], second["env"]) == ("own", ["a", "b"], {"A": "own", "B": "y"})
    assert second["requested_resources"] == {"cores": 2, "memory": 1 << 30}
    assert (first["state"], second["state"], first["hold"], second["hold"]) == ("available", "inactive", True, True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"command": "true"}\n\n{"comand": "x"}\n', "line 3: comand: unknown field; did you mean 'command'?"),
        ('[{"command": "true"}, {"command": 5}]', "task 2: command: must be a text or a list; no task was submitted"),
        ('{"command": "true"}\n{"command": "x"', "is not JSON in line 2, column 16"),
        ('{"command": "true"\n', "is not JSON: Expecting ',' delimiter: line 2 column 1"),
        ('[{"command": "true"}, 7]', "task 2: a task is a JSON object"),
        ('"echo"', "a task is a JSON object"),
        ("[" * 100_000, "is not JSON"),
        (" \n", "has no tasks"),
        ("[]", "has no tasks"),
    ],
    ids=[
        "an unknown field",
        "a wrong value",
        "half a line",
        "half an object",
        "no object in a list",
        "no object",
        "depth",
        "nothing",
        "an empty list",
    ],
)
def test_faults_are_named_by_their_places_and_nothing_is_submitted(
    banyan: Banyan, client: Client, tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(text)
    before = client.tasks(max_results=1).total
    status, output, error = banyan("submit", "--file", str(path))
    assert (status, output) == (2, "")
    assert f"{path}" in error
    assert told in error
    assert client.tasks(max_results=1).total == before


def test_files_that_cannot_be_read_are_named(banyan: Banyan, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b'{"command": "\xe9"}')
    for path, told in (("nowhere", "No such file"), (".", "Is a directory"), ("latin", "is not UTF-8")):
        status, output, error = banyan("submit", "--file", str(tmp_path / path))
        assert (status, output) == (2, "")
        assert told in error
    assert banyan("submit", "--file", str(tmp_path / "latin"), "--", "true")[0] == 2
