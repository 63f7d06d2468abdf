"""The address of the server of `banyan up`, for its parts and this user's other terminals, and the trust in it."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from banyan import certificates
from banyan.config import Tls, WorkerSettings
from banyan.errors import SetupError
from banyan.trust import Trust

_TRY_SECONDS = 2.0
_ALL = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}
"""Addresses that mean all of a machine's, and one of them: `::` takes both families, and `::1` may be switched off."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; SetupError if there is none to be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        both = address[0] == "::" and socket.has_dualstack_ipv6()
        # A link-local address has its interface in the third and fourth part.
        return socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=both)
    except (OSError, UnicodeError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (")[0]
        raise SetupError(f"cannot listen on {host} port {port}: {reason}; choose another with --port") from error


def url_of(listener: socket.socket, host: str, tls: bool, certificate: str) -> str:
    """Return the address of the server on `listener`, which has the setting `host`.

    SetupError if its `certificate` is for no name that leads there.
    """
    address, port = listener.getsockname()[:2]
    reachable = _ALL.get(address, host)
    if certificate:
        reachable = _name_of(listener, reachable, Path(certificate).expanduser())
    scheme = "https" if tls or certificate else "http"
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


def trust_in(worker: WorkerSettings, tls: Tls, authority: str) -> Trust:
    """Return the trust of the worker and other terminals: our `authority`, the worker's setting, or the certificate.

    SetupError if the server requires a certificate that the worker does not have.
    """
    told = Trust(
        ca_file=_absolute(worker.ca_file),
        client_certificate=_absolute(worker.client_certificate),
        client_key=_absolute(worker.client_key),
        allow_insecure=worker.allow_insecure,
    )
    if tls.client_ca and not told.client_certificate:
        raise SetupError(
            f"tls.client_ca = {tls.client_ca!r} lets in only clients with a certificate, and the worker of `banyan up` "
            "has none; name one with client_certificate (BANYAN_CLIENT_CERTIFICATE)"
        )
    if authority or (tls.certificate and not told.ca_file):
        return replace(told, ca_file=authority or _absolute(tls.certificate))
    return told


def _name_of(listener: socket.socket, preferred: str, certificate: Path) -> str:
    """Return a name or address in the certificate that leads to the listener."""
    names = certificates.names_in(certificate)
    for name in _candidates(preferred, names):
        if _leads_to(listener, name):
            return name
    listens = listener.getsockname()[0]
    said = ", ".join(names[:5]) + (", .." if len(names) > 5 else "") or "no name (it has no subject alternative names)"
    raise SetupError(
        f"the certificate {certificate} is for {said}, and nothing of that leads to {listens}, on which the server "
        "listens: get one for a name of this machine, or listen where its name leads (--host)"
    )


def _candidates(preferred: str, names: list[str]) -> Iterator[str]:
    """Yield the names that are in the certificate, and this machine's own that its wildcards cover."""
    own = [preferred, "localhost", "127.0.0.1", "::1", socket.gethostname(), socket.getfqdn()]
    lower = [name.lower() for name in names]
    covered = [name for name in own if name.lower() in lower or _is_covered(name.lower(), lower)]
    yield from dict.fromkeys([*covered, *(name for name in names if "*" not in name)])


def _is_covered(name: str, names: list[str]) -> bool:
    """Return whether a wildcard stands for the first part of a name."""
    _, period, rest = name.partition(".")
    return bool(period) and f"*.{rest}" in names


def _leads_to(listener: socket.socket, name: str) -> bool:
    """Return whether a connection to a name arrives at the listener."""
    host, port = listener.getsockname()[:2]
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return False
    if host not in _ALL:
        return host in found
    if found & {address.address.partition("%")[0] for each in psutil.net_if_addrs().values() for address in each}:
        return True
    return _arrives(listener, name, port)


def _arrives(listener: socket.socket, name: str, port: int) -> bool:
    """Return whether a connection to an address that is not this machine's own comes back, as behind some routers."""
    deadline = time.monotonic() + _TRY_SECONDS
    with suppress(OSError), socket.create_connection((name, port), timeout=_TRY_SECONDS):
        listener.settimeout(max(0.0, deadline - time.monotonic()))
        try:
            listener.accept()[0].close()
        finally:
            listener.settimeout(None)
        return True
    return False


def _absolute(file: str) -> str:
    return str(Path(file).expanduser().absolute()) if file else ""
