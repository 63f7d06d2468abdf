"""Ids as people type them, through a real `banyan up`: beginnings, standard input, unknown ones, completion."""

import json
from collections.abc import Callable

import pytest

from banyan.client import Client
from tests.support.cli import UNKNOWN, Banyan, ended, fresh_id
from tests.support.up import Up


@pytest.mark.parametrize(
    "words",
    [
        ("show",),
        ("show", "--json"),
        ("logs",),
        ("logs", "--json"),
        ("explain",),
        ("history", "--json"),
        ("memory", "--json"),
        ("files", "--json"),
        ("wait", "--json"),
        ("cancel",),
    ],
    ids=" ".join,
)
def test_a_beginning_of_an_id_does_what_the_whole_id_does(
    banyan: Banyan, client: Client, words: tuple[str, ...]
) -> None:
    task = ended(client, fresh_id())
    whole = banyan(*words, task)
    assert whole[0] == 0
    assert banyan(*words, task[:6]) == whole
    assert banyan(*words, task[:17].upper()) == whole
    assert banyan(*words, "-", stdin=f"{task[:9]}\n") == whole


def test_parents_are_named_by_beginnings_too(banyan: Banyan, client: Client) -> None:
    first, second = ended(client, fresh_id()), ended(client, fresh_id())
    status, child, _ = banyan("submit", "--after", f"{first[:6]}:any,{second[:7]}", "--", "true")
    assert status == 0
    where = {"child": child.strip()}
    assert {(edge["parent"], edge["on"]) for edge in client.each("continuations", where)} == {
        (first, "any"),
        (second, "success"),
    }
    status, child, _ = banyan("submit", "--after", "-", "--", "true", stdin=f"{first}\n{second}\n")
    assert {edge["parent"] for edge in client.each("continuations", {"child": child.strip()})} == {first, second}


def test_a_deleted_parent_is_left_out_by_its_beginning(banyan: Banyan, client: Client) -> None:
    parent = ended(client, fresh_id(), "exit 1")
    child = fresh_id()
    client.submit({"_id": child, "command": "true", "dependencies": [parent], "state": "available"})
    client.wait([child], 60)
    assert client.task(child)["state"] == "cancelled"
    client.delete(parent)
    assert banyan("retry", child[:8], "--without", fresh_id()[:10])[0] == 2
    status, _, error = banyan("retry", child[:8], "--without", parent[:6])
    assert (status, error) == (0, "")
    assert client.wait([child], 60)[0]["exit_status"] == "success"


def test_an_ambiguous_beginning_says_which_ids_match(banyan: Banyan, client: Client) -> None:
    beginning = fresh_id()[:6]
    first, second = fresh_id(f"{beginning}0"), fresh_id(f"{beginning}1")
    client.submit([{"_id": id, "name": f"name of {id}", "hold": True, "command": "true"} for id in (first, second)])
    for words in (("show",), ("cancel",), ("submit", "--after")):
        status, output, error = banyan(*words, beginning)
        assert (status, output) == (2, "")
        assert f"{beginning} is the beginning of 2 ids" in error
        assert f"{first} (name of {first}, inactive)" in error
        assert f"{second} (name of {second}, inactive)" in error
    assert banyan("cancel", f"{beginning}1")[:2] == (0, f"{second} cancelled\n")
    assert client.task(first)["state"] == "inactive"


def test_ids_come_from_standard_input_however_they_are_written(up: Up, banyan: Banyan, client: Client) -> None:
    tasks = client.submit([{"command": "sleep 600", "state": "inactive"} for _ in range(3)])
    first, second, third = (task["_id"] for task in tasks)
    done = up.run("cancel", "-", stdin=f"{first}\n\n  {second}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert banyan("cancel", third, "-", "--json", stdin=json.dumps([first, second]))[0] == 0
    assert {client.task(id)["state"] for id in (first, second, third)} == {"cancelled"}
    shown = banyan("show", "-", "--json", stdin=f'"{first}"\n"{third}"\n')[1]
    assert [task["_id"] for task in json.loads(shown)] == [first, third]
    listed = banyan("list", "--json", "--where", json.dumps({"_id": {"$in": [first, second]}}))[1]
    assert banyan("cancel", "-", stdin=listed)[:2] == (0, f"{second} cancelled\n{first} cancelled\n")
    assert banyan("cancel", "-", stdin=banyan("show", "--json", third)[1])[:2] == (0, f"{third} cancelled\n")


def test_standard_input_without_ids_is_a_mistake(banyan: Banyan, client: Client) -> None:
    for words in (("cancel",), ("logs",), ("sweep", "show")):
        for stdin in (" \n", "[]", '{"_items": []}'):
            status, output, error = banyan(*words, "-", stdin=stdin)
            assert (status, output) == (2, "")
            assert "standard input has no id" in error
    for stdin in ("[1]", '{"a": 1}', "[null]", "nonsense", '[{"_id": 5}]'):
        status, output, error = banyan("cancel", "-", stdin=stdin)
        assert (status, output) == (2, "")
        assert "there is no task" in error
    status, output, error = banyan("logs", "-", stdin=f"{UNKNOWN} {UNKNOWN}")
    assert (status, output) == (2, "")
    assert "standard input has 2 ids, and one is wanted" in error


TAKE_ONE = ["show", "logs", "logs -f", "explain", "history", "memory", "files", "wait", "cancel", "retry"]


@pytest.mark.parametrize("command", [*TAKE_ONE, *(f"sweep {verb}" for verb in ("show", "results", "wait", "delete"))])
@pytest.mark.parametrize("json_option", [(), ("--json",)], ids=["for people", "as JSON"])
def test_an_unknown_id_is_told_by_every_command(banyan: Banyan, command: str, json_option: tuple[str, ...]) -> None:
    if command == "logs -f" and json_option:
        command = "logs"
    kind = "sweep" if command.startswith("sweep") else "task"
    for id, text in [(UNKNOWN, UNKNOWN), ("fffffff", "whose id begins with fffffff"), ("nonsense", "'nonsense'")]:
        status, output, error = banyan(*command.split(), id, *json_option)
        assert (status, output.replace("[]\n", "")) == (2, "")
        assert f"there is no {kind} {text}" in error


def test_a_worker_drains_and_resumes_by_the_beginning_of_its_id(banyan: Banyan, up: Up, client: Client) -> None:
    worker = client.workers({"state": "active"})[0]["_id"]
    status, output, error = banyan("workers", "drain", worker[:20])
    assert (status, output) == (3, "")
    assert error  # a provider may not
    try:
        done = up.run("workers", "drain", worker[:20])
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{worker} draining\n", "")
        assert client.workers({"_id": worker})[0]["state"] == "draining"
    finally:
        answer = up.json("workers", "resume", worker)
    assert [(each["_id"], each["state"]) for each in answer] == [(worker, "active")]
    unknown = up.run("workers", "drain", UNKNOWN, worker[:6] + "0" * 18)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert f"there is no worker {UNKNOWN}" in unknown.stderr


Completed = Callable[..., str]


@pytest.fixture
def completed(banyan: Banyan, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Completed:
    """The completions that a shell gets for a command line whose last word is incomplete."""

    def complete(*words: str, shell: str = "bash") -> str:
        line = " ".join(words)
        env = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_ARGS": line}
        env |= {"_BANYAN_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        with monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as end:
                banyan()
        told = capfd.readouterr()
        assert (end.value.code, told.err) == (0, "")
        return told.out

    return complete


def test_the_shell_completes_ids_queues_models_workers_and_states(completed: Completed, client: Client) -> None:
    held, task = fresh_id(), ended(client, fresh_id())
    client.submit({"_id": held, "command": "true", "hold": True, "state": "available"})
    worker = client.workers({"state": "active"})[0]["_id"]
    assert completed("banyan", "show", task[:5]).split() == [task]
    assert completed("banyan", "retry", task[:8]).split() == [task]
    assert completed("banyan", "cancel", task[:8]).split() == []
    assert held in completed("banyan", "cancel", "")
    assert completed("banyan", "release", held[:8]).split() == [held]
    assert completed("banyan", "hold", held[:8]).split() == []
    assert completed("banyan", "submit", "--after", task[:8]).split() == [task]
    assert "default" in completed("banyan", "submit", "--queue", "").split()
    assert completed("banyan", "list", "--queue", "defa").split() == ["default"]
    assert completed("banyan", "run", "slow_").split() == ["slow_sum"]
    assert completed("banyan", "list", "--state", "term").split() == ["terminated"]
    assert worker in completed("banyan", "workers", "drain", "").split()
    assert completed("banyan", "show", "nonsense").split() == []


def test_the_shell_completes_users_for_the_administrator_whom_it_knows(up: Up) -> None:
    env = {"_BANYAN_COMPLETE": "complete_bash", "COMP_WORDS": "banyan user rotate us", "COMP_CWORD": "3"}
    done = up.run(env=env)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["user"], "")


def test_what_others_have_named_is_plain_when_a_shell_gets_it(completed: Completed, client: Client) -> None:
    names = ["\\$(touch x)", "`touch x`", "'; touch x; '", 'a":"b))', "[red]\n\t*"]
    ids = [client.submit({"name": name, "hold": True, "command": "true"})["_id"] for name in names]
    for shell in ("zsh", "fish", "bash"):
        told = completed("banyan", "cancel", "", shell=shell)
        assert all(word in told for word in ids)
        told = told.removeprefix("_arguments '*: :((").removesuffix("\n").removesuffix("))'")
        assert not set("$`'();*\\[") & set(told)


def test_completion_is_silent_where_no_server_answers(up: Up) -> None:
    env = {"_BANYAN_COMPLETE": "complete_bash", "COMP_WORDS": "banyan show ", "COMP_CWORD": "2"}
    done = up.run(env={**env, "BANYAN_URL": "http://127.0.0.1:1", "BANYAN_TOKEN": "x"})
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
