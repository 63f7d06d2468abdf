"""The README's tour, line by line as it stands there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.up import Up

README = (Path(__file__).parents[2] / "README.md").read_text()
TOUR = README.partition("<!-- tour -->")[2].partition("<!-- end of the tour -->")[0]
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", TOUR, re.DOTALL | re.MULTILINE)
BANYAN = f'banyan() {{ {sys.executable} -m banyan "$@"; }}\n'


@pytest.mark.skipif(shutil.which("curl") is None, reason="the tour uses curl, which is not installed here")
def test_every_line_of_the_tour_works(up: Up) -> None:
    environment = {**up.environment, "URL": up.url, "TOKEN": str(up.ready["provider_token"])}
    script = BANYAN + "set -euxo pipefail\n" + "\n".join(BLOCKS)
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in ("hello\n", "then me\n", "it exited 1\n", "failure (exit code 3)", "cancelled", "true peak"):
        assert shown in done.stdout, done.stdout
    assert '"_status":"ERR"' not in done.stdout, done.stdout


@pytest.mark.parametrize("marker", ["demo", "tests"])
def test_both_commands_are_one_line_each(marker: str) -> None:
    block = re.search(rf"^<!-- ci: {marker} -->\n```sh\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert block is not None
    assert block[1].count("\n") == 1
