"""Certificates for tests, and a small HTTPS server that shows them."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from banyan import certificates
from banyan.certificates import Identity
from banyan.client import Trust

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
ANSWER = HEAD + b'Content-Length: 16\r\n\r\n{"status": "ok"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Files with a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """An authority whose certificate is in `file`."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self.directory = directory
        self._identity: Identity = certificates.new_authority(name, datetime.now(UTC))
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(certificates.certificate_text(self._identity.certificate))

    @property
    def trust(self) -> Trust:
        """A client's trust in this authority."""
        return Trust(ca_file=str(self.file))

    def vouch(self, name: str, *names: str, client: bool = False, age_days: float = 0, days: float = 30) -> Shown:
        """A certificate in `name`.pem for `names`, made `age_days` ago for `days`."""
        shown = Shown(certificate=self.directory / f"{name}.pem", key=self.directory / f"{name}.key")
        made = datetime.now(UTC) - timedelta(days=age_days)
        identity = certificates.issue(self._identity, names or ("localhost",), made, days=days, client=client)
        certificates.write(identity, shown.certificate, shown.key)
        return shown


def self_signed(directory: Path, *names: str, days: float = 30, age_days: float = 0, one_file: bool = False) -> Shown:
    """A certificate that vouches for itself alone; with `one_file` its key is in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = datetime.now(UTC) - timedelta(days=age_days)
    builder = _certificate("alone", "alone", key, made, days, names)
    return _write(directory, [builder.sign(key, hashes.SHA256())], key, one_file=one_file)


def nameless(directory: Path) -> Shown:
    """A certificate for no name."""
    return self_signed(directory / "nameless")


def chained(directory: Path, *names: str) -> Shown:
    """A certificate followed by that of an intermediate authority, whose own authority is nowhere."""
    root, between, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    now = datetime.now(UTC)
    authority = _certificate("between", "root", between, now, 30, ()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    server = _certificate("server", "between", key, now, 30, names)
    certificates_ = [server.sign(between, hashes.SHA256()), authority.sign(root, hashes.SHA256())]
    return _write(directory, certificates_, key)


def _certificate(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, made: datetime, days: float, names: Sequence[str]
) -> x509.CertificateBuilder:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(made - timedelta(hours=1))
        .not_valid_after(made + timedelta(days=days))
    )
    general = [
        x509.IPAddress(ip_address(name)) if name[0].isdecimal() else x509.DNSName(name)  # as far as tests need it
        for name in names
    ]
    return builder.add_extension(x509.SubjectAlternativeName(general), critical=False) if general else builder


def _write(
    directory: Path, chain: Sequence[x509.Certificate], key: ec.EllipticCurvePrivateKey, *, one_file: bool = False
) -> Shown:
    directory.mkdir(parents=True, exist_ok=True)
    shown = Shown(certificate=directory / "server.pem", key=directory / ("server.pem" if one_file else "server.key"))
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    public = b"".join(certificates.certificate_text(each) for each in chain)
    shown.key.write_bytes(private)
    shown.certificate.write_bytes(public + (private if one_file else b""))
    return shown


@contextmanager
def https(shown: Shown) -> Iterator[str]:
    """The address of a server that shows this certificate and answers whatever it is asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.certificate, shown.key)
    with answering(context) as port:
        yield f"https://localhost:{port}"


@contextmanager
def answering(context: ssl.SSLContext | None = None, answer: bytes = ANSWER) -> Iterator[int]:
    """The port of a server that gives this answer to each request, with TLS if there is a `context`."""
    with listening(lambda accepted: _answer(accepted, context, answer)) as port:
        yield port


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that hands one connection after the other to `answer`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):  # it is closed at the end
            while True:
                answer(listener.accept()[0])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _answer(accepted: socket.socket, context: ssl.SSLContext | None, answer: bytes) -> None:
    with suppress(OSError), accepted:  # the client did not like what it saw
        line = accepted if context is None else context.wrap_socket(accepted, server_side=True)
        with line:
            line.recv(65536)
            line.sendall(answer)


def protocol_of(port: int, newest: ssl.TLSVersion, cafile: Path) -> str | None:
    """The protocol that a server agrees to with a client that knows none newer than `newest`; ssl.SSLError if none."""
    context = ssl.create_default_context(cafile=str(cafile))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = newest
    with (
        socket.create_connection(("127.0.0.1", port)) as line,
        context.wrap_socket(line, server_hostname="localhost") as shaken,
    ):
        return shaken.version()
