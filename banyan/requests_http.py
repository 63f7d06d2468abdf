"""HTTP and HTTPS by `requests`: with certificates, proxies, or an adapter in place of the network."""

import ssl
import threading
from typing import Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.exceptions import MaxRetryError, NewConnectionError, ProtocolError
from urllib3.util.ssl_ import create_urllib3_context

from banyan.answers import Answer
from banyan.errors import Unavailable, Untrusted
from banyan.network import ACCEPT, CONNECT_SECONDS, BrokenAnswer, NoAnswer, Request, UnusableAddress
from banyan.trust import Trust, distrust


class RequestsHttp:
    """A network to the server at `url`; each thread has a session of its own, all share one pool."""

    def __init__(self, url: str, trust: Trust, transport: BaseAdapter | None, *, direct: bool) -> None:
        self._url = url
        self._trust = trust
        self._adapter = transport or _adapter(trust)
        self._proxies = {} if transport or direct else get_environ_proxies(url)
        self.direct = not transport and not self._proxies
        """True if the server is reached without a proxy."""
        self._local = threading.local()

    def close(self) -> None:
        """Close the pooled sockets."""
        self._adapter.close()

    def send(self, request: Request) -> Answer:
        """Return the response; see `Network`."""
        how: dict[str, Any] = {
            "params": request.query,
            "data": request.data,
            "headers": request.headers,
            "timeout": (CONNECT_SECONDS, request.read_seconds),
            "allow_redirects": False,
        }
        try:
            response = self._session().request(request.method, request.url, **how)
        except requests.exceptions.SSLError as error:
            text = distrust(self._url, error)
            if text is not None:
                raise Untrusted(text) from error
            hint = "" if self._trust.client_certificate else "; perhaps it asks for a client's certificate"
            raise Unavailable(f"the server at {self._url} broke off the TLS connection{hint}") from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise NoAnswer(_cause(error), sent=not _never_sent(error)) from error
        except requests.exceptions.ChunkedEncodingError as error:
            raise BrokenAnswer(str(error)) from error
        except (requests.RequestException, ValueError) as error:
            raise UnusableAddress(str(error)) from error
        return Answer(status=response.status_code, headers=response.headers, body=response.content)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.trust_env = False  # no ~/.netrc that replaces the token
            session.proxies.update(self._proxies)
            session.verify = self._trust.verify
            session.cert = self._trust.shown
            session.mount("http://", self._adapter)
            session.mount("https://", self._adapter)
            session.headers["Accept"] = ACCEPT
        return session


class _NamedAuthorities(HTTPAdapter):
    """An adapter for which each certificate in a named file is an authority, even a server's own or an intermediate."""

    def init_poolmanager(self, *args: Any, **how: Any) -> None:
        """Make the pool with such a context; the file is read for each connection."""
        context = create_urllib3_context()
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        super().init_poolmanager(*args, **how, ssl_context=context)


def _adapter(trust: Trust) -> HTTPAdapter:
    kind = _NamedAuthorities if isinstance(trust.verify, str) else HTTPAdapter
    return kind(pool_connections=4, pool_maxsize=32)


def _never_sent(error: Exception) -> bool:
    """Return whether no connection was made, so that the server has received nothing of the request."""
    inner = error.args[0] if error.args else None
    return isinstance(error, requests.ConnectTimeout) or (
        isinstance(inner, MaxRetryError) and isinstance(inner.reason, NewConnectionError)
    )


_CAUSES = (
    "Connection refused",
    "Name or service not known",
    "Failed to resolve",
    "Connection reset",
    "Remote end closed connection without response",
)


def _cause(error: Exception) -> str:
    """Return the cause of a missing response, in few words."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    inner: object = error.args[0] if error.args else error
    if isinstance(inner, MaxRetryError):
        inner = inner.reason
    if isinstance(inner, ProtocolError) and len(inner.args) > 1:
        inner = inner.args[1]
    text = str(inner).strip()
    for known in _CAUSES:
        if known in text:
            return known.lower()
    return text.rpartition(": ")[2].strip(" ')\"") or text
