"""`banyan up --tls`: the worker and a second terminal speak TLS with it, and nobody had to set up anything."""

import ssl
from pathlib import Path
from urllib.request import urlopen

from tests.support.up import started


def test_the_worker_and_a_second_terminal_just_work(tmp_path: Path) -> None:
    with started(tmp_path, "--tls") as up:
        assert up.url.startswith("https://127.0.0.1:")
        done = up.run("submit", "--wait", "--", "echo", "secret and safe")
        assert done.returncode == 0, done.stderr
        assert up.run("logs", done.stdout.split()[0]).stdout == "secret and safe\n"

        kept = tmp_path / "data" / "tls"
        assert up.ready["ca_file"] == str(kept / "authority.pem")
        assert {path.name: oct(path.stat().st_mode & 0o777) for path in kept.glob("*.key")} == {
            "authority.key": "0o600",
            "server.key": "0o600",
        }
        for host in ("localhost", "127.0.0.1"):
            address = up.url.replace("127.0.0.1", host)
            context = ssl.create_default_context(cafile=str(kept / "authority.pem"))
            with urlopen(f"{address}/health", context=context) as answer:  # noqa: S310 - https, as asserted above
                assert answer.status == 200

        elsewhere = {"BANYAN_URL": up.url, "BANYAN_TOKEN": up.ready["provider_token"], "HOME": str(tmp_path)}
        unknown = up.run("list", env=elsewhere)
        assert (unknown.returncode, unknown.stderr.count("\n")) == (3, 1)
        assert "cannot be trusted" in unknown.stderr
        assert up.run("list", env=elsewhere | {"BANYAN_CA_FILE": up.ready["ca_file"]}).returncode == 0
        assert up.run("list", env=elsewhere | {"BANYAN_URL": "http://banyan.test"}).returncode == 2
        assert up.stop() == 0
