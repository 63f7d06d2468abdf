"""TLS with real sockets: whom the client believes, where its token goes, and what the server speaks."""

import socket
import ssl
import threading
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from cryptography import x509
from pymongo import MongoClient

from banyan import certificates
from banyan.api.tls import Contexts, warn_if_open
from banyan.client import Client, Trust
from banyan.config import Tls, load_server_settings, load_worker_settings
from banyan.errors import SetupError, Unavailable
from banyan.up_address import url_of
from tests.support.server import running
from tests.support.tls import Authority, Shown, answering, chained, https, nameless, protocol_of, self_signed
from tests.support.waiting import eventually
from worker.daemon import main

RESOURCES = {"cores": 1, "memory": 2**30}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_server_of_the_right_authority_is_believed(authority: Authority) -> None:
    with https(authority.vouch("server")) as url, Client(url, "secret", trust=authority.trust) as client:
        assert client.health() == {"status": "ok"}


def test_the_variable_names_the_authority(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANYAN_CA_FILE", str(authority.file))
    with https(authority.vouch("server")) as url, Client(url, "secret") as client:
        assert client.health() == {"status": "ok"}


def test_a_server_that_cannot_be_trusted_is_not_asked_and_the_next_step_is_told(
    authority: Authority, tmp_path: Path
) -> None:
    pauses: list[float] = []
    cases = [
        (
            authority.vouch("a"),
            Authority(tmp_path, "another").trust,
            "unable to get local issuer .* BANYAN_CA_FILE",
        ),
        (authority.vouch("b"), Trust(), "unable to get local issuer certificate; name the file with its authority"),
        (authority.vouch("c", age_days=9, days=8), authority.trust, "certificate has expired; .* must be renewed"),
        (authority.vouch("d", "elsewhere.test"), authority.trust, "not valid for 'localhost'; use a name that is in"),
    ]
    for shown, trust, words in cases:
        with (
            https(shown) as url,
            Client(url, "secret", sleep=pauses.append, trust=trust) as client,
            pytest.raises(Unavailable, match=f"{url} cannot be trusted: .*{words}"),
        ):
            client.health()
    assert pauses == []


def test_a_server_without_tls_is_recognised(authority: Authority) -> None:
    with (
        answering() as port,
        Client(f"https://localhost:{port}", "secret", trust=authority.trust) as client,
        pytest.raises(Unavailable, match=r"no TLS with the server at .*; perhaps it speaks plain HTTP"),
    ):
        client.health()


@pytest.mark.parametrize(
    "url",
    [
        "http://banyan.test:5000",
        "http://10.0.0.1:5000",
        "http://localhost.test",
        "http://127.0.0.1@banyan.test",
        "http://banyan.test\\@127.0.0.1",
        "http://[::ffff:10.0.0.1]:5000",
        " http://banyan.test",
        "HTTP://banyan.test",
    ],
)
def test_a_token_does_not_leave_this_machine_over_plain_http(url: str) -> None:
    with pytest.raises(SetupError, match=r"must not travel over plain HTTP .*; use https.*BANYAN_ALLOW_INSECURE=true"):
        Client(url, "secret", trust=Trust())
    Client(url, "", trust=Trust()).close()
    Client(url, "secret", trust=Trust(allow_insecure=True)).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_plain_http_within_this_machine_is_allowed(host: str) -> None:
    Client(f"http://{host}:5000", "secret", trust=Trust()).close()


def test_plain_http_within_this_machine_never_goes_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    refuses = b"HTTP/1.1 500 It came to the proxy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with answering(answer=refuses) as proxy, answering() as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with Client(f"http://127.0.0.1:{port}", "secret") as client:
            assert client.health() == {"status": "ok"}


def test_a_worker_refuses_to_send_its_token_in_the_clear(tmp_path: Path) -> None:
    environ = {"BANYAN_URL": "http://banyan.test:5000", "BANYAN_TOKEN": "secret", "BANYAN_WORKDIR": str(tmp_path)}
    with pytest.raises(SetupError, match="must not travel over plain HTTP"):
        main(load_worker_settings(environ=environ))
    assert load_worker_settings(environ={**environ, "BANYAN_ALLOW_INSECURE": "true"}).allow_insecure


def test_a_redirection_is_told_and_never_followed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        target = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/"
        for status in ("301 Moved", "302 Found", "307 Temporary", "308 Permanent"):
            said = f"HTTP/1.1 {status}\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            with (
                answering(answer=said) as port,
                Client(f"http://127.0.0.1:{port}", "secret") as client,
                pytest.raises(Unavailable, match=f"redirects to {target}; use that address"),
            ):
                client.submit({"command": "true"})
        elsewhere.setblocking(False)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    shown = authority.vouch("client", client=True)
    cases = [
        (Trust(ca_file="/nowhere/ca.pem"), "ca_file /nowhere/ca.pem: No such file or directory"),
        (Trust(ca_file=str(tmp_path / "empty.pem")), "ca_file .*empty.pem: .*; it must hold certificates"),
        (Trust(client_certificate=str(shown.certificate)), "client_certificate .*client.pem: .*; it needs .* its key"),
        (Trust(client_key=str(shown.key)), "client_key is of no use without client_certificate"),
    ]
    for trust, words in cases:
        with pytest.raises(SetupError, match=words):
            Client("https://localhost:1", "secret", trust=trust)


def test_the_server_speaks_new_tls_only_and_asks_for_a_client_certificate(
    authority: Authority, mongo_uri: str, database_name: str, tmp_path: Path
) -> None:
    server, clients = authority.vouch("server"), Authority(tmp_path, "clients")
    names = {"CERTIFICATE": server.certificate, "KEY": server.key, "CLIENT_CA": clients.file}
    variables = {f"BANYAN_TLS__{key}": str(value) for key, value in names.items()}

    def showing(shown: Shown) -> Trust:
        return replace(authority.trust, client_certificate=str(shown.certificate), client_key=str(shown.key))

    trust = showing(clients.vouch("known", client=True))
    with running(mongo_uri, database_name, tmp_path, trust, **variables) as secured:
        with secured.client("user") as client:
            assert client.submit({"command": "true"})["_id"]
        for other in (authority.trust, showing(authority.vouch("stranger", client=True))):
            with secured.client("user", trust=other) as client, pytest.raises(Unavailable):
                client.queues()
        port = urlsplit(secured.url).port or 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
                with pytest.raises(ssl.SSLError, match="TLSV1_ALERT_PROTOCOL_VERSION"):
                    protocol_of(port, old, authority.file)
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{port}/health", timeout=30)
        assert secured.healthy()
    assert "Traceback" not in secured.log.read_text()


def test_a_renewed_certificate_is_shown_while_claims_are_held(
    authority: Authority, mongo_uri: str, database_name: str, tmp_path: Path
) -> None:
    shown = authority.vouch("server")
    variables = {"BANYAN_TLS__CERTIFICATE": str(shown.certificate), "BANYAN_TLS__KEY": str(shown.key)}
    answers: list[dict[str, Any]] = []
    with running(mongo_uri, database_name, tmp_path, authority.trust, **variables) as server:
        port = urlsplit(server.url).port or 0
        with server.client("worker") as worker, server.client("user") as provider:
            id = worker.register_worker({"name": "w", "resources": RESOURCES, "capabilities": ["shell"]})["_id"]
            body = {"request": "r", "resources": RESOURCES, "max_tasks": 1, "held": [], "wait": 20}
            held = threading.Thread(target=lambda: answers.append(worker.claim(id, body)))
            held.start()
            with MongoClient[dict[str, Any]](mongo_uri) as mongo:
                workers = mongo[database_name]["workers"]
                eventually(lambda: workers.find_one({"claim_request": "r"}), show=workers.find_one)
            first = serial_of(port, authority)
            shown.certificate.write_text("half of it")
            assert serial_of(port, authority) == first
            authority.vouch("server")
            assert serial_of(port, authority) not in (first, None)
            assert held.is_alive()
            task = provider.submit({"command": "true", "state": "available"})["_id"]
            held.join()
            assert [each["_id"] for each in answers[0]["tasks"]] == [task]
    log = server.log.read_text()
    assert log.count("the renewed certificate cannot be used") == 1
    assert log.count("is in use") == 1


def test_what_is_asked_of_the_server_in_vain_is_told_at_its_start(authority: Authority, tmp_path: Path) -> None:
    shown, other = authority.vouch("server"), authority.vouch("other")
    cases = [
        (Tls(certificate="/nowhere/server.pem"), "/nowhere/server.pem: No such file or directory; correct the section"),
        (Tls(certificate=str(shown.certificate), key=str(other.key)), "key values mismatch"),
        (Tls(certificate=str(shown.key)), "TLS cannot begin"),
    ]
    for settings, words in cases:
        with pytest.raises(SetupError, match=words):
            Contexts(settings)
    with pytest.raises(SetupError, match="tls: key and client_ca are of no use without a certificate"):
        load_server_settings(environ={"BANYAN_TLS__KEY": "key.pem"})


def test_a_server_without_tls_warns_when_others_can_reach_it(caplog: pytest.LogCaptureFixture) -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        warn_if_open(host, None)
    assert caplog.messages == []
    warn_if_open("0.0.0.0", None)
    with socket.create_server(("", 0)) as listener:
        warn_if_open("127.0.0.1", listener.fileno())
    assert [text.partition(":")[0] for text in caplog.messages] == [
        "the server listens to other machines without TLS"
    ] * 2


def test_a_certificate_for_this_machine_is_kept_and_renewed_near_its_end(tmp_path: Path) -> None:
    now, names = datetime.now(UTC), certificates.names_of_this_machine("0.0.0.0")
    assert {"localhost", "127.0.0.1", "::1", socket.gethostname()} <= set(names)

    def kept(when: datetime, *more: str) -> tuple[bytes, bytes, bytes]:
        files = certificates.keep(tmp_path / "tls", [*names, *more], when)
        return files.authority.read_bytes(), files.certificate.read_bytes(), files.key.read_bytes()

    first = kept(now)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()} == {0o600}
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    assert kept(now + timedelta(days=certificates.SERVER_DAYS - certificates.RENEW_DAYS - 1)) == first
    renewed = kept(now + timedelta(days=certificates.SERVER_DAYS - certificates.RENEW_DAYS + 1))
    assert [renewed[at] == first[at] for at in range(3)] == [True, False, True]
    named = kept(now, "queue.test")
    assert [named[at] == renewed[at] for at in range(3)] == [True, False, True]
    (tmp_path / "tls" / "server.pem").write_text("torn")
    assert [after == before for after, before in zip(kept(now), first, strict=True)] == [True, False, False]
    assert kept(now + timedelta(days=certificates.AUTHORITY_DAYS))[0] != first[0]


@pytest.mark.parametrize(
    ("host", "names", "expected"),
    [
        ("127.0.0.1", ["127.0.0.1", "localhost"], "127.0.0.1"),
        ("127.0.0.1", ["elsewhere.test", "localhost"], "localhost"),
        ("127.0.0.1", ["LocalHost"], "localhost"),
        ("0.0.0.0", ["elsewhere.test", "localhost"], "localhost"),
        ("localhost", ["localhost"], "localhost"),
        ("::1", ["::1"], "[::1]"),
        ("127.0.0.1", ["*.banyan.test", "queue.invalid", "10.255.0.1"], None),
        ("127.0.0.1", ["127.0.0.2"], None),
        ("0.0.0.0", ["queue.invalid"], None),
        ("127.0.0.1", [], None),
    ],
)
def test_a_server_is_called_by_a_name_of_its_certificate_that_leads_there(
    authority: Authority, host: str, names: list[str], expected: str | None
) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    shown = authority.vouch("server", *names) if names else nameless(authority.directory)
    with socket.create_server((host, 0), family=family) as listener:
        if expected is not None:
            url = url_of(listener, host, False, str(shown.certificate))
            assert url == f"https://{expected}:{listener.getsockname()[1]}"
            return
        with pytest.raises(SetupError, match="and nothing of that leads to") as told:
            url_of(listener, host, False, str(shown.certificate))
        assert "\n" not in str(told.value)
        assert all(name in str(told.value) for name in names or ["no name"])


def test_what_is_no_certificate_is_told(authority: Authority) -> None:
    shown = authority.vouch("server")
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(SetupError, match="is not a certificate"),
    ):
        url_of(listener, "127.0.0.1", True, str(shown.key))


def test_each_certificate_in_a_named_file_is_an_authority(tmp_path: Path) -> None:
    chain = chained(tmp_path / "chain", "localhost")
    alone = self_signed(tmp_path / "alone", "localhost")
    for shown, trust in [
        (
            chain,
            Trust(ca_file=str(chain.certificate)),
        ),  # the server's own certificate and an intermediate, without a root
        (alone, Trust(ca_file=str(alone.certificate))),
    ]:
        with https(shown) as url, Client(url, "secret", trust=trust) as client:
            assert client.health() == {"status": "ok"}
    with (
        https(alone) as url,
        Client(url, "secret", trust=Trust(ca_file=str(chain.certificate))) as client,
        pytest.raises(Unavailable, match="cannot be trusted"),
    ):
        client.health()


def serial_of(port: int, authority: Authority) -> int:
    context = ssl.create_default_context(cafile=str(authority.file))
    with (
        socket.create_connection(("127.0.0.1", port)) as line,
        context.wrap_socket(line, server_hostname="localhost") as shaken,
    ):
        return x509.load_der_x509_certificate(shaken.getpeercert(binary_form=True) or b"").serial_number
