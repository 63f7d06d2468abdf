"""A backup of a server at work, restored on another machine's disk, where the work goes on."""

import json
import shutil
import stat
from pathlib import Path

from banyan.client import Client
from tests.support.up import Up, eventually, started


def test_a_backup_of_a_running_server_is_restored_elsewhere_and_runs_on(up: Up, client: Client, tmp_path: Path) -> None:
    file, gate, data = tmp_path / "backup", tmp_path / "gate", up.home.parent / "data"
    half = {"state": "available", "requested_resources": {"cores": 0.5}}
    waiting = {**half, "command": f"until [ -e {gate} ]; do sleep 0.05; done"}
    running = [task["_id"] for task in client.submit([waiting, waiting])]
    quick = [task["_id"] for task in client.submit([{**half, "command": "sleep 0.05"} for _ in range(60)])]
    waits = [{"task": running[0], "on": "success"}, {"task": quick[-1], "on": "any"}]
    last = client.submit({**half, "command": "true", "dependencies": waits})["_id"]
    client.wait(quick[:5], timeout=60)
    eventually(lambda: {client.task(task)["state"] for task in running}, lambda found: found == {"running"})
    done = up.run("backup", str(file), "--data", str(data), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["collections"]["tasks"] >= 63
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert up.run("restore", str(file), "--data", str(data), "--force").returncode == 2  # it is running
    gate.touch()
    client.wait([*running, *quick, last], timeout=60)

    fresh = tmp_path / "other" / "data"
    assert up.run("restore", str(file), "--data", str(fresh)).returncode == 0
    shutil.copy(data / "credentials.json", fresh)
    soon = {"BANYAN_LEASES__LOST_AFTER": "3", "BANYAN_RESCUE__INTERVAL": "0.2"}
    with started(tmp_path / "other", "--cores", "2", env=soon) as other:
        assert other.ready["provider_token"] == up.ready["provider_token"]
        with Client(other.url, up.ready["provider_token"]) as there:
            ended = there.wait([*running, *quick, last], timeout=60)
            assert {task["exit_status"] for task in ended} == {"success"}
            ends = {task: [each["exit_status"] for each in there.attempts(task)] for task in (*running, *quick, last)}
            lost = ["abandoned (worker unreachable)", "success"]
            assert [ends[task] for task in running] == [lost, lost]
            assert [ends[task] for task in (*quick[:5], last)] == [["success"]] * 6
            assert all(each in (["success"], lost) for each in ends.values())
            assert there.attempts(quick[0]) == client.attempts(quick[0])
