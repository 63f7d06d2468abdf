"""Holding, releasing, editing and deleting from the command line, through a real `banyan up`."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from banyan.client import Client
from banyan.errors import NotFound
from tests.support.cli import UNKNOWN, Banyan, ended, fresh_id
from tests.support.up import Up, eventually


def waiting(client: Client, **fields: object) -> str:
    """A task that waits as long as it is held."""
    return str(client.submit({"command": "true", "state": "available", "hold": True, **fields})["_id"])


def running(client: Client) -> str:
    """A task that runs until it is cancelled."""
    task: str = client.submit({"command": "exec sleep 600", "state": "available"})["_id"]
    eventually(lambda: client.task(task), lambda seen: bool(seen.get("time_started")), 60)
    return task


def test_a_held_task_waits_until_it_is_released(banyan: Banyan, client: Client) -> None:
    parent = waiting(client)
    child: str = client.submit({"command": "true", "state": "available", "dependencies": [parent]})["_id"]
    assert banyan("hold", child) == (0, f"{child} inactive, held\n", "")
    assert banyan("release", parent, "-", stdin=parent)[0] == 0
    assert client.wait([parent], 60)[0]["exit_status"] == "success"
    status, output, _ = banyan("explain", child)
    assert (status, output) == (0, f"it is held; `banyan release {child}` lets it go on\n")
    status, output, error = banyan("release", child, "--json")
    assert (status, error) == (0, "")
    assert [(each["_id"], each["state"]) for each in json.loads(output)] == [(child, "available")]
    assert client.wait([child], 60)[0]["exit_status"] == "success"


def test_what_cannot_be_held_is_told_and_the_rest_is_held(banyan: Banyan, client: Client) -> None:
    runs, done = running(client), ended(client, fresh_id())
    waits = waiting(client, hold=False, requires={"nowhere": "yes"})
    status, output, error = banyan("hold", runs, waits, done, UNKNOWN)
    assert (status, output) == (2, f"{waits} available, held\n")
    for sentence in (f"task {runs} runs already", f"task {done} is terminated", f"there is no task {UNKNOWN}"):
        assert sentence in error
    client.cancel(runs)


def test_all_that_match_a_filter_are_held_and_released(banyan: Banyan, client: Client) -> None:
    name = uuid.uuid4().hex
    where = json.dumps({"name": name})
    done = fresh_id()
    client.submit({"_id": done, "name": name, "state": "available"})
    client.wait([done], 60)
    tasks = [waiting(client, name=name, hold=False, requires={"nowhere": "yes"}) for _ in range(3)]
    assert banyan("hold", "--where", where) == (0, "3 of 3 matching tasks held\n", "")
    assert banyan("release", tasks[0])[0] == 0
    assert banyan("release", "--where", where) == (0, "2 of 2 matching tasks released\n", "")
    assert [client.task(task)["hold"] for task in tasks] == [False] * 3
    assert banyan("hold")[0] == 2
    assert banyan("hold", tasks[0], "--where", where)[0] == 2
    status, output, _ = banyan("cancel", "--where", where, "--dry-run")
    assert (status, output) == (0, "3 of 4 matching tasks would be cancelled\n")
    assert banyan("cancel", *tasks, "--dry-run")[:2] == (0, "3 of 3 matching tasks would be cancelled\n")
    status, output, error = banyan("cancel", tasks[0], UNKNOWN, "--dry-run")
    assert (status, output) == (2, "1 of 2 matching tasks would be cancelled\n")
    assert f"there is no task {UNKNOWN}" in error
    status, _, error = banyan("retry", "--where", '{"queue": "nope"}', "--set", "env.A=1")
    assert (status, "there is no queue 'nope'" in error) == (2, True)
    assert {client.task(task)["state"] for task in tasks} == {"available"}


def test_edited_fields_are_what_the_task_runs_with(banyan: Banyan, client: Client) -> None:
    task = waiting(client, command="exit 1", requested_resources={"cores": 0.5}, env={"A": "1", "B": "2"})
    words = ["priority=5", "name=2024", "memory=64 MiB", "env.B=3", "tags=a,b", "timeout=2h", "max-retries=1"]
    status, output, error = banyan("edit", task.upper(), *words, 'command=echo "$A$B"')
    assert (status, output, error) == (0, f"{task} available\n", "")
    assert banyan("release", task)[0] == 0
    assert client.wait([task], 60)[0]["exit_status"] == "success"
    assert client.log(task) == b"13\n"
    seen = client.task(task)
    wanted = {"priority": 5, "name": "2024", "tags": ["a", "b"], "timeout": 7200.0, "max_retry_count": 1}
    assert {name: seen[name] for name in wanted} == wanted
    assert seen["requested_resources"] == {"cores": 0.5, "memory": 64 << 20}


def test_many_tasks_are_edited_at_once_each_with_its_own_entries(banyan: Banyan, client: Client) -> None:
    name = uuid.uuid4().hex
    tasks = [waiting(client, name=name, requested_resources={"cores": cores}) for cores in (1, 2)]
    status, output, error = banyan("edit", "-", "priority=7", stdin="\n".join(tasks))
    assert (status, output, error) == (0, "".join(f"{task} available\n" for task in tasks), "")
    assert banyan("edit", *tasks, "memory=1 GiB")[0] == 0
    where = json.dumps({"name": name})
    assert banyan("edit", "gpus=0", "scratch=1 GiB", "--where", where)[0] == 0
    assert banyan("edit", "max_retries=3", "--where", where) == (0, "2 of 2 matching tasks changed\n", "")
    for task, cores in zip(tasks, (1, 2), strict=True):
        seen = client.task(task)
        assert (seen["priority"], seen["max_retry_count"]) == (7, 3)
        assert seen["requested_resources"] == {"cores": cores, "memory": 1 << 30, "gpus": 0, "scratch": 1 << 30}


def test_entries_that_several_people_edit_at_once_all_stay(up: Up, client: Client) -> None:
    task = waiting(client, metadata={"a": 0})
    names = [f"k{number}" for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda name: up.run("edit", task, f"metadata.{name}=1"), names))
    assert [(end.returncode, end.stderr) for end in ends] == [(0, "")] * 4
    assert client.task(task)["metadata"] == {"a": 0, **dict.fromkeys(names, 1)}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["priority=high"], "priority: must be a whole number"),
        (["priorty=1"], "did you mean 'priority'?"),
        (["queue=defalt"], "did you mean 'default'?"),
        (["memory=4 Gibi"], "memory"),
        (["_id=1"], "_id"),
        (["dependencies=[]"], "dependencies: they are set at creation"),
        (["priority=1", "state=running"], "cannot be set running"),
        (["priority.a=1"], "priority is no object"),
        ([], "say what to change: KEY=VALUE"),
        (["priority", "name=x"], "there is no task 'priority'"),
    ],
    ids=str,
)
def test_an_edit_that_makes_no_sense_changes_nothing_and_says_why(
    banyan: Banyan, client: Client, words: list[str], told: str
) -> None:
    task = waiting(client)
    before = client.task(task)
    status, output, error = banyan("edit", task, *words)
    assert (status, output) == (2, "")
    assert told in error
    assert client.task(task) == before


def test_what_runs_is_edited_in_tags_and_metadata_alone(banyan: Banyan, client: Client) -> None:
    task = running(client)
    assert banyan("edit", task, "tags=night", "metadata.who=me")[0] == 0
    assert (client.task(task)["tags"], client.task(task)["metadata"]) == (["night"], {"who": "me"})
    status, _, error = banyan("edit", task, "priority=1", "tags=day")
    assert status == 2
    assert f"priority: task {task} runs already" in error
    assert client.task(task)["tags"] == ["night"]
    client.cancel(task)


def test_what_has_ended_is_deleted_and_nothing_else(banyan: Banyan, client: Client) -> None:
    done, waits = ended(client, fresh_id()), waiting(client)
    status, output, error = banyan("delete", done[:8], waits, UNKNOWN)
    assert (status, output) == (2, f"{done} deleted\n")
    assert f"task {waits} is available; only an ended task can be deleted; cancel it first" in error
    assert f"there is no task {UNKNOWN}" in error
    with pytest.raises(NotFound):
        client.task(done)
    name = uuid.uuid4().hex
    gone = fresh_id()
    client.submit([{"_id": gone, "name": name, "state": "available"}, {"name": name, "hold": True, "command": "true"}])
    client.wait([gone], 60)
    where = json.dumps({"name": name})
    assert banyan("delete", "--where", where) == (0, "1 of 2 matching tasks deleted\n", "")
    assert json.loads(banyan("delete", "--where", where, "--json")[1])["matched"] == 1


def test_parents_and_children_are_retried_together(banyan: Banyan, client: Client) -> None:
    parent, child = fresh_id(), fresh_id()
    client.submit({"_id": parent, "command": "exit 1", "state": "available"})
    after = [{"task": parent, "on": "any"}]
    client.submit({"_id": child, "command": "exit 1", "state": "available", "dependencies": after})
    client.wait([parent, child], 60)
    status, output, error = banyan("retry", child, parent, "--set", "command=true", "--dry-run")
    assert (status, output, error) == (0, f"{child} would run again\n{parent} would run again\n", "")
    status, output, error = banyan("retry", "-", "--set", "command=true", stdin=f"{child} {parent}")
    assert (status, error) == (0, "")
    assert {task["exit_status"] for task in client.wait([parent, child], 60)} == {"success"}
