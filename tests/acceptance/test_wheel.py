"""The distribution that users install: what is in it, and that it runs by itself."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALL_SECONDS = 600


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the files that git knows, so that nothing left by an older build gets into it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    archive = ["tar", "-C", str(ROOT), "--null", "-T", "-", "-c"]
    packed = subprocess.run(archive, input=files, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-C", str(source), "-x"], input=packed, check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(source)]
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_ships_the_two_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        commands = archive.read(next(name for name in archive.namelist() if name.endswith("entry_points.txt")))
    assert {top for top in tops if not top.endswith(".dist-info")} == {"banyan", "worker"}
    assert commands.decode().split("\n") == ["[console_scripts]", "banyan = banyan.__main__:main", ""]


def test_the_demo_runs_from_the_wheel_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "env"], cwd=tmp_path, check=True)
    pip = [str(tmp_path / "env/bin/pip"), "install", "-q", "--no-compile"]
    install = [*pip, "-c", str(ROOT / "requirements.lock"), f"{wheel}[embedded]"]
    subprocess.run(install, cwd=tmp_path, check=True, timeout=INSTALL_SECONDS)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BANYAN_", "XDG_", "PYTHON"))}
    demo = subprocess.run(
        [str(tmp_path / "env/bin/banyan"), "demo"],
        cwd=tmp_path,
        env={**kept, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
