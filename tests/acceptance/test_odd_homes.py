"""`banyan up`, `worker` and the commands where there is no usual home, no entry in passwd, or no standard streams."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from banyan.client import Client
from tests.support.up import Up, started

NOBODY = ("unshare", "--user", "--map-user=12345", "--map-group=12345")
"""The words that run a command as a user without an entry in passwd."""
HOMELESS = (*NOBODY, "env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME")


def banyan(
    *arguments: str, before: Sequence[str] = (), env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BANYAN_", "XDG_"))}
    command = [*before, sys.executable, "-m", "banyan", *arguments]
    return subprocess.run(command, env=kept | (env or {}), capture_output=True, text=True, timeout=120, check=False)


def works(up: Up, before: Sequence[str]) -> None:
    """A task runs, and a command from a terminal that is told all shows what it wrote."""
    env = {"BANYAN_URL": up.url, "BANYAN_TOKEN": up.ready["provider_token"]}
    done = banyan("submit", "--wait", "--", "echo", "hello", before=before, env=env)
    assert done.returncode == 0, done.stderr
    assert banyan("logs", done.stdout.strip(), before=before, env=env).stdout == "hello\n"


@pytest.mark.parametrize("home", [(), ("HOME=/proc",), ("HOME=",), ("HOME=/dev/null",)], ids=str)
def test_up_works_without_a_home_that_it_could_write_to_and_says_what_is_missing(
    tmp_path: Path, home: tuple[str, ...]
) -> None:
    before = (*HOMELESS, *home)
    with started(tmp_path / "own", "--cores", "1", before=before) as up:
        works(up, before)
        assert up.stop() == 0
    said = (tmp_path / "own" / "up.log").read_text()
    assert said.startswith("banyan up: other terminals do not find this server (")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("home", "words"),
    [
        ((), "there is no home directory: HOME is not set, and user 12345 is not in passwd; name a directory with --"),
        (("HOME=/proc",), "/proc/.local"),
        (("HOME=/dev/null",), "/dev/null/.local"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "command", [("up", "--port", "0"), ("worker", "--url", "http://127.0.0.1:1", "--token", "x")], ids=" ".join
)
def test_what_needs_a_home_says_so_in_one_sentence(home: tuple[str, ...], words: str, command: tuple[str, ...]) -> None:
    done = banyan(*command, before=(*HOMELESS, *home))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert words in done.stderr


@pytest.mark.parametrize("home", [(), ("HOME=/proc",), ("HOME=",), ("HOME=/",)], ids=str)
def test_a_command_without_a_home_knows_no_server(home: tuple[str, ...]) -> None:
    done = banyan("list", before=(*HOMELESS, *home))
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "no server is known" in done.stderr


def test_a_tilde_without_a_home_is_one_sentence() -> None:
    done = banyan("up", "--data", "~/there", before=HOMELESS)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "home directory" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_up_works_with_closed_streams(tmp_path: Path, closed: str) -> None:
    shell = ("sh", "-c", f'exec "$@" {closed}', "sh")
    with started(tmp_path / "own", "--cores", "1", before=shell) as up:
        works(up, shell)
        assert up.stop() == 0
        assert up.rest_of_output() == ""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_commands_and_workers_with_closed_streams_exit_as_always(up: Up, closed: str) -> None:
    shell = ("sh", "-c", f'exec "$@" {closed}', "sh")
    known = {"BANYAN_URL": up.url, "BANYAN_TOKEN": up.ready["provider_token"]}
    assert banyan("list", before=shell, env=known).returncode == 0
    assert banyan("list", "--no-such-option", before=shell).returncode == 2
    unknown = banyan("list", before=shell, env={"BANYAN_URL": "http://127.0.0.1:1", "BANYAN_TOKEN": "x"})
    assert unknown.returncode == 3
    assert "Traceback" not in unknown.stderr
    assert banyan("worker", "--tasks", "/dev/null", before=shell).returncode == 0


def test_every_address_of_both_families_reaches_a_server_on_all_of_them(tmp_path: Path) -> None:
    with started(tmp_path / "own", "--cores", "1", "--host", "::") as up:
        port = up.url.rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            with Client(f"http://{host}:{port}", up.ready["provider_token"]) as client:
                assert client.health()
        assert up.run("submit", "--wait", "--", "true").returncode == 0
        assert up.stop() == 0


@pytest.mark.parametrize("host", ["\udcff", "a" * 70, "..", "fe80::1", "203.0.113.1", "no.such.name.invalid"])
def test_an_address_that_is_none_of_this_machines_is_one_sentence(tmp_path: Path, host: str) -> None:
    done = banyan("up", "--port", "0", "--tls", "--host", host, "--data", str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "cannot listen on" in done.stderr
