"""Every page of the documentation, its code pasted block by block as it stands there, and the examples of `--help`."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from banyan.client import Client
from banyan.config import load_server_settings, load_worker_settings
from banyan.storage.embedded import free_port
from tests.support import help_examples, pages
from tests.support.pages import PAGES, ROOT, Block
from tests.support.up import Up, started

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="the pages use curl, which is not installed here")

SECONDS = 400
BIN = Path(sys.executable).parent
OWN = {"docs/tutorial-model.md"}
"""Pages that start a `banyan up` of their own."""
SUCH_ENDS = {"success", "cancelled", "failure (exit code 3)"}
"""The exit statuses of the pages' tasks; exit code 3 is the one that the tour shows."""
SAID = {
    "README.md": ("hello\n", "oh\n", "then me\n", "it exited 1\n", "failure (exit code 3)", "cancelled", "true peak")
}
"""Texts that the output must contain although the page does not show them."""
RUNNING = [page for page in PAGES if any(block.is_run for block in pages.blocks(page))]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A `banyan up` for the pages alone, for they make queues, users and workers."""
    models = {"BANYAN_MODELS__PATH": json.dumps([str(ROOT / "models")])}
    with started(tmp_path_factory.mktemp("pages"), "--cores", "2", env=models) as up:
        yield up


def run(found: list[Block], directory: Path, environment: Mapping[str, str]) -> None:
    """Do what a reader does with these blocks in this directory."""
    out, here = directory / "out", directory / "here"
    out.mkdir()
    here.mkdir()
    (out / "script").write_text(pages.script(found))
    path = f"{BIN}:{environment['PATH']}"
    process = subprocess.Popen(
        ["bash", str(out / "script")],
        env={**environment, "PATH": path, "OUT": str(out), "TERMINAL": ""},
        cwd=here,
        stdin=subprocess.DEVNULL,
    )
    try:
        status = process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        status = None
    printed = {block.number: _read(out / str(block.number)) for block in found}
    last = max((number for number, text in printed.items() if (out / str(number)).exists()), default=0)
    block = next((block for block in found if block.number == last), None)
    where = f"line {block.line}: {block.text}" if block else "before the first block"
    assert status == 0, f"{where}\nprinted:\n{printed.get(last, '')}"
    for before, shown in pairwise(found):
        if shown.act == "prints":
            missing = pages.unlike(printed[before.number], shown.text)
            assert not missing, f"line {shown.line}: {missing} is not in\n{printed[before.number]}"


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def ends_since(client: Client, before: str) -> set[tuple[str, str]]:
    """The exit statuses of the tasks that were made after another one, each with its name or command."""
    found = client.tasks(
        {"_id": {"$gt": before}, "state": {"$ne": "inactive"}, "hold": {"$ne": True}}, max_results=1000
    )
    ended = client.wait([task["_id"] for task in found.items], timeout=120)
    return {(str(task.get("exit_status")), str(task.get("name") or task.get("command"))) for task in ended}


@pytest.mark.parametrize("page", RUNNING, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_works_as_it_stands_there(up: Up, tmp_path: Path, page: Path) -> None:
    found = pages.blocks(page)
    if str(page.relative_to(ROOT)) in OWN:
        run(found, tmp_path, own_environment(up, tmp_path))
        return
    with Client(up.url, str(up.ready["provider_token"])) as client:
        before = client.submit({"name": "before"})["_id"]
        run(found, tmp_path, {**up.environment, "URL": up.url, "TOKEN": str(up.ready["provider_token"])})
        ends = ends_since(client, before)
    printed = "".join(_read(tmp_path / "out" / str(block.number)) for block in found)
    assert '"_status":"ERR"' not in printed, printed
    assert [word for word in SAID.get(page.name, ()) if word not in printed] == []
    assert {end for end, _ in ends} <= SUCH_ENDS, ends


def own_environment(up: Up, directory: Path) -> dict[str, str]:
    """The environment of a user on whose machine nothing runs yet, with a free port and tokens that are known."""
    home, port = directory / "home", free_port()
    home.mkdir()
    tokens = {name: f"{name}-token-of-the-page" for name in ("admin", "user", "worker")}
    credentials = directory / "credentials.json"
    credentials.write_text(json.dumps(tokens))
    credentials.chmod(0o600)
    settings = {"BANYAN_SERVER__PORT": str(port), "BANYAN_AUTH__CREDENTIALS_FILE": str(credentials)}
    settings |= {"URL": f"http://127.0.0.1:{port}", "TOKEN": tokens["user"]}
    return {**up.environment, "HOME": str(home), **settings}


@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(page, block, id=f"{page.name}-{block.line}")
        for page in PAGES
        for block in pages.blocks(page)
        if block.act == "settings"
    ],
)
def test_settings_on_a_page_are_settings(tmp_path: Path, page: Path, block: Block) -> None:
    (tmp_path / "config.toml").write_text(block.text)
    if block.words == "server":
        load_server_settings(config=tmp_path / "config.toml", environ={})
    else:
        load_worker_settings(config=tmp_path / "config.toml", environ={})


def test_the_examples_of_help_work(up: Up, tmp_path: Path) -> None:
    (tmp_path / "sweep.py").write_text("import sys; print(sys.argv[1])")
    (tmp_path / "run.py").write_text("import sys; print(sys.argv[1:])")
    environment = {**up.environment, "PATH": f"{BIN}:{os.environ['PATH']}"}
    examples = help_examples.examples()
    assert len(examples) >= 5, examples
    with Client(up.url, str(up.ready["provider_token"])) as client:
        ended = client.submit({"name": "ended", "command": "echo 1", "state": "available"})["_id"]
        held = client.submit({"name": "held", "command": "echo 2", "hold": True})["_id"]
        client.wait([ended], timeout=120)
        for example in examples:
            line = re.sub(r"\bID\b", held if example.startswith("banyan edit") else ended, example)
            done = subprocess.run(
                ["bash", "-c", line],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{example}: {done.stdout}{done.stderr}"
        ends = ends_since(client, ended)
    assert {end for end, _ in ends} == {"success"}, ends
