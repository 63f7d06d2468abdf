"""A backup of a server at work, restored on another machine's disk, where the work goes on."""

import json
import shutil
import stat
from pathlib import Path

from banyan.client import Client
from tests.support.up import Up, eventually, started


def test_a_backup_of_a_running_server_is_restored_elsewhere_and_runs_on(up: Up, client: Client, tmp_path: Path) -> None:
    file, data = tmp_path / "backup", up.home.parent / "data"
    tag = "backed up"
    body = {"state": "available", "tags": [tag], "requested_resources": {"cores": 0.5}}
    first = [task["_id"] for task in client.submit([{**body, "command": "sleep 0.1"} for _ in range(80)])]
    waits = [{"task": first[0], "on": "success"}, {"task": first[-1], "on": "any"}]
    last = client.submit({**body, "command": "true", "dependencies": waits})["_id"]
    ended = {"tags": tag, "state": "terminated"}
    eventually(lambda: client.tasks(ended).total, lambda count: count >= 5)
    done = up.run("backup", str(file), "--data", str(data), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["collections"]["tasks"] >= 81
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert up.run("restore", str(file), "--data", str(data), "--force").returncode == 2  # it is running
    client.wait([*first, last], timeout=60)

    fresh = tmp_path / "other" / "data"
    assert up.run("restore", str(file), "--data", str(fresh)).returncode == 0
    shutil.copy(data / "credentials.json", fresh)
    soon = {"BANYAN_LEASES__LOST_AFTER": "3", "BANYAN_RESCUE__INTERVAL": "0.2"}
    with started(tmp_path / "other", "--cores", "2", env=soon) as other:
        assert other.ready["provider_token"] == up.ready["provider_token"]
        with Client(other.url, up.ready["provider_token"]) as there:
            assert {task["exit_status"] for task in there.wait([*first, last], timeout=60)} == {"success"}
            attempts = [there.attempts(task) for task in (*first, last)]
            ends = [[attempt["exit_status"] for attempt in each] for each in attempts]
            assert {tuple(each) for each in ends} <= {("success",), ("abandoned (worker unreachable)", "success")}
            workers = [each[-1]["worker"] for each in attempts]
            assert len(set(workers)) == 2, "some ended before the backup, some after it"
