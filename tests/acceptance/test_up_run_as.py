"""`banyan up` whose worker runs tasks as another user."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from banyan.client import Client
from tests.support.models import write_models
from tests.support.others import OTHER, as_root, opened, other_user, reachable
from tests.support.up import started


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everyone can reach."""
    with reachable() as path:
        yield path


@as_root
def test_tasks_and_models_are_the_other_users_and_reach_nothing_of_what_root_keeps(place: Path) -> None:
    models = write_models(place / "models", who='return delayed(lambda: {"user": os.getuid()})()')
    settings = {"BANYAN_RUN_AS": OTHER, "BANYAN_MODELS__PATH": json.dumps([models])}
    with started(place / "up", "--cores", "2", env=settings, before=opened(place / "view")) as up:
        data = place / "up" / "data"
        kept = [path for path in data.rglob("*") if path.is_file() and not path.is_relative_to(data / "work")]
        assert {data / "credentials.json", data / "mongo" / "keyfile", data / "logs" / "server.log"} <= set(kept)
        tried = "\n".join(f"cat {path} && echo READ" for path in kept)
        script = f"id -un; {{ ls {data} && echo LISTED; {tried}; touch {data}/x && echo MADE; }} 2> /dev/null; exit 0"
        with Client(up.url, up.ready["provider_token"]) as client:
            answers = client.submit([{"command": script, "state": "available"}, {"model": "who", "state": "available"}])
            command, model = client.wait([answer["_id"] for answer in answers], timeout=120)
            assert client.log(command["_id"]) == f"{OTHER}\n".encode()
            assert (command["exit_status"], model["exit_status"]) == ("success", "success")
            assert client.task(model["_id"])["result"] == {"user": other_user().pw_uid}


def test_nobody_but_root_can_do_so_and_is_told_before_anything_starts(place: Path) -> None:
    data = place / "data"
    environment = {**os.environ, "BANYAN_RUN_AS": OTHER, "HOME": str(place)}
    command = [sys.executable, "-m", "banyan", "up", "--json", "--port", "0", "--data", str(data)]
    if os.geteuid() == 0:
        user = other_user()
        as_him = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        command = [*opened(place / "view"), *as_him, *command]
        place.chmod(0o777)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
    assert done.stderr == f"banyan: run_as = {OTHER}: only root can run tasks as another user; leave it empty\n"
    assert done.returncode != 0
    assert not data.exists()


@as_root
def test_a_directory_that_he_cannot_reach_is_refused_before_anything_starts(place: Path) -> None:
    (place / "closed").mkdir(mode=0o700)
    data = place / "closed" / "data"
    environment = {**os.environ, "BANYAN_RUN_AS": OTHER, "HOME": str(place)}
    command = [sys.executable, "-m", "banyan", "up", "--json", "--port", "0", "--data", str(data)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert f"this user cannot reach the work directory {data}/work" in done.stderr
    assert "below --data" in done.stderr
    assert not (data / "mongo").exists()
