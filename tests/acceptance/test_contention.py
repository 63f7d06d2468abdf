"""Many workers, each a process of its own, at one server."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from banyan.client import Client
from tests.support.up import Up

WORKERS = 20
TASKS = 2000
ROOT = Path(__file__).parents[2]


def test_twenty_processes_claiming_two_thousand_tasks_give_each_one_attempt(up: Up, client: Client) -> None:
    task = {"command": "true", "state": "available", "requires": {"pool": "crowd"}, "tags": ["crowd"]}
    posted = [item["_id"] for _ in range(2) for item in client.submit([task] * (TASKS // 2))]
    claimers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.claimer", up.url, "crowd", "10"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(WORKERS)
    ]
    for claimer in claimers:
        assert claimer.stdin is not None
        print(up.ready["admin_token"], file=claimer.stdin, flush=True)
    for claimer in claimers:
        assert claimer.stdout is not None
        assert claimer.stdout.readline() == "ready\n"
    answers = [claimer.communicate("go\n", timeout=240)[0] for claimer in claimers]
    assert [claimer.returncode for claimer in claimers] == [0] * WORKERS
    granted = Counter(line for answer in answers for line in answer.split())
    assert granted == Counter(posted)
    assert client.tasks({"tags": "crowd", "state": "terminated", "exit_status": "success"}).total == TASKS
    assert client.history({"task": {"$in": posted[:50]}}).total == 50
    assert client.statistics({"tags": "crowd"})["exit_statuses"] == {"success": TASKS}
