"""Which server and which token the commands choose."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from banyan.cli.connection import Credentials, find_credentials, pointer_directory
from banyan.errors import SetupError, Unauthorized, Unavailable
from banyan.trust import Trust


def settings(home: Path, text: str) -> Path:
    path = home / ".config" / "banyan" / "client.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def pointer(home: Path, name: str, pid: int, modified: float) -> Path:
    directory = pointer_directory({"HOME": str(home)})
    assert directory is not None
    path = directory / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {"url": f"http://{name}:5000", "token": f"{name}-user", "admin_token": f"{name}-admin", "pid": pid}
    path.write_text(json.dumps(fields | {"started": "now"}))
    os.utime(path, (modified, modified))
    return path


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_environment_comes_first(tmp_path: Path) -> None:
    settings(tmp_path, 'url = "http://other"\ntoken = "other"')
    environ = {"HOME": str(tmp_path), "BANYAN_URL": "http://here/", "BANYAN_TOKEN": "mine"}
    assert find_credentials(environ) == Credentials(url="http://here", token="mine", source="BANYAN_URL")


def test_the_token_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("mine\n")
    environ = {"HOME": str(tmp_path), "BANYAN_URL": "http://here", "BANYAN_TOKEN_FILE": str(tmp_path / "token")}
    assert find_credentials(environ).token == "mine"
    with pytest.raises(SetupError, match="BANYAN_TOKEN_FILE names the token file /nowhere, which cannot be read"):
        find_credentials(environ | {"BANYAN_TOKEN_FILE": "/nowhere"})


def test_the_settings_come_before_a_running_server(tmp_path: Path) -> None:
    (tmp_path / "lab.token").write_text("from the file")
    path = settings(tmp_path, 'url = "http://lab"\ntoken_file = "~/lab.token"'.replace("~", str(tmp_path)))
    pointer(tmp_path, "up", os.getpid(), 1)
    assert find_credentials({"HOME": str(tmp_path)}) == Credentials(
        url="http://lab", token="from the file", source=str(path)
    )


def test_the_newest_living_server_is_found_with_the_token_for_the_role(tmp_path: Path) -> None:
    pointer(tmp_path, "older", os.getpid(), 1)
    newer = pointer(tmp_path, "newer", os.getpid(), 2)
    pointer(tmp_path, "dead", dead_pid(), 3)
    environ = {"HOME": str(tmp_path)}
    assert find_credentials(environ) == Credentials(url="http://newer:5000", token="newer-user", source=str(newer))
    assert find_credentials(environ, admin=True).token == "newer-admin"


def test_a_torn_pointer_is_passed_over(tmp_path: Path) -> None:
    pointer(tmp_path, "torn", os.getpid(), 1).write_text('{"url": "http')
    with pytest.raises(Unavailable, match="start one with `banyan up`"):
        find_credentials({"HOME": str(tmp_path)})


def test_a_token_is_never_sent_to_another_address_than_its_own(tmp_path: Path) -> None:
    settings(tmp_path, 'url = "http://lab"\ntoken = "for the lab"')
    pointer(tmp_path, "up", os.getpid(), 1)
    environ = {"HOME": str(tmp_path)}
    with pytest.raises(Unauthorized, match="no token is known for http://elsewhere"):
        find_credentials(environ | {"BANYAN_URL": "http://elsewhere"})
    assert find_credentials(environ | {"BANYAN_URL": "http://up:5000"}).token == "up-user"


def test_whom_to_believe_stands_beside_the_address_unless_the_environment_says_it(tmp_path: Path) -> None:
    settings(tmp_path, 'url = "https://lab"\ntoken = "t"\nca_file = "lab.pem"\nallow_insecure = true')
    path = pointer(tmp_path, "up", os.getpid(), 1)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"url": "https://up", "ca_file": "/data/ca.pem"}))
    environ = {"HOME": str(tmp_path)}
    home = tmp_path / ".config" / "banyan"
    assert find_credentials(environ).trust == Trust(ca_file=f"{home}/lab.pem", allow_insecure=True)
    assert find_credentials(environ | {"BANYAN_URL": "https://up"}).trust == Trust(ca_file="/data/ca.pem")
    named = {"BANYAN_CA_FILE": "/mine.pem", "BANYAN_CLIENT_CERTIFICATE": "/me.pem", "BANYAN_CLIENT_KEY": "/me.key"}
    assert find_credentials(environ | named).trust == Trust(
        ca_file="/mine.pem", client_certificate="/me.pem", client_key="/me.key", allow_insecure=True
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [("url = ", "cannot be read"), ('address = "x"', "unknown key address"), ('token = "x"', "no url")],
)
def test_faulty_settings_are_explained(tmp_path: Path, text: str, words: str) -> None:
    settings(tmp_path, text)
    with pytest.raises(SetupError, match=words):
        find_credentials({"HOME": str(tmp_path)})


def test_a_token_that_was_rotated_since_the_start_is_read_from_the_servers_own_file(tmp_path: Path) -> None:
    path = pointer(tmp_path, "up", os.getpid(), 1)
    credentials = tmp_path / "credentials.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"credentials": str(credentials)}))
    environ = {"HOME": str(tmp_path)}
    assert [find_credentials(environ, admin).token for admin in (False, True)] == ["up-user", "up-admin"]
    credentials.write_text(json.dumps({"admin": "new-admin", "user": "new-user", "worker": "new-worker"}))
    assert [find_credentials(environ, admin).token for admin in (False, True)] == ["new-user", "new-admin"]
