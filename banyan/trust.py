"""The servers that a client trusts, its own certificate, and the addresses to which its token may be sent."""

import ipaddress
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from banyan.errors import SetupError
from banyan.plain_http import address_of

VARIABLES = {
    "ca_file": "BANYAN_CA_FILE",
    "client_certificate": "BANYAN_CLIENT_CERTIFICATE",
    "client_key": "BANYAN_CLIENT_KEY",
    "allow_insecure": "BANYAN_ALLOW_INSECURE",
}
"""The environment variable of each field of `Trust`; the worker's settings have the same names."""

POINTED = ("ca_file", "client_certificate", "client_key")
"""The files that a running `banyan up` announces to this user's other terminals."""

PROBE_SECONDS = 3.0
"""The time that a server has to connect, and to answer a handshake, when it is tested for TLS."""

_YES = ("1", "true", "yes", "on")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The trust between a client and a server.

    `ca_file` names a PEM file with the authorities that may sign the server's certificate (empty: the public ones), and
    `client_certificate` one with the certificate that the client shows; `client_key` its key, where that is in a file
    of its own. `allow_insecure` lets the token travel over plain HTTP to another machine.
    """

    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""
    allow_insecure: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Return the trust of the variables `BANYAN_CA_FILE` and so on."""
        texts = {field: environ.get(variable, "") for field, variable in VARIABLES.items()}
        insecure = texts.pop("allow_insecure").strip().lower() in _YES
        return cls(allow_insecure=insecure, **texts)

    def with_files(self, files: Mapping[str, str]) -> Self:
        """Return the same with other files."""
        ca_file, certificate, key = (files.get(name, "") for name in POINTED)
        return replace(self, ca_file=ca_file, client_certificate=certificate, client_key=key)

    @property
    def verify(self) -> str | bool:
        """Return the authorities, in the form of `requests`."""
        named = self.ca_file or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        return str(Path(named).expanduser()) if named else True

    @property
    def shown(self) -> str | tuple[str, str] | None:
        """Return the client's certificate, in the form of `requests`."""
        certificate = str(Path(self.client_certificate).expanduser())
        if not self.client_certificate:
            return None
        return (certificate, str(Path(self.client_key).expanduser())) if self.client_key else certificate

    def check(self) -> None:
        """Raise SetupError for a file that cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if isinstance(self.verify, str) and not os.path.isdir(self.verify):
            try:
                context.load_verify_locations(cafile=self.verify)
            except OSError as error:  # ssl.SSLError is one
                raise SetupError(f"ca_file {self.verify}: {_reason(error)}; it must hold certificates (PEM)") from error
        if self.client_key and not self.client_certificate:
            raise SetupError("client_key is of no use without client_certificate; name the certificate too")
        if shown := self.shown:
            certificate, key = (shown, None) if isinstance(shown, str) else shown
            try:
                context.load_cert_chain(certificate, key, password="")
            except OSError as error:
                text = f"client_certificate {certificate}: {_reason(error)}"
                raise SetupError(f"{text}; it needs a certificate and its key, not encrypted (PEM)") from error

    def allow(self, url: str) -> None:
        """Raise SetupError unless a token may be sent to `url`: over TLS, or without leaving this machine."""
        if is_plain(url) and not (self.allow_insecure or is_loopback(url)):
            raise SetupError(
                f"a token must not travel over plain HTTP to another machine: {url}; use https:// (docs: operating a "
                f"server, TLS), or set allow_insecure (BANYAN_ALLOW_INSECURE=true) where the network itself is safe"
            )


def speaks_tls(url: str) -> bool:
    """Return whether the server at an address of plain HTTP takes part in a TLS handshake; it receives nothing else."""
    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the test is only for TLS
    try:
        place = parse_url(url)
        host, port = (place.host or "").strip("[]"), place.port or 80
        with (
            socket.create_connection((host, port), PROBE_SECONDS) as line,
            context.wrap_socket(line, server_hostname=host),
        ):
            return True
    except ssl.SSLError as error:
        return "ALERT" in str(error.reason)  # it speaks TLS to refuse our version
    except (OSError, ValueError, LocationParseError):
        return False


def is_plain(url: str) -> bool:
    """Return whether it is an address of plain HTTP."""
    return not url.lower().startswith("https:")


def is_loopback(url: str) -> bool:
    """Return whether requests for `url` stay on this machine; the address is read as `requests` reads it."""
    if (address := address_of(url)) is not None:
        return is_loopback_host(address.host)
    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

    try:
        return is_loopback_host((parse_url(url).host or "").strip("[]"))
    except LocationParseError:
        return False


def is_loopback_host(host: str) -> bool:
    """Return whether a name or address can only mean this machine."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def distrust(url: str, error: Exception) -> str | None:
    """Return why the two sides do not trust each other, and the next step; None if the connection only broke."""
    inner: object = error
    while inner is not None and not isinstance(inner, ssl.SSLError):
        reason = getattr(inner, "reason", None)
        inner = reason if isinstance(reason, Exception) else next(iter(getattr(inner, "args", ())), None)
    if inner is None or isinstance(inner, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return None
    if isinstance(inner, ssl.SSLCertVerificationError):
        said = str(inner.verify_message).rstrip(".")
        step = next((step for words, step in _STEPS.items() if words in said), _STEPS["issuer"])
        return f"the server at {url} cannot be trusted: {said}; {step}"
    step = next((step for words, step in _STEPS.items() if words in str(inner.reason)), "")
    return f"no TLS with the server at {url}: {_reason(inner)}" + (f"; {step}" if step else "")


_STEPS = {
    "issuer": "name the file with its authority's certificate: ca_file, BANYAN_CA_FILE",
    "expired": "its certificate must be renewed",
    "not valid for": "use a name that is in its certificate",
    "CERTIFICATE_REQUIRED": "it asks for a client's certificate: client_certificate, BANYAN_CLIENT_CERTIFICATE",
    "UNKNOWN_CA": "it does not know the authority of the client's certificate",
    "WRONG_VERSION_NUMBER": "perhaps it speaks plain HTTP",
    "RECORD_LAYER_FAILURE": "perhaps it speaks plain HTTP",
}
"""The next step, by a word in OpenSSL's text."""


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return error.strerror or str(error)
