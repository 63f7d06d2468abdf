"""Sweeps through everything: the commands in front, real tasks and models at the end."""

import csv
import io
import json
from typing import Any

import numpy as np
import pytest

from banyan.client import Client
from banyan.errors import Invalid
from tests.support.up import Up


def test_a_command_template_runs_once_for_each_point(up: Up, client: Client) -> None:
    line = 'echo {x} {w} "$BANYAN_SWEEP_INDEX"; echo "{\\"twice\\": $((2 * {x}))}" > "$BANYAN_RESULT"; test {x} != 2'
    grid = ("--grid", "x=1:4", "--grid", 'w=["a b", "$HOME; \'q\'"]')
    done = up.run("sweep", "submit", "--name", "template", *grid, "--wait", line)
    sweep = done.stdout.strip()
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "4 of 6 tasks succeeded, 2 failed"
    tasks = list(client.each_task({"sweep": sweep}))
    logs = [client.log(task["_id"]).decode() for task in sorted(tasks, key=lambda task: int(task["index"]))]
    words = ["a b", "$HOME; 'q'"]
    assert logs == [f"{x} {words[w]} {2 * (x - 1) + w}\n" for x in (1, 2, 3) for w in (0, 1)]
    shown = up.run("sweep", "results", sweep, "--csv")
    rows = list(csv.DictReader(io.StringIO(shown.stdout, newline="")))
    assert [(row["x"], row["w"], row["twice"]) for row in rows] == [
        (str(x), word, str(2 * x)) for x in (1, 2, 3) for word in words
    ]
    assert [row["exit_status"] for row in rows].count("failure (exit code 1)") == 2


COLLECT = """
import os, sys, urllib.request
url = f"{sys.argv[1]}/sweeps/{os.environ['BANYAN_SWEEP_ID']}/results"
request = urllib.request.Request(url, headers={"Authorization": f"Bearer {sys.argv[2]}"})
print(urllib.request.urlopen(request).read().decode())
"""


def test_a_barrier_finds_the_results_when_all_is_done(up: Up, client: Client) -> None:
    collect = ["python3", "-c", COLLECT, up.url, up.ready["provider_token"]]
    sweep = {"command": ["sh", "-c", "echo {x} > $BANYAN_RESULT"], "points": [{"x": 3}, {"x": 4}]}
    made = client.submit_sweep(sweep | {"barrier": {"command": collect}})
    client.wait_sweep(made["_id"], timeout=60)
    found = json.loads(client.log(made["barrier"]))
    assert [(row["index"], row["x"], row["result"]) for row in found["_items"]] == [(0, 3, 3), (1, 4, 4)]


def test_a_sweep_is_cancelled_retried_and_deleted_by_commands(up: Up, client: Client) -> None:
    made = client.submit_sweep({"command": "test {x} = 0 || exec sleep {x}", "grid": {"x": [600] * 4}, "barrier": {}})
    sweep = made["_id"]
    assert up.run("sweep", "delete", sweep).returncode == 2
    assert up.run("sweep", "cancel", sweep).stdout == "4 of 4 tasks cancelled\n"
    assert up.run("sweep", "wait", sweep).returncode == 1
    assert client.sweep(sweep)["progress"]["cancelled"] == 4
    assert up.json("sweep", "retry", sweep)["retried"] == 4
    assert client.sweep(sweep)["progress"]["barrier"] == "inactive"
    up.run("sweep", "cancel", sweep)
    up.run("sweep", "wait", sweep)
    assert up.run("sweep", "delete", sweep).stdout == "4 tasks deleted\n"
    assert client.tasks({"sweep": sweep}).total == 0


def test_two_hundred_portfolios_give_a_table_of_two_hundred_right_rows(up: Up, client: Client) -> None:
    mean, cov = [0.04, 0.11], [[0.01, 0.002], [0.002, 0.09]]
    weights = [round(index / 200, 4) for index in range(200)]
    made = client.submit_sweep({"model": "portfolio", "inputs": {"mean": mean, "cov": cov}, "grid": {"c.w": weights}})
    client.wait_sweep(made["_id"], timeout=120)
    rows = list(csv.DictReader(io.StringIO(client.sweep_csv(made["_id"]).decode(), newline="")))
    assert len(rows) == 200
    for index, row in enumerate(rows):
        share = np.array([weights[index], 1 - weights[index]])
        assert (row["index"], row["exit_status"], float(row["c.w"])) == (str(index), "success", weights[index])
        assert float(row["c.er"]) == pytest.approx(share @ mean)
        assert float(row["c.var"]) == pytest.approx(share @ np.array(cov) @ share)


def test_a_model_refuses_a_sweep_and_nothing_is_made(client: Client) -> None:
    before = client.sweeps().total
    points: list[dict[str, Any]] = [{"x": index, "y": 1} for index in range(99)]
    with pytest.raises(Invalid, match=r"99: .*give a number"):
        client.submit_sweep({"model": "sum", "points": [*points, {"x": 1, "y": "b"}]})
    assert client.sweeps().total == before
    assert client.tasks({"inputs.y": "b"}).total == 0
