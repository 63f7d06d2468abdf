"""Certificates that Banyan makes itself: an authority for one installation, and the certificates that it signs."""

import contextlib
import ipaddress
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from banyan.errors import SetupError

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
"""The longest validity that other software accepts in a server's certificate."""
RENEW_DAYS = 30
"""The time before its end at which a certificate is renewed."""
_WILDCARDS = ("0.0.0.0", "::", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The paths of the authority's certificate for clients, and of the server's certificate and key."""

    authority: Path
    certificate: Path
    key: Path


def keep(directory: Path, names: Sequence[str], now: datetime) -> Files:
    """Make or renew a server's certificate for `names` in `directory`, where need be; SetupError if that fails.

    The authority is made once. A certificate that it signed is replaced when it nears its end or lacks a name.
    """
    files = Files(
        authority=directory / "authority.pem", certificate=directory / "server.pem", key=directory / "server.key"
    )
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = _read(files.authority, directory / "authority.key")
        if authority is None or not _lasts(authority.certificate, now, SERVER_DAYS):
            authority = new_authority(f"Banyan on {socket.gethostname()}", now)
            _write(directory / "authority.key", _key_text(authority.key))
            _write(files.authority, certificate_text(authority.certificate))
        server = _read(files.certificate, files.key)
        if server is None or not _serves(server.certificate, authority.certificate, names, now):
            server = issue(authority, names, now, key=server.key if server else None)
            _write(files.key, _key_text(server.key))
            _write(files.certificate, certificate_text(server.certificate))
    except OSError as error:
        raise SetupError(f"cannot keep a certificate in {directory}: {error.strerror}") from error
    return files


def names_of_this_machine(host: str) -> list[str]:
    """Return the names by which clients may call this machine, with its addresses if the server listens on all."""
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname()]
    if host not in _WILDCARDS:
        names.append(str(ipaddress.ip_address(host)) if _is_address(host) else host)
    else:
        found = [each.address for link in psutil.net_if_addrs().values() for each in link]
        names += sorted(address for address in found if _is_address(address) and "%" not in address)
    return list(dict.fromkeys(name for name in names if _general_name(name) is not None))


def names_in(certificate: Path) -> list[str]:
    """Return the names and addresses that a certificate is for; SetupError if it is none."""
    try:
        return _names(x509.load_pem_x509_certificate(certificate.read_bytes()))
    except (OSError, ValueError) as error:
        raise SetupError(f"{certificate} is not a certificate (PEM): {error}") from error


def new_authority(name: str, now: datetime, *, days: float = AUTHORITY_DAYS) -> Identity:
    """Make an authority that signs certificates of servers and clients."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    builder = _builder(subject, subject, key, now, days)
    usage = _usage(key_cert_sign=True, crl_sign=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return Identity(certificate=builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key=key)


def issue(
    authority: Identity,
    names: Sequence[str],
    now: datetime,
    *,
    days: float = SERVER_DAYS,
    client: bool = False,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Identity:
    """Make a certificate for a server, or a client, with these names; with a fresh key unless one is given."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
    general = [found for name in names if (found := _general_name(name)) is not None]
    vouching = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _builder(_subject("Banyan"), authority.certificate.subject, key, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(general), critical=False)
        .add_extension(vouching, critical=False)
    )
    return Identity(certificate=builder.sign(authority.key, hashes.SHA256()), key=key)


def certificate_text(certificate: x509.Certificate) -> bytes:
    """Return it as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_text(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def write(identity: Identity, certificate: Path, key: Path) -> None:
    """Write both files, readable by their owner alone."""
    _write(key, _key_text(identity.key))
    _write(certificate, certificate_text(identity.certificate))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: float
) -> x509.CertificateBuilder:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks differ
        .not_valid_after(now + timedelta(days=days))
        .add_extension(identifier, critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _general_name(name: str) -> x509.GeneralName | None:
    """Return the name as certificates have it; None if no certificate can be for it."""
    if _is_address(name):
        return x509.IPAddress(ipaddress.ip_address(name))
    try:
        return x509.DNSName(name) if 0 < len(name) <= 253 else None
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return False


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    return [*found.get_values_for_type(x509.DNSName), *addresses]


def _lasts(certificate: x509.Certificate, now: datetime, days: float) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - timedelta(days=days)


def _serves(certificate: x509.Certificate, authority: x509.Certificate, names: Sequence[str], now: datetime) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return _lasts(certificate, now, RENEW_DAYS) and set(names) <= set(_names(certificate))


def _read(certificate: Path, key: Path) -> Identity | None:
    """Return the stored identity; None if there is none whose parts belong together."""
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != found.public_key():
        return None
    return Identity(certificate=found, key=private)


def _write(path: Path, text: bytes) -> None:
    """Replace the file at once, readable by its owner alone."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(text)
    unfinished.replace(path)
