"""`banyan up --tls`: the worker and a second terminal speak TLS with it, and nobody had to set up anything."""

import ssl
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from banyan.up_parts import READY_SECONDS
from tests.support.tls import Authority, Shown, chained, self_signed
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


def tls(shown: Shown, more: str = "") -> list[str]:
    """The arguments for a server with this certificate, and what else the settings file says."""
    file = shown.certificate.parent / "banyan.toml"
    key = "" if shown.key == shown.certificate else shown.key
    file.write_text(f"{more}\n[tls]\ncertificate = '{shown.certificate}'\nkey = '{key}'\n")
    return ["--config", str(file)]


@pytest.mark.parametrize("kind", ["self-signed", "with its key", "chain", "authority"])
def test_a_certificate_of_ones_own_needs_no_ca_file(tmp_path: Path, kind: str) -> None:
    if kind == "authority":
        shown = Authority(tmp_path).vouch("server", "queue.invalid", "localhost")
    elif kind == "chain":
        shown = chained(tmp_path / "own", "localhost")
    else:
        shown = self_signed(tmp_path / "own", "127.0.0.1", "localhost", one_file=kind == "with its key")
    with started(tmp_path / "up", *tls(shown)) as up:
        assert up.url.startswith("https://")
        assert up.ready["ca_file"] == str(shown.certificate)
        done = up.run("submit", "--wait", "--", "echo", "safe")
        assert done.returncode == 0, done.stderr
        assert up.stop() == 0


def test_client_certificates_of_the_file_are_shown_by_the_worker_and_by_a_second_terminal(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, client = authority.vouch("server", "localhost"), authority.vouch("client", client=True)
    known = f"client_certificate = '{client.certificate}'\nclient_key = '{client.key}'\nca_file = '{authority.file}'"
    arguments = tls(server, known)
    file = Path(arguments[1])
    file.write_text(file.read_text() + f"client_ca = '{authority.file}'\n")
    with started(tmp_path / "up", *arguments) as up:
        assert up.ready["ca_file"] == str(authority.file)
        done = up.run("submit", "--wait", "--", "true")
        assert done.returncode == 0, done.stderr


def refused(directory: Path, *arguments: str) -> str:
    """The one sentence with which it ends at once."""
    begun = time.monotonic()
    with pytest.raises(AssertionError, match="banyan up exited"), started(directory, *arguments):
        pass
    assert time.monotonic() - begun < READY_SECONDS  # it does not wait for a server that cannot become ready
    said = [line for line in (directory / "up.log").read_text().splitlines() if line.startswith("banyan: ")]
    assert len(said) == 1
    return said[0]


def test_a_certificate_that_cannot_serve_is_told_at_once(tmp_path: Path) -> None:
    elsewhere = self_signed(tmp_path / "elsewhere", "queue.invalid", "10.255.0.1")
    said = refused(tmp_path / "a", *tls(elsewhere))
    assert (
        f"the certificate {elsewhere.certificate} is for queue.invalid, 10.255.0.1, and nothing of that leads" in said
    )
    expired = self_signed(tmp_path / "expired", "localhost", days=1, age_days=3)
    assert "cannot be trusted: certificate has expired" in refused(tmp_path / "b", *tls(expired))
    asking = self_signed(tmp_path / "asking", "localhost")
    arguments = tls(asking)
    file = Path(arguments[1])
    file.write_text(file.read_text() + f"client_ca = '{asking.certificate}'\n")
    assert "name one with client_certificate" in refused(tmp_path / "c", *arguments)
