"""`banyan up` whose data are on a disk that gets full: of a task, of somebody else, and before it is started."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mounts import OWN_MOUNTS, within
from tests.support.up import Up, alive, eventually, started

SMALL_DISK = 'mkdir -p "$0" && mount -t tmpfs -o mode=700,size=640m tmpfs "$0" && exec "$@"'
NEIGHBOUR = "while ! test -e {done}; do echo alive >> lines; sleep 0.1; done"
FILL = "head -c 2G /dev/zero > filled; sleep 600"
WAITS = "MongoDB waits, and goes on once there is room again (64.00 MiB); remove files there (what tasks wrote is in "
GOES_ON = "banyan up: there is room on the disk again: everything goes on"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "own"


@pytest.fixture
def small(place: Path) -> Iterator[Up]:
    """A `banyan up` with its data on a small disk."""
    before = [*OWN_MOUNTS, "sh", "-c", SMALL_DISK, str(place / "data")]
    settings = {"BANYAN_QUARANTINE__AVOID_SECONDS": "2"}
    with started(place, "--cores", "2", before=before, env=settings) as up:
        yield up


def there(up: Up, script: str) -> subprocess.CompletedProcess[str]:
    """A shell that sees the small disk."""
    return within(up.process, script)


def said(place: Path) -> list[str]:
    return (place / "up.log").read_text().splitlines()


def submitted(up: Up, *command: str) -> str:
    return up.run("submit", "--fresh", "--", "sh", "-c", *command).stdout.strip()


def test_a_task_that_fills_the_disk_of_all_is_stopped_and_all_goes_on(small: Up, place: Path) -> None:
    pids = small.pids
    neighbour = submitted(small, NEIGHBOUR.format(done=place / "done"))
    eventually(lambda: small.json("show", neighbour).get("time_started"), bool)
    culprit = submitted(small, FILL)
    assert small.run("wait", culprit, "--timeout", "90").returncode == 1
    assert small.json("show", culprit)["exit_status"] == "failure (disk filled)"
    (place / "done").touch()
    assert small.run("wait", neighbour, "--timeout", "60").returncode == 0
    assert small.run("submit", "--wait", "--", "true").returncode == 0
    assert alive(pids) == pids
    assert said(place) == []


def test_mongodb_ends_in_order_and_waits_for_room_and_all_goes_on(small: Up, place: Path) -> None:
    neighbour = submitted(small, NEIGHBOUR.format(done=place / "done"))
    eventually(lambda: small.json("show", neighbour).get("time_started"), bool)
    there(small, f"head -c 2G /dev/zero > {place}/data/filled")
    mongod = small.ready["pids"]["mongod"]
    eventually(lambda: alive([mongod]), lambda left: left == [], seconds=60)
    log = there(small, f"tail -n 3 {place}/data/logs/mongod.log").stdout
    assert "mongod shutdown complete" in log or "Now exiting" in log or "Shutting down" in log
    (line,) = eventually(lambda: said(place), bool)
    assert line.startswith(f"banyan up: the disk of {place}/data is full (")
    assert WAITS in line
    there(small, f"rm {place}/data/filled")
    eventually(lambda: said(place)[1:], lambda rest: rest == [GOES_ON], seconds=60)
    assert small.run("submit", "--wait", "--", "true").returncode == 0
    (place / "done").touch()
    assert small.run("wait", neighbour, "--timeout", "60").returncode == 0
    assert [each["exit_status"] for each in small.json("history", neighbour)] == ["success"]
    assert len(said(place)) == 2
    assert small.stop() == 0


@pytest.mark.parametrize("parts", [("mongod",), ("server", "worker"), ("mongod", "server", "worker")])
def test_what_dies_on_a_full_disk_is_started_once_there_is_room(small: Up, place: Path, parts: tuple[str, ...]) -> None:
    there(small, f"head -c 2G /dev/zero > {place}/data/filled")
    pids = [small.ready["pids"][part] for part in parts if part != "server"]
    pids += small.ready["pids"]["server"] if "server" in parts else []
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    (line,) = eventually(lambda: said(place), bool)
    assert WAITS in line
    there(small, f"rm {place}/data/filled")
    eventually(lambda: said(place)[1:], lambda rest: rest == [GOES_ON], seconds=60)
    assert small.run("submit", "--wait", "--", "true").returncode == 0
    assert len(said(place)) == 2
    assert small.stop() == 0


def up_on_full(place: Path, filled: str) -> subprocess.CompletedProcess[str]:
    """A start on a disk that has another file, and one more once that is gone, which a signal ends."""
    data = place / "data"
    script = (
        f'mkdir -p "$0" && mount -t tmpfs -o mode=700,size=640m tmpfs "$0" && {filled}; "$@"; echo "exit $?"; '
        f'rm -r {data}/*; "$@" > {place}/ready & until test -s {place}/ready || ! kill -0 $!; do sleep 0.1; done; '
        'kill $!; wait $!; echo "exit $?"'
    )
    up = [sys.executable, "-m", "banyan", "up", "--port", "0", "--data", str(data), "--json"]
    command = [*OWN_MOUNTS, "bash", "-c", script, str(data), *up]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BANYAN_", "XDG_"))}
    environment = kept | {"HOME": str(place)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("megabytes", [640, 625, 400])
def test_a_start_on_a_full_disk_says_why_and_what_to_do(place: Path, megabytes: int) -> None:
    done = up_on_full(place, f"head -c {megabytes}M /dev/zero > {place}/data/filled")
    free, data = f"{640 - megabytes}.00 MiB" if megabytes < 640 else "0 B", place / "data"
    assert done.stderr == (
        f"banyan: the disk of {data} has {free} free, and MongoDB needs 352.00 MiB to start: remove files there (what "
        f"tasks wrote is in {data}/work), or name a directory on another disk with --data\n"
    )
    assert done.stdout == "exit 2\nexit 0\n"


def test_a_disk_without_files_to_make_is_full_too(place: Path) -> None:
    done = up_on_full(place, f"mount -o remount,nr_inodes=1000 {place}/data; touch {place}/data/{{1..990}}")
    assert "has room for 9 more files, and MongoDB needs room for 50 files to start: " in done.stderr
    assert done.stdout == "exit 2\nexit 0\n"
